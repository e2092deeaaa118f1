package otel_test

import (
	"os/exec"
	"strings"
	"testing"
)

// The package needs the API of OpenTelemetry and core. A program chooses the SDK, the exporters and the adapters.
func TestImports(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	built := string(out)
	for _, wanted := range []string{"go.opentelemetry.io/otel/metric\n", "snakepit/core\n"} {
		if !strings.Contains(built, wanted) {
			t.Errorf("%q is not there, so this test sees nothing", wanted)
		}
	}
	for _, unwanted := range []string{
		"go.opentelemetry.io/otel/sdk", "go.opentelemetry.io/otel/exporters", "prometheus", "google.golang.org",
		"snakepit/adapters", "snakepit/python", "vmihailenco",
	} {
		if strings.Contains(built, unwanted) {
			t.Errorf("a program that uses the package gets %s", unwanted)
		}
	}
}

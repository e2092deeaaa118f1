//go:build !linux

// Chaos needs Linux: it reads /proc, and has the kernel limit the memory of workers.
package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "chaos: it needs Linux")
	os.Exit(1)
}

// Package kubernetes tests the manifests beside it. It is a module of its own, because nobody else needs Kubernetes.
package kubernetes

import (
	"bytes"
	"fmt"
	"os"
	"testing"

	rayv1 "github.com/ray-project/kuberay/ray-operator/apis/ray/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

// objects has the types of the manifests. Their fields are the schema: those of Kubernetes' API and of KubeRay.
var objects = map[string]func() any{
	"v1/Service":           func() any { return &corev1.Service{} },
	"apps/v1/Deployment":   func() any { return &appsv1.Deployment{} },
	"ray.io/v1/RayCluster": func() any { return &rayv1.RayCluster{} },
}

// read decodes all objects of a file. An unknown field, or one of another type, is an error.
func read(t *testing.T, path string) map[string]any {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]any{}
	for i, part := range bytes.Split(text, []byte("\n---\n")) {
		var kind metav1.TypeMeta
		if err := yaml.Unmarshal(part, &kind); err != nil {
			t.Fatal(err)
		}
		name := kind.APIVersion + "/" + kind.Kind
		if objects[name] == nil {
			t.Fatalf("%s: part %d is a %q", path, i, name)
		}
		object := objects[name]()
		if err := yaml.UnmarshalStrict(part, object); err != nil {
			t.Errorf("%s, %s: %v", path, name, err)
		}
		found[name] = object
	}
	return found
}

// The service finds the pods of the deployment, at the port on which their back end listens.
func TestServe(t *testing.T) {
	found := read(t, "serve.yaml")
	service, _ := found["v1/Service"].(*corev1.Service)
	deployment, _ := found["apps/v1/Deployment"].(*appsv1.Deployment)
	if service == nil || deployment == nil {
		t.Fatal("the service or the deployment is missing")
	}
	template := deployment.Spec.Template
	for key, value := range service.Spec.Selector {
		if template.Labels[key] != value || deployment.Spec.Selector.MatchLabels[key] != value {
			t.Errorf("the label %s is %q", key, template.Labels[key])
		}
	}
	port := service.Spec.Ports[0].Port
	container := template.Spec.Containers[0]
	if service.Spec.ClusterIP != corev1.ClusterIPNone || container.Ports[0].ContainerPort != port ||
		container.Args[0] != fmt.Sprintf("--listen=:%d", port) {
		t.Errorf("the service has port %d, the container %+v and %q", port, container.Ports, container.Args)
	}
	volumes := map[string]bool{}
	for _, v := range template.Spec.Volumes {
		volumes[v.Name] = v.Secret != nil
	}
	for _, m := range container.VolumeMounts {
		if !volumes[m.Name] {
			t.Errorf("there is no secret %s", m.Name)
		}
	}
}

// The cluster has a dashboard at the usual port, and groups that can grow.
func TestKubeRay(t *testing.T) {
	cluster, _ := read(t, "kuberay.yaml")["ray.io/v1/RayCluster"].(*rayv1.RayCluster)
	if cluster == nil {
		t.Fatal("the cluster is missing")
	}
	if head := cluster.Spec.HeadGroupSpec.Template.Spec.Containers[0]; head.Ports[0].ContainerPort != 8265 {
		t.Errorf("%+v", head.Ports)
	}
	for _, group := range cluster.Spec.WorkerGroupSpecs {
		if *group.MinReplicas > *group.Replicas || *group.Replicas > *group.MaxReplicas {
			t.Errorf("%+v", group)
		}
	}
}

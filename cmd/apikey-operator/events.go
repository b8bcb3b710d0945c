package main

import (
	"context"
	"fmt"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/events"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/manager"
)

// Events yield to keys: a burst of keys is issued at full speed while its events trickle out behind it. Each would otherwise cost a
// quarter of a key's writes.
const (
	eventQPS   = 10
	eventBurst = 100
)

// newRecorder returns a recorder that writes through a connection of its own, with a limit of its own, for as long as the manager
// runs.
func newRecorder(mgr ctrl.Manager, config *rest.Config, scheme *runtime.Scheme) (events.EventRecorder, error) {
	limited := rest.CopyConfig(config)
	limited.QPS, limited.Burst = eventQPS, eventBurst
	clients, err := kubernetes.NewForConfig(limited)
	if err != nil {
		return nil, fmt.Errorf("set up events: %w", err)
	}
	broadcaster := events.NewBroadcaster(&events.EventSinkImpl{Interface: clients.EventsV1()})
	return broadcaster.NewRecorder(scheme, component), mgr.Add(manager.RunnableFunc(func(ctx context.Context) error {
		if err := broadcaster.StartRecordingToSinkWithContext(ctx); err != nil {
			return fmt.Errorf("start events: %w", err)
		}
		<-ctx.Done()
		broadcaster.Shutdown()
		return nil
	}))
}

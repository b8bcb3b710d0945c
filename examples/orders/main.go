// Command orders is a small API that checks API keys itself, with package guard: GET /orders requires the role
// org.permission.order.read, and the response names the key that was used.
//
//	go run ./examples/orders -kubeconfig ~/.kube/config -listen 127.0.0.1:8000
//	curl -H "Authorization: Bearer $TOKEN" http://127.0.0.1:8000/orders
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"net/http"
	"os/signal"
	"syscall"
	"time"

	"k8s.io/client-go/tools/clientcmd"

	"github.com/apikey-operator/apikey-operator/guard"
)

func main() {
	kubeconfig := flag.String("kubeconfig", "", "kubeconfig file; without it, the pod's service account")
	listen := flag.String("listen", ":8000", "where the API is served")
	flag.Parse()
	if err := run(*kubeconfig, *listen); err != nil {
		log.Fatal(err)
	}
}

func run(kubeconfig, listen string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return err
	}
	keys, err := guard.New(config, guard.Options{})
	if err != nil {
		return err
	}
	go keys.Run(ctx)

	orders := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		caller, _ := guard.FromContext(r.Context())
		_, _ = fmt.Fprintf(w, "orders for %s/%s\n", caller.Namespace, caller.Name)
	})
	mux := http.NewServeMux()
	mux.Handle("GET /orders", keys.Handler(orders, guard.Need{Roles: []string{"org.permission.order.read"}}))
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if !keys.Ready() {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})

	server := &http.Server{Addr: listen, Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	drained := make(chan error, 1)
	context.AfterFunc(ctx, func() { drained <- server.Shutdown(context.WithoutCancel(ctx)) })
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return <-drained // wait for in-flight requests
}

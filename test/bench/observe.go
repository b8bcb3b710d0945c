package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/apikey-operator/apikey-operator/test/kit/controlplane"
)

// requestCounts returns the API server's counts of requests for ApiKeys, Secrets and events, by verb and resource, without watches.
func requestCounts(ctx context.Context, plane *controlplane.ControlPlane) (map[string]float64, error) {
	families, err := apiServerMetrics(ctx, plane)
	if err != nil {
		return nil, err
	}
	counts := map[string]float64{}
	for _, metric := range families["apiserver_request_total"].GetMetric() {
		labels := labelsOf(metric)
		resource := labels["resource"]
		if !slices.Contains([]string{"apikeys", "secrets", "events"}, resource) || labels["verb"] == "WATCH" {
			continue
		}
		if subresource := labels["subresource"]; subresource != "" {
			resource += "/" + subresource
		}
		counts[labels["verb"]+" "+resource] += metric.GetCounter().GetValue()
	}
	return counts, nil
}

// usageCost is what the API server and other processes have done so far.
type usageCost struct {
	cpu      map[string]time.Duration
	requests map[string]float64 // for ApiKeys and ApiKeyUsages, by verb and resource
	bytes    float64            // of their requests, answers and watch events
}

// measureUsage measures the processor time of processes, which may be several of one name, and what the API server counts.
func measureUsage(ctx context.Context, plane *controlplane.ControlPlane, processes map[string][]int) (usageCost, error) {
	cost := usageCost{cpu: map[string]time.Duration{}, requests: map[string]float64{}}
	for name, pids := range processes {
		for _, pid := range pids {
			used, err := cpuTime(pid)
			if err != nil {
				return cost, err
			}
			cost.cpu[name] += used
		}
	}
	families, err := apiServerMetrics(ctx, plane)
	if err != nil {
		return cost, err
	}
	for _, metric := range families["apiserver_request_total"].GetMetric() {
		labels := labelsOf(metric)
		if resource := labels["resource"]; strings.HasPrefix(resource, "apikey") && labels["verb"] != "WATCH" {
			if labels["subresource"] != "" {
				resource += "/" + labels["subresource"]
			}
			cost.requests[labels["verb"]+" "+resource] += metric.GetCounter().GetValue()
		}
	}
	for _, name := range []string{"apiserver_request_body_size_bytes", "apiserver_response_sizes", "apiserver_watch_events_sizes"} {
		for _, metric := range families[name].GetMetric() {
			labels := labelsOf(metric)
			if strings.HasPrefix(labels["resource"], "apikey") || strings.HasPrefix(labels["kind"], "ApiKey") {
				cost.bytes += metric.GetHistogram().GetSampleSum()
			}
		}
	}
	return cost, nil
}

func labelsOf(metric *dto.Metric) map[string]string {
	labels := map[string]string{}
	for _, pair := range metric.GetLabel() {
		labels[pair.GetName()] = pair.GetValue()
	}
	return labels
}

func apiServerMetrics(ctx context.Context, plane *controlplane.ControlPlane) (map[string]*dto.MetricFamily, error) {
	clients, err := kubernetes.NewForConfig(plane.Admin)
	if err != nil {
		return nil, err
	}
	text, err := clients.RESTClient().Get().AbsPath("/metrics").DoRaw(ctx)
	if err != nil {
		return nil, err
	}
	return parse(text)
}

// perKey returns the requests for each key, without those of the creator.
func perKey(before, after map[string]float64, keys int) []string {
	var lines []string
	for name, count := range after {
		if n := count - before[name]; n > 0 && name != "POST apikeys" && name != "PATCH apikeys" {
			lines = append(lines, fmt.Sprintf("%s: %.3f", name, n/float64(keys)))
		}
	}
	slices.Sort(lines)
	return lines
}

// writes counts the writes to ApiKeys and Secrets. Events are left out, because leader election emits one.
func writes(before, after map[string]float64) int {
	n := 0.0
	for name, count := range after {
		if !strings.HasPrefix(name, "GET ") && !strings.HasPrefix(name, "LIST ") && !strings.HasSuffix(name, " events") {
			n += count - before[name]
		}
	}
	return int(n)
}

// groupTime returns the processor time that all processes of a process group have used, such as nginx and its workers.
func groupTime(group int) (time.Duration, error) {
	processes, err := os.ReadDir("/proc")
	if err != nil {
		return 0, err
	}
	var total time.Duration
	for _, process := range processes {
		pid, err := strconv.Atoi(process.Name())
		if err != nil {
			continue // no process
		}
		if of, err := syscall.Getpgid(pid); err != nil || of != group {
			continue
		}
		spent, err := cpuTime(pid)
		if err != nil {
			return 0, err
		}
		total += spent
	}
	return total, nil
}

// cpuTime returns the processor time that a process has used.
func cpuTime(pid int) (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The name in parentheses may contain spaces. After it, utime and stime are the 12th and 13th field, in hundredths of a second (proc(5)).
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	var ticks int64
	for _, field := range fields[11:13] {
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0, err
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond, nil
}

// memory returns a process's resident memory in bytes.
func memory(p *controlplane.Process) (int64, error) {
	now, _, err := p.Memory()
	return now, err
}

// waitForReconciles waits until the issuing controller has reconciled all keys, and returns how long that took.
func waitForReconciles(ctx context.Context, plane *controlplane.ControlPlane, operator *controlplane.Operator, keys int) (time.Duration, error) {
	start := time.Now()
	reader, err := plane.As(ctx, controlplane.Namespace, controlplane.ServiceAccount)
	if err != nil {
		return 0, err
	}
	clients, err := kubernetes.NewForConfig(plane.Admin)
	if err != nil {
		return 0, err
	}
	binding := &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "bench-metrics"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "apikey-operator-metrics-reader"},
		Subjects:   []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: controlplane.Namespace, Name: controlplane.ServiceAccount}},
	}
	if _, err := clients.RbacV1().ClusterRoleBindings().Create(ctx, binding, metav1.CreateOptions{}); err != nil {
		return 0, err
	}
	// The operator's certificate is self-signed, and this process started the operator on loopback.
	insecure := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	for {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, operator.Metrics+"/metrics", nil)
		if err != nil {
			return 0, err
		}
		request.Header.Set("Authorization", "Bearer "+reader.BearerToken)
		reconciles, err := countReconciles(insecure, request)
		if err == nil && reconciles >= float64(keys) {
			return time.Since(start), nil
		}
		select {
		case <-ctx.Done():
			return 0, errors.Join(fmt.Errorf("%v of %d reconciles: %w", reconciles, keys, ctx.Err()), err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func countReconciles(c *http.Client, request *http.Request) (float64, error) {
	response, err := c.Do(request)
	if err != nil {
		return 0, err
	}
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return 0, err
	}
	if err := response.Body.Close(); err != nil {
		return 0, err
	}
	families, err := parse(text)
	if err != nil {
		return 0, err
	}
	reconciles := 0.0
	for _, metric := range families["controller_runtime_reconcile_total"].GetMetric() {
		for _, label := range metric.GetLabel() {
			if label.GetValue() == "issuing" {
				reconciles += metric.GetCounter().GetValue()
			}
		}
	}
	return reconciles, nil
}

func parse(text []byte) (map[string]*dto.MetricFamily, error) {
	parser := expfmt.NewTextParser(model.UTF8Validation)
	return parser.TextToMetricFamilies(bytes.NewReader(text))
}

package node

const (
	socket   = "/run/containerd/containerd.sock"
	dnsReady = "127.0.0.1:8181"
)

// corefile has the parameters: address, kubeconfig. DNS answers no names outside the cluster.
const corefile = `. {
	bind %s
	errors
	ready ` + dnsReady + `
	kubernetes cluster.local {
		kubeconfig %s
	}
}
`

// podNetwork has the parameters: range of addresses, folder of the allocated addresses. It uses the plugin ptp, with which the node routes
// all packets between its pods. With the plugin bridge, they would bypass kube-proxy unless the machine has br_netfilter.
const podNetwork = `{
  "cniVersion": "0.4.0",
  "name": "pods",
  "plugins": [{
    "type": "ptp",
    "ipam": {"type": "host-local", "ranges": [[{"subnet": "%s"}]], "routes": [{"dst": "0.0.0.0/0"}], "dataDir": "%s"}
  }]
}
`

// containerdConfig has the parameters: folder, socket, pause image, folder of the plugins, folder of podNetwork. containerd uses plain HTTP
// for registries on 127.0.0.1 by default. Without restrict_oom_score_adj, it would need CAP_SYS_RESOURCE.
const containerdConfig = `version = 2
root = "%[1]s/containerd"
state = "/run/containerd"
[grpc]
  address = "%[2]s"
[plugins."io.containerd.internal.v1.opt"]
  path = "%[1]s/opt"
[plugins."io.containerd.grpc.v1.cri"]
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  sandbox_image = "%[3]s"
[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "%[4]s"
  conf_dir = "%[5]s"
`

// kubeletConfig has the parameters: address, control group, address of DNS, socket of containerd, resolv.conf, folder of the pods' logs,
// folder of volume plugins, time between two syncs of a pod. The kubelet's API is open to everybody, because only processes inside the sealed namespaces reach it.
const kubeletConfig = `apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: %s
authentication: {anonymous: {enabled: true}, webhook: {enabled: false}}
authorization: {mode: AlwaysAllow}
cgroupDriver: cgroupfs
cgroupRoot: %s
clusterDNS: [%s]
clusterDomain: cluster.local
containerRuntimeEndpoint: %s
evictionHard: {imagefs.available: 0%%, nodefs.available: 0%%, nodefs.inodesFree: 0%%}
failCgroupV1: false
failSwapOn: false
localStorageCapacityIsolation: false
resolvConf: %s
podLogsDir: %s
volumePluginDir: %s
syncFrequency: %s
`

// proxyConfig has the parameters: kubeconfig, name of the node. kube-proxy leaves the size of the machine's connection table alone.
const proxyConfig = `apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
clientConnection: {kubeconfig: %s}
hostnameOverride: %s
healthzBindAddress: 127.0.0.1:10256
metricsBindAddress: 127.0.0.1:10249
oomScoreAdj: 0
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
`

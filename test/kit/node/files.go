package node

const (
	socket   = "/run/containerd/containerd.sock"
	dnsReady = "127.0.0.1:8181"
)

// corefile: address, kubeconfig. What is not of the cluster has no answer.
const corefile = `. {
	bind %s
	errors
	ready ` + dnsReady + `
	kubernetes cluster.local {
		kubeconfig %s
	}
}
`

// podNetwork: range of addresses, folder of those given out. With the plugin bridge, answers from one pod to another of the node would
// pass kube-proxy by unless the machine has br_netfilter; with ptp the node routes all of them.
const podNetwork = `{
  "cniVersion": "0.4.0",
  "name": "pods",
  "plugins": [{
    "type": "ptp",
    "ipam": {"type": "host-local", "ranges": [[{"subnet": "%s"}]], "routes": [{"dst": "0.0.0.0/0"}], "dataDir": "%s"}
  }]
}
`

// containerdConfig: folder, socket, pause image, folder of the plugins, folder of podNetwork. It talks to registries on 127.0.0.1 without
// TLS by itself. Without restrict_oom_score_adj it needs CAP_SYS_RESOURCE.
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

// kubeletConfig: address, control group, address of DNS, containerd's socket, resolv.conf, folder of pods' logs, folder of volume plugins.
// Its own API is open to all, who are only those inside.
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
`

// proxyConfig: kubeconfig, name of the node. The table of connections keeps the machine's size.
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

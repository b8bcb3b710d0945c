//go:build oldest

package main

import (
	quota "k8s.io/apiserver/pkg/quota/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/klog/v2"
	"k8s.io/kubernetes/pkg/controller/serviceaccount"
	quotainstall "k8s.io/kubernetes/pkg/quota/v1/install"
)

// The oldest release's constructors take less than the newest's.

func newServiceAccounts(
	_ klog.Logger, i informers.SharedInformerFactory, client kubernetes.Interface,
) (*serviceaccount.ServiceAccountsController, error) {
	return serviceaccount.NewServiceAccountsController(i.Core().V1().ServiceAccounts(), i.Core().V1().Namespaces(), client,
		serviceaccount.DefaultServiceAccountsControllerOptions())
}

func newQuotaConfiguration(f quota.ListerForResourceFunc, _ informers.SharedInformerFactory) (quota.Configuration, error) {
	return quotainstall.NewQuotaConfigurationForControllers(f), nil
}

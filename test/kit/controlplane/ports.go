package controlplane

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
)

// The range of ports from which FreeAddress chooses. It lies below the range from which Linux takes the ports of outgoing connections
// (net.ipv4.ip_local_port_range, 32768 to 60999 by default), so that no connection can take a port between its choice and its use.
const (
	firstPort = 15000
	lastPort  = 31999
)

// reserved holds the lock files of this process's ports. They stay open until the process exits, so that no port is chosen twice.
var reserved struct {
	sync.Mutex
	files []*os.File
}

// FreeAddress returns a loopback address, as host:port, on which nobody listens. The address stays reserved until this process exits:
// test processes that run at the same time choose other ports.
func FreeAddress() (string, error) {
	port, err := freePort()
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), err
}

func freePort() (int, error) {
	folder := filepath.Join(os.TempDir(), fmt.Sprintf("apikey-operator-ports-%d", os.Getuid()))
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return 0, err
	}
	const ports = lastPort - firstPort + 1
	start := rand.IntN(ports) //nolint:gosec // not a secret
	for i := range ports {
		port := firstPort + (start+i)%ports
		ok, err := reserve(filepath.Join(folder, strconv.Itoa(port)))
		if err != nil {
			return 0, err
		}
		if ok && unused(port) {
			return port, nil
		}
	}
	return 0, fmt.Errorf("no port from %d to %d is free", firstPort, lastPort)
}

// reserve locks a file. It returns false if this process or another one has locked the file already.
func reserve(path string) (bool, error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return false, err
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = file.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return false, nil
		}
		return false, fmt.Errorf("lock %s: %w", path, err)
	}
	reserved.Lock()
	defer reserved.Unlock()
	reserved.files = append(reserved.files, file)
	return true, nil
}

func unused(port int) bool {
	listener, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port))) //nolint:noctx // closed at once
	return err == nil && listener.Close() == nil
}

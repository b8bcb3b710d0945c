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

// Ports are chosen from this range. It lies below the one that Linux takes the ports of outgoing connections from (32768 to 60999, as
// net.ipv4.ip_local_port_range has it by default), so that no connection can take a port between its choice and its use.
const (
	firstPort = 15000
	lastPort  = 31999
)

// reserved are the lock files of this process's ports. They stay open until it ends: a port is never given out twice.
var reserved struct {
	sync.Mutex
	files []*os.File
}

// FreeAddress is an address on loopback that nobody listens on. It is kept for this process until that ends: other test processes
// that run at the same time choose others.
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
	start := rand.IntN(ports) //nolint:gosec // chance, not secrecy
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

// reserve locks a file; false if another process, or this one, has it.
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

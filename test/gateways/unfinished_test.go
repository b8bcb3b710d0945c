package gateways

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/apikey-operator/apikey-operator/test/kit/build"
)

// In this attack, each connection opens many calls, announces a message on each, sends as much of it as the server's window allows, and
// waits. A server without limits keeps all of it as long as the connections last: 1.5 GiB.
const (
	attackers      = 200
	callsEach      = 130
	announced      = 256<<10 - 1
	sentOfEach     = 60 << 10
	attackPatience = 30 * time.Second
	most           = 256 << 20 // the verifier's highest allowed memory, in bytes
)

// attack returns when everything is sent. It returns an error if the server closes the connection.
func attack(ctx context.Context, from, to string) error {
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	connection, err := dialer.DialContext(ctx, "tcp", to)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = connection.Close() })
	DeferCleanup(func() { stop(); _ = connection.Close() })
	go func() { _, _ = io.Copy(io.Discard, connection) }()
	_ = connection.SetWriteDeadline(time.Now().Add(attackPatience))

	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	for _, field := range [][2]string{
		{":method", "POST"}, {":scheme", "http"}, {":path", authv3.Authorization_Check_FullMethodName}, {":authority", "verifier"},
		{"content-type", "application/grpc"}, {"te", "trailers"},
	} {
		_ = encoder.WriteField(hpack.HeaderField{Name: field[0], Value: field[1]}) // a buffer accepts everything
	}
	message := make([]byte, sentOfEach)
	binary.BigEndian.PutUint32(message[1:], announced)

	_, err = io.WriteString(connection, http2.ClientPreface)
	framer := http2.NewFramer(connection, nil)
	if err == nil {
		err = framer.WriteSettings()
	}
	for call := range uint32(callsEach) {
		id := 2*call + 1
		// Later blocks of an encoder refer to its first block. Each call sends the first one, which depends on no other.
		if err == nil {
			err = framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block.Bytes(), EndHeaders: true})
		}
		for rest := message; err == nil && len(rest) > 0; {
			n := min(len(rest), 16<<10)
			err = framer.WriteData(id, false, rest[:n])
			rest = rest[n:]
		}
	}
	return err
}

var _ = Describe("Requests that never arrive in full", func() {
	DescribeTable("take no memory from a verifier, and no answer from a gateway beside them",
		func(from func(attacker int) string) {
			ns := namespace()
			_, good := issue(ns, "good")
			_, other := issue(ns, "other", build.Roles(roleOther))
			v := startVerifier(addresses())
			gateway := authv3.NewAuthorizationClient(dial(v.GRPC))
			ask := func(token string) int32 {
				GinkgoHelper()
				response, err := gateway.Check(ctx, envoyRequest(outside, roleRead, map[string]string{"authorization": "Bearer " + token}))
				Expect(err).NotTo(HaveOccurred())
				return int32(response.GetDeniedResponse().GetStatus().GetCode())
			}
			Eventually(func() int32 { return ask(good) }).Should(BeZero())
			Eventually(func() int32 { return ask(other) }).Should(BeEquivalentTo(http.StatusForbidden))

			limit, cancel := context.WithTimeout(ctx, 2*attackPatience)
			defer cancel()
			var attacking sync.WaitGroup
			hungUp := make([]bool, attackers)
			for i := range attackers {
				attacking.Go(func() { hungUp[i] = attack(limit, from(i), v.GRPC) != nil })
			}
			over := make(chan struct{})
			go func() { attacking.Wait(); close(over) }()

			var times []time.Duration
			for asked, done := 0, false; asked < 1000 || !done; asked++ {
				start := time.Now()
				Expect(ask(good)).To(BeZero())
				times = append(times, time.Since(start))
				Expect(ask(other)).To(BeEquivalentTo(http.StatusForbidden))
				select {
				case <-over:
					done = true
				default:
				}
			}
			Expect(statusOf(httpClient(trustedProxy), v.HTTP+"/auth?role="+roleRead, "X-Api-Key", good)).To(Equal(http.StatusOK))
			slices.Sort(times)
			_, peak, err := v.Memory()
			Expect(err).NotTo(HaveOccurred())
			AddReportEntry("answers beside the attack", fmt.Sprintf("%d, all correct; p50 %s, p99 %s; peak memory %d MiB; %d of %d connections were closed by the server",
				2*len(times), times[len(times)/2], times[len(times)*99/100], peak>>20, count(hungUp), attackers))
			Expect(peak).To(BeNumerically("<", most))
		},
		Entry("from one address", func(int) string { return "127.0.0.4" }),
		Entry("from twenty addresses", func(attacker int) string { return fmt.Sprintf("127.0.1.%d", attacker%20+1) }),
		Entry("from the gateway's own address", func(int) string { return trustedProxy }),
	)
})

func count(all []bool) (n int) {
	for _, one := range all {
		if one {
			n++
		}
	}
	return n
}

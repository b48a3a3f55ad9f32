// The sender on sideshow/apns2: 500 goroutines over one connection.
package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sideshow/apns2"
	"github.com/sideshow/apns2/token"
	"golang.org/x/net/http2"
)

func check(err error) {
	if err != nil {
		panic(err)
	}
}

func main() {
	a := os.Args[1:]
	key, err := token.AuthKeyFromFile(a[2])
	check(err)
	client := apns2.NewTokenClient(&token.Token{AuthKey: key, KeyID: a[3], TeamID: a[4]})
	client.Host = "https://localhost:" + a[0]
	pem, err := os.ReadFile(a[1])
	check(err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	client.HTTPClient = &http.Client{Transport: &http2.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}}
	count, err := strconv.Atoi(a[6])
	check(err)
	body, err := os.ReadFile(a[7])
	check(err)
	var failed int64
	run := func(begin, count int) float64 {
		work := make(chan int)
		var group sync.WaitGroup
		start := time.Now()
		for n := 0; n < 500; n++ {
			group.Add(1)
			go func() {
				defer group.Done()
				for number := range work {
					answer, err := client.Push(&apns2.Notification{
						DeviceToken: fmt.Sprintf("%064x", number), Topic: a[5], Payload: body,
						Priority: 10, PushType: apns2.EPushType("liveactivity"),
					})
					if err != nil || !answer.Sent() {
						atomic.AddInt64(&failed, 1)
					}
				}
			}()
		}
		for n := 0; n < count; n++ {
			work <- begin + n
		}
		close(work)
		group.Wait()
		return time.Since(start).Seconds()
	}
	run(0, min(count, 1000))
	failed = 0
	wall := run(100000, count)
	fmt.Printf("{\"count\": %d, \"wall\": %f, \"failed\": %d}\n", count, wall, failed)
}

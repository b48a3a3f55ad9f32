// Sends a message for each line "ID TOKEN EVENT N" on stdin with firebase-admin for Go, and prints what each
// came to. Arguments: the service account's file, and the gateway's address.
package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"sync"
	"time"

	firebase "firebase.google.com/go/v4"
	"firebase.google.com/go/v4/messaging"
	"google.golang.org/api/option"
)

func message(token, event string, n int64) *messaging.Message {
	if event == "alert" {
		return &messaging.Message{Token: token, Notification: &messaging.Notification{Title: "Goal"}}
	}
	custom := map[string]interface{}{
		"timestamp":     time.Now().Unix() + n,
		"event":         event,
		"content-state": map[string]interface{}{"n": n},
	}
	aps := &messaging.Aps{CustomData: custom}
	if event == "start" {
		custom["attributes-type"] = "Match"
		custom["attributes"] = map[string]interface{}{"game": "Boccia"}
		custom["input-push-token"] = 1
		aps.Alert = &messaging.ApsAlert{Title: "Kick-off", Body: "It begins"}
	}
	return &messaging.Message{
		Token: "registration",
		APNS: &messaging.APNSConfig{
			LiveActivityToken: token,
			Payload:           &messaging.APNSPayload{Aps: aps},
		},
	}
}

func code(err error) string {
	kinds := []struct {
		is   func(error) bool
		name string
	}{
		{messaging.IsUnregistered, "UNREGISTERED"},
		{messaging.IsSenderIDMismatch, "SENDER_ID_MISMATCH"},
		{messaging.IsThirdPartyAuthError, "THIRD_PARTY_AUTH_ERROR"},
		{messaging.IsQuotaExceeded, "QUOTA_EXCEEDED"},
		{messaging.IsUnavailable, "UNAVAILABLE"},
		{messaging.IsInternal, "INTERNAL"},
		{messaging.IsInvalidArgument, "INVALID_ARGUMENT"},
	}
	for _, kind := range kinds {
		if kind.is(err) {
			return kind.name
		}
	}
	return err.Error()
}

func main() {
	background := context.Background()
	app, err := firebase.NewApp(background, nil,
		option.WithCredentialsFile(os.Args[1]), option.WithEndpoint(os.Args[2]+"/v1"))
	if err != nil {
		panic(err)
	}
	client, err := app.Messaging(background)
	if err != nil {
		panic(err)
	}
	var lock sync.Mutex
	var sending sync.WaitGroup
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		var id, token, event string
		var n int64
		fmt.Sscan(lines.Text(), &id, &token, &event, &n)
		sending.Add(1)
		go func() {
			defer sending.Done()
			said, err := client.Send(background, message(token, event, n))
			if err != nil {
				said = code(err)
			}
			lock.Lock()
			defer lock.Unlock()
			fmt.Println(id, said)
		}()
	}
	sending.Wait()
}

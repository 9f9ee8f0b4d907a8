// Serves pstest, the in-memory Pub/Sub of Google's Go client, on a port of its own:
//
//	pubsub 127.0.0.1:8085
//
// What is published to some topics fails, as their names say:
//
//	fails-14-2-NAME   the first two times, with gRPC's code 14; with code 8 it says to wait 7.5 s
//	refuses-WORD      always with code 3, where one of the messages has the word in it; with code 14
//	                  where the first is "later"
package main

import (
	"bytes"
	"fmt"
	"os"
	"os/signal"
	"path"
	"strings"
	"sync"
	"syscall"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"cloud.google.com/go/pubsub/v2/pstest"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
)

type faults struct {
	mutex sync.Mutex
	tries map[string]int
}

// React answers a request to publish to a topic that fails.
func (f *faults) React(request any) (bool, any, error) {
	publish := request.(*pubsubpb.PublishRequest)
	answer := &pubsubpb.PublishResponse{}
	topic := path.Base(publish.Topic)
	if word, ok := strings.CutPrefix(topic, "refuses-"); ok {
		for _, message := range publish.Messages {
			if bytes.Contains(message.Data, []byte(word)) {
				return true, answer, status.Error(codes.InvalidArgument, "a message is refused")
			}
		}
		if string(publish.Messages[0].Data) == "later" {
			return true, answer, status.Error(codes.Unavailable, "not now")
		}
		return false, answer, nil
	}
	var code codes.Code
	var times int
	if found, _ := fmt.Sscanf(topic, "fails-%d-%d-", &code, &times); found < 2 {
		return false, answer, nil
	}
	f.mutex.Lock()
	defer f.mutex.Unlock()
	if f.tries[topic]++; f.tries[topic] > times {
		return false, answer, nil
	}
	failed := status.New(code, "as the topic says")
	if code == codes.ResourceExhausted {
		wait := &errdetails.RetryInfo{RetryDelay: durationpb.New(7500 * time.Millisecond)}
		failed, _ = failed.WithDetails(wait)
	}
	return true, answer, failed.Err()
}

func main() {
	reactor := &faults{tries: map[string]int{}}
	server := pstest.NewServerWithAddress(
		os.Args[1], pstest.ServerReactorOption{FuncName: "Publish", Reactor: reactor})
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, os.Interrupt, syscall.SIGTERM)
	<-stop
	server.Close()
}

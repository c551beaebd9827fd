package main

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

const perSecond = 100

// traffic produces numbered events (acks=all, idempotent) while a group reads them, and then says
// what was lost.
func traffic(bootstrap, topic string, length, grace time.Duration) {
	var mutex sync.Mutex
	acknowledged, consumed, failures := map[int]bool{}, map[int]bool{}, map[string]int{}
	stock := []kgo.Opt{
		kgo.SeedBrokers(strings.Split(bootstrap, ",")...), kgo.RequestTimeoutOverhead(5 * time.Second),
		kgo.MetadataMinAge(200 * time.Millisecond), kgo.MetadataMaxAge(5 * time.Second),
	}
	stock = slices.Clip(append(stock, security()...))
	consumer, err := kgo.NewClient(append(stock, kgo.ConsumerGroup(topic+".reader"), kgo.ConsumeTopics(topic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchMaxWait(100*time.Millisecond),
		kgo.SessionTimeout(10*time.Second), kgo.HeartbeatInterval(time.Second),
		kgo.AutoCommitInterval(time.Second))...)
	if err != nil {
		panic(err)
	}
	reading, stop := context.WithCancel(context.Background())
	go func() {
		for reading.Err() == nil {
			for _, record := range consumer.PollFetches(reading).Records() {
				id, _ := strconv.Atoi(string(record.Value))
				mutex.Lock()
				consumed[id] = true
				mutex.Unlock()
			}
		}
	}()
	producer, err := kgo.NewClient(append(stock, kgo.RecordDeliveryTimeout(max(grace, 6*time.Second)),
		kgo.ProducerLinger(5*time.Millisecond))...)
	if err != nil {
		panic(err)
	}
	sent, start := 0, time.Now()
	told := false
	for ; time.Since(start) < length && !stopped(); time.Sleep(5 * time.Millisecond) {
		mutex.Lock()
		if !told && len(acknowledged) > 0 && len(consumed) > 0 {
			told = true
			say(map[string]int{"flows": sent})
		}
		mutex.Unlock()
		for ; float64(sent) < time.Since(start).Seconds()*perSecond; sent++ {
			id := sent
			producer.Produce(context.Background(), &kgo.Record{Topic: topic, Value: []byte(strconv.Itoa(id))},
				func(_ *kgo.Record, err error) {
					mutex.Lock()
					defer mutex.Unlock()
					if err != nil {
						failures[errorOf(err)]++
					} else {
						acknowledged[id] = true
					}
				})
		}
	}
	limit, cancel := context.WithTimeout(context.Background(), grace)
	_ = producer.Flush(limit)
	cancel()
	missing := func() []int {
		mutex.Lock()
		defer mutex.Unlock()
		lost := []int{}
		for id := range acknowledged {
			if !consumed[id] {
				lost = append(lost, id)
			}
		}
		slices.Sort(lost)
		return lost
	}
	for end := time.Now().Add(grace); len(missing()) > 0 && time.Now().Before(end); {
		time.Sleep(50 * time.Millisecond)
	}
	stop()
	lost := missing()
	mutex.Lock()
	defer mutex.Unlock()
	refused := 0
	for _, count := range failures {
		refused += count
	}
	say(map[string]any{"errors": failures, "sent": sent, "acknowledged": len(acknowledged),
		"consumed": len(consumed), "refused": refused, "missing": lost[:min(20, len(lost))],
		"ids": ranges(slices.Sorted(maps.Keys(acknowledged))), "traffic": topic})
}

// stopped hears from the harness, which makes the file named in TRAFFIC_STOP.
func stopped() bool {
	file := os.Getenv("TRAFFIC_STOP")
	_, err := os.Stat(file)
	return file != "" && err == nil
}

// ranges writes numbers as `0-41,43`.
func ranges(ids []int) string {
	var spans []string
	for at := 0; at < len(ids); {
		to := at
		for to+1 < len(ids) && ids[to+1] == ids[to]+1 {
			to++
		}
		if to == at {
			spans = append(spans, strconv.Itoa(ids[at]))
		} else {
			spans = append(spans, fmt.Sprintf("%d-%d", ids[at], ids[to]))
		}
		at = to + 1
	}
	return strings.Join(spans, ",")
}

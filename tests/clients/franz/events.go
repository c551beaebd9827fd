package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	eventPartitions = 3
	eventCount      = 60
	firstMs         = 1735689600000
)

// value is null, empty, every byte there is, once larger than a socket buffer, JSON for the rest.
func value(i int) []byte {
	switch {
	case i%10 == 3:
		return nil
	case i%10 == 4:
		return []byte{}
	case i == 20:
		large := make([]byte, 200_000)
		for at := range large {
			large[at] = byte(at*31 + at/251)
		}
		return large
	case i%10 == 5:
		all := make([]byte, 256)
		for at := range all {
			all[at] = byte(at)
		}
		return all
	}
	return fmt.Appendf(nil, `{"event_type":"user.authenticated","org_id":%d,"sequence":%d}`, i%5, i)
}

// event is one of the records that every produce case sends.
func event(topic string, i int) *kgo.Record {
	record := &kgo.Record{
		Topic: topic, Partition: int32(i % eventPartitions), Value: value(i),
		Timestamp: time.UnixMilli(firstMs + int64(i)),
	}
	if i%7 != 0 {
		record.Key = fmt.Appendf(nil, "org-%d", i%5)
	}
	if i%4 != 0 {
		record.Headers = []kgo.RecordHeader{
			{Key: "event-type", Value: []byte("user.authenticated")},
			{Key: "trace", Value: fmt.Appendf(nil, "a%d", i)},
			{Key: "trace", Value: fmt.Appendf(nil, "b%d", i)},
			{Key: "empty", Value: []byte{}},
			{Key: "absent", Value: nil},
		}
	}
	return record
}

func line(r *kgo.Record) string {
	text := func(b []byte) string {
		if b == nil {
			return "null"
		}
		return hex.EncodeToString(b)
	}
	var out strings.Builder
	fmt.Fprintf(&out, "%s|%s|%d", text(r.Key), text(r.Value), r.Timestamp.UnixMilli())
	for _, header := range r.Headers {
		fmt.Fprintf(&out, "|%s=%s", header.Key, text(header.Value))
	}
	return out.String()
}

func digest(thing any) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%v", thing))
	return hex.EncodeToString(sum[:8])
}

// same fails unless the records are exactly the events sent; the digest covers every byte.
func same(noted facts, records []*kgo.Record, sent int) error {
	got, want, counts := map[int32][]string{}, map[int32][]string{}, map[string]int{}
	for _, record := range records {
		got[record.Partition] = append(got[record.Partition], line(record))
		counts[fmt.Sprintf("p%d", record.Partition)]++
	}
	for i := range sent {
		record := event("", i)
		want[record.Partition] = append(want[record.Partition], line(record))
	}
	noted["counts"], noted["digest"] = counts, digest(got)
	if !maps.EqualFunc(got, want, slices.Equal[[]string]) {
		return fmt.Errorf("the records read are not the records sent: %v", counts)
	}
	return nil
}

// poll gives what came within the time; an error of a partition is an error.
func poll(ctx context.Context, client *kgo.Client, limit time.Duration) ([]*kgo.Record, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	fetches := client.PollFetches(ctx)
	for _, failed := range fetches.Errors() {
		if failed.Err != context.DeadlineExceeded {
			return nil, failed.Err
		}
	}
	return fetches.Records(), nil
}

// readAll reads a topic from its start until `want` records came, and a moment longer.
func (m *matrix) readAll(ctx context.Context, topic string, want int, options ...kgo.Opt) ([]*kgo.Record, error) {
	client := m.client(append(options, kgo.ConsumeTopics(topic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))...)
	defer client.Close()
	var all []*kgo.Record
	for end := time.Now().Add(20 * time.Second); len(all) < want && time.Now().Before(end); {
		records, err := poll(ctx, client, 200*time.Millisecond)
		if err != nil {
			return nil, err
		}
		all = append(all, records...)
	}
	more, err := poll(ctx, client, 300*time.Millisecond)
	return append(all, more...), err
}

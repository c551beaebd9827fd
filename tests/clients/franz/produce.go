package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"
)

var codecs = map[string]kgo.CompressionCodec{
	"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(),
	"lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
}

// producer sends to the partition a record names.
func (m *matrix) producer(options ...kgo.Opt) *kgo.Client {
	return m.client(append(options, kgo.RecordPartitioner(kgo.ManualPartitioner()))...)
}

func (m *matrix) produces() {
	for _, codec := range []string{"none", "gzip", "snappy", "lz4", "zstd"} {
		m.addProduce(codec, "acks=all", kgo.AllISRAcks(), false)
	}
	m.addProduce("none", "acks=0", kgo.NoAck(), false)
	m.addProduce("none", "acks=1", kgo.LeaderAck(), false)
	m.addProduce("lz4", "acks=1", kgo.LeaderAck(), false)
	m.addProduce("none", "idempotent", kgo.AllISRAcks(), true)
	m.addProduce("zstd", "idempotent", kgo.AllISRAcks(), true)
	m.add("produce/missing-topic", func(ctx context.Context, noted facts) error {
		client := m.producer(kgo.UnknownTopicRetries(1))
		defer client.Close()
		noted["error"] = errorOf(client.ProduceSync(ctx, &kgo.Record{
			Topic: m.prefix + "user.nowhere", Value: []byte("x")}).FirstErr())
		return nil
	})
	m.add("produce/too-large", func(ctx context.Context, noted facts) error {
		topic, err := m.topic(ctx, "user.small", 1, "max.message.bytes", "2000")
		if err != nil {
			return err
		}
		client := m.producer(kgo.ProducerBatchCompression(kgo.NoCompression()))
		defer client.Close()
		noted["large"] = errorOf(client.ProduceSync(ctx, &kgo.Record{Topic: topic, Value: make([]byte, 5000)}).FirstErr())
		small, err := client.ProduceSync(ctx, &kgo.Record{Topic: topic, Value: make([]byte, 50)}).First()
		if err == nil {
			noted["small"] = small.Offset
		}
		return err
	})
}

func (m *matrix) addProduce(codec, how string, acks kgo.Acks, idempotent bool) {
	name := "produce/" + codec + "/" + how
	m.add(name, func(ctx context.Context, noted facts) error {
		topic, err := m.topic(ctx, strings.NewReplacer("/", ".", "=", "-").Replace(name), eventPartitions)
		if err != nil {
			return err
		}
		options := []kgo.Opt{kgo.RequiredAcks(acks), kgo.ProducerBatchCompression(codecs[codec])}
		if !idempotent {
			options = append(options, kgo.DisableIdempotentWrite())
		}
		client := m.producer(options...)
		defer client.Close()
		var sent []*kgo.Record
		for i := range eventCount {
			sent = append(sent, event(topic, i))
		}
		last := map[string]int64{}
		for _, result := range client.ProduceSync(ctx, sent...) {
			if result.Err != nil {
				return result.Err
			}
			last[fmt.Sprintf("p%d", result.Record.Partition)] = result.Record.Offset
		}
		if how != "acks=0" {
			noted["lastOffsets"] = last
		}
		records, err := m.readAll(ctx, topic, eventCount)
		if err != nil {
			return err
		}
		return same(noted, records, eventCount)
	})
}

// send sends each text to the partitions in turn.
func (m *matrix) send(ctx context.Context, client *kgo.Client, topic, name string, from, to, partitions int) error {
	var sent []*kgo.Record
	for i := from; i < to; i++ {
		sent = append(sent, &kgo.Record{Topic: topic, Partition: int32(i % partitions),
			Value: fmt.Appendf(nil, "%s-%d", name, i)})
	}
	return client.ProduceSync(ctx, sent...).FirstErr()
}

package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

func (m *matrix) transactional(name string) *kgo.Client {
	return m.producer(kgo.TransactionalID(m.prefix+name), kgo.TransactionTimeout(30*time.Second))
}

func (m *matrix) transactions() {
	m.add("transaction/commit-abort", m.commitAbort)
	m.add("transaction/offsets", m.transactionOffsets)
	m.add("transaction/fenced", m.fenced)
}

func (m *matrix) commitAbort(ctx context.Context, noted facts) error {
	topic, err := m.topic(ctx, "saga.started", 3)
	if err != nil {
		return err
	}
	producer := m.transactional("saga")
	defer producer.Close()
	for _, name := range []string{"kept", "dropped", "kept-too"} {
		if err := producer.BeginTransaction(); err != nil {
			return err
		}
		if err := m.send(ctx, producer, topic, name, 0, 10, 3); err != nil {
			return err
		}
		if err := producer.EndTransaction(ctx, name != "dropped"); err != nil {
			return err
		}
	}
	levels := map[string]kgo.IsolationLevel{"read_committed": kgo.ReadCommitted(), "read_uncommitted": kgo.ReadUncommitted()}
	for name, want := range map[string]int{"read_committed": 20, "read_uncommitted": 30} {
		records, err := m.readAll(ctx, topic, want, kgo.FetchIsolationLevel(levels[name]))
		if err != nil {
			return err
		}
		names := map[string]int{}
		for _, record := range records {
			text := string(record.Value)
			names[text[:strings.LastIndex(text, "-")]]++
		}
		noted[name] = names
		if len(records) != want {
			return fmt.Errorf("%s saw %d of %d", name, len(records), want)
		}
	}
	return nil
}

func (m *matrix) transactionOffsets(ctx context.Context, noted facts) error {
	source, err := m.topic(ctx, "saga.requested", 3)
	if err != nil {
		return err
	}
	target, err := m.topic(ctx, "saga.compensated", 3)
	if err != nil {
		return err
	}
	group := m.prefix + "saga-service"
	plain := m.producer()
	defer plain.Close()
	if err := m.send(ctx, plain, source, "request", 0, 10, 3); err != nil {
		return err
	}
	session, err := kgo.NewGroupTransactSession(append(security(),
		kgo.SeedBrokers(strings.Split(m.bootstrap, ",")...), kgo.TransactionalID(m.prefix+"saga-offsets"),
		kgo.ConsumerGroup(group), kgo.ConsumeTopics(source), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.RequireStableFetchOffsets(),
		kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.FetchMaxWait(100*time.Millisecond))...)
	if err != nil {
		return err
	}
	defer session.Close()
	if err := session.Begin(); err != nil {
		return err
	}
	copied := 0
	for end := time.Now().Add(20 * time.Second); copied < 10 && time.Now().Before(end); {
		wait, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
		records := session.PollFetches(wait).Records()
		cancel()
		for _, record := range records {
			copied++
			if err := session.ProduceSync(ctx, &kgo.Record{Topic: target, Partition: record.Partition,
				Value: record.Value}).FirstErr(); err != nil {
				return err
			}
		}
	}
	committed, err := session.End(ctx, kgo.TryCommit)
	if err != nil {
		return err
	}
	noted["committed"] = committed
	admin := m.admin()
	defer admin.Close()
	noted["offsets"] = until("map[0:4 1:3 2:3]", func() string {
		offsets, err := admin.FetchOffsets(ctx, group)
		if err != nil {
			return errorOf(err)
		}
		at := map[int32]int64{}
		offsets.Each(func(o kadm.OffsetResponse) { at[o.Partition] = o.At })
		return fmt.Sprint(at)
	})
	records, err := m.readAll(ctx, target, 10, kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	noted["copied"] = len(records)
	if err == nil && len(records) != 10 {
		err = fmt.Errorf("copied %d of 10", len(records))
	}
	return err
}

func (m *matrix) fenced(ctx context.Context, noted facts) error {
	topic, err := m.topic(ctx, "saga.fenced", 3)
	if err != nil {
		return err
	}
	old, young := m.transactional("saga-fenced"), m.transactional("saga-fenced")
	defer old.Close()
	defer young.Close()
	whole := func(producer *kgo.Client, name string) error {
		if err := producer.BeginTransaction(); err != nil {
			return err
		}
		if err := m.send(ctx, producer, topic, name, 0, 10, 3); err != nil {
			return err
		}
		return producer.EndTransaction(ctx, kgo.TryCommit)
	}
	if err := whole(old, "old"); err != nil {
		return err
	}
	if err := whole(young, "young"); err != nil {
		return err
	}
	noted["error"] = errorOf(whole(old, "late"))
	records, err := m.readAll(ctx, topic, 20, kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	noted["seen"] = len(records)
	return err
}

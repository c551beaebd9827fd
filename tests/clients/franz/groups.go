package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

const groupLimit = 40 * time.Second

// member is one consumer of a group and the partitions it owns now.
type member struct {
	*kgo.Client
	mutex sync.Mutex
	owned map[int32]bool
}

func (m *matrix) member(group, topic, id, protocol string) *member {
	one := &member{owned: map[int32]bool{}}
	change := func(owned bool) func(context.Context, *kgo.Client, map[string][]int32) {
		return func(_ context.Context, _ *kgo.Client, changed map[string][]int32) {
			one.mutex.Lock()
			defer one.mutex.Unlock()
			for _, partition := range changed[topic] {
				if owned {
					one.owned[partition] = true
				} else {
					delete(one.owned, partition)
				}
			}
		}
	}
	options := []kgo.Opt{
		kgo.ConsumerGroup(group), kgo.ConsumeTopics(topic), kgo.ClientID(id),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.DisableAutoCommit(),
		kgo.OnPartitionsAssigned(change(true)), kgo.OnPartitionsRevoked(change(false)),
		kgo.OnPartitionsLost(change(false)), kgo.Balancers(kgo.RangeBalancer()),
	}
	if protocol == "consumer" {
		options = append(options, kgo.ServerSideBalancer())
	} else {
		options = append(options, kgo.HeartbeatInterval(500*time.Millisecond), kgo.SessionTimeout(10*time.Second))
	}
	one.Client = m.client(options...)
	return one
}

func (one *member) size() int {
	one.mutex.Lock()
	defer one.mutex.Unlock()
	return len(one.owned)
}

func (one *member) collect(ctx context.Context, into map[string]bool) error {
	records, err := poll(ctx, one.Client, 100*time.Millisecond)
	for _, record := range records {
		into[string(record.Value)] = true
	}
	return err
}

func (m *matrix) groups() {
	m.add("group/classic", func(ctx context.Context, noted facts) error { return m.group(ctx, noted, "classic") })
	m.add("group/consumer", func(ctx context.Context, noted facts) error { return m.group(ctx, noted, "consumer") })
	m.add("group/share", m.share)
}

func (m *matrix) group(ctx context.Context, noted facts, protocol string) error {
	topic, err := m.topic(ctx, "workflow.requested."+protocol, 4)
	if err != nil {
		return err
	}
	group := m.prefix + "ai-service-group." + protocol
	producer := m.producer()
	defer producer.Close()
	admin := m.admin()
	defer admin.Close()
	if err := m.send(ctx, producer, topic, "event", 0, 40, 4); err != nil {
		return err
	}
	seen, end := map[string]bool{}, time.Now().Add(groupLimit)
	within := func() bool { return time.Now().Before(end) }
	first := m.member(group, topic, "first", protocol)
	defer first.Close()
	for len(seen) < 40 && within() {
		if err := first.collect(ctx, seen); err != nil {
			return err
		}
	}
	noted["alone"], noted["readAlone"] = first.size(), len(seen)
	if err := first.CommitUncommittedOffsets(ctx); err != nil {
		return err
	}
	second := m.member(group, topic, "second", protocol)
	defer second.Close()
	both := func() error {
		if err := first.collect(ctx, seen); err != nil {
			return err
		}
		return second.collect(ctx, seen)
	}
	for (first.size() != 2 || second.size() != 2) && within() {
		if err := both(); err != nil {
			return err
		}
	}
	noted["shared"] = []int{first.size(), second.size()}
	if err := m.send(ctx, producer, topic, "event", 40, 60, 4); err != nil {
		return err
	}
	for len(seen) < 60 && within() {
		if err := both(); err != nil {
			return err
		}
	}
	noted["readShared"] = len(seen)
	if protocol == "consumer" {
		described, err := admin.DescribeConsumerGroups(ctx, group)
		if err != nil {
			return err
		}
		one := described[group]
		noted["described"] = []any{one.State, one.AssignorName, len(one.Members), errorOf(one.Err)}
	} else {
		described, err := admin.DescribeGroups(ctx, group)
		if err != nil {
			return err
		}
		one := described[group]
		noted["described"] = []any{one.State, one.ProtocolType, one.Protocol, len(one.Members), errorOf(one.Err)}
	}
	for _, one := range []*member{first, second} {
		if err := one.CommitUncommittedOffsets(ctx); err != nil {
			return err
		}
		one.Close()
	}
	if err := m.send(ctx, producer, topic, "event", 60, 68, 4); err != nil {
		return err
	}
	third := m.member(group, topic, "third", protocol)
	defer third.Close()
	resumed := map[string]bool{}
	for end = time.Now().Add(groupLimit); len(resumed) < 8 && within(); {
		if err := third.collect(ctx, resumed); err != nil {
			return err
		}
	}
	noted["resumed"] = slices.Sorted(maps.Keys(resumed))
	if err := third.CommitUncommittedOffsets(ctx); err != nil {
		return err
	}
	offsets, err := admin.FetchOffsets(ctx, group)
	if err != nil {
		return err
	}
	committed := map[string]int64{}
	offsets.Each(func(o kadm.OffsetResponse) { committed[fmt.Sprintf("p%d", o.Partition)] = o.At })
	noted["committed"] = committed
	if len(seen) != 60 || len(resumed) != 8 {
		return fmt.Errorf("read %d of 60 events in the group, %d of 8 after it", len(seen), len(resumed))
	}
	return nil
}

func (m *matrix) share(ctx context.Context, noted facts) error {
	topic, err := m.topic(ctx, "workflow.requested.share", 4)
	if err != nil {
		return err
	}
	group := m.prefix + "ai-service-group.share"
	admin := m.admin()
	defer admin.Close()
	if err := alterGroup(ctx, admin, m, group, "share.auto.offset.reset", "earliest"); err != nil {
		return err
	}
	producer := m.producer()
	defer producer.Close()
	if err := m.send(ctx, producer, topic, "event", 0, 40, 4); err != nil {
		return err
	}
	var failed error
	var mutex sync.Mutex
	callback := kgo.ShareAckCallback(func(_ *kgo.Client, results kgo.ShareAckResults) {
		mutex.Lock()
		defer mutex.Unlock()
		if err := results.Error(); err != nil {
			failed = err
		}
	})
	accepted, released, deliveries := map[string]bool{}, map[string]bool{}, map[string]int{}
	var members []*kgo.Client
	for range 2 {
		members = append(members, m.client(kgo.ShareGroup(group), kgo.ConsumeTopics(topic), callback))
	}
	for end := time.Now().Add(groupLimit); len(accepted) < 40 && time.Now().Before(end); {
		for _, one := range members {
			records, err := poll(ctx, one, 300*time.Millisecond)
			if err != nil {
				return err
			}
			for _, record := range records {
				text := string(record.Value)
				deliveries[text]++
				if strings.HasSuffix(text, "7") && !released[text] {
					released[text] = true
					record.Ack(kgo.AckRelease)
				} else {
					accepted[text] = true
					record.Ack(kgo.AckAccept)
				}
			}
			if err := one.FlushAcks(ctx); err != nil {
				return err
			}
		}
	}
	for _, one := range members {
		one.Close()
	}
	var twice []string
	for text, count := range deliveries {
		if count == 2 {
			twice = append(twice, text)
		}
	}
	slices.Sort(twice)
	noted["accepted"], noted["released"] = len(accepted), slices.Sorted(maps.Keys(released))
	noted["twice"] = twice
	mutex.Lock()
	defer mutex.Unlock()
	if failed == nil && len(accepted) != 40 {
		return fmt.Errorf("accepted %d of 40 events", len(accepted))
	}
	return failed
}

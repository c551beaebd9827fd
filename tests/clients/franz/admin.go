package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

func (m *matrix) addAdmin(name string, run func(context.Context, *kadm.Client, facts) error) {
	m.add("admin/"+name, func(ctx context.Context, noted facts) error {
		admin := m.admin()
		defer admin.Close()
		return run(ctx, admin, noted)
	})
}

func text(value string) *string { return &value }

// alterGroup sets a group's configuration, for which kadm has no call.
func alterGroup(ctx context.Context, _ *kadm.Client, m *matrix, group, name, value string) error {
	client := m.client()
	defer client.Close()
	request := kmsg.NewPtrIncrementalAlterConfigsRequest()
	resource := kmsg.NewIncrementalAlterConfigsRequestResource()
	resource.ResourceType, resource.ResourceName = kmsg.ConfigResourceTypeGroupConfig, group
	config := kmsg.NewIncrementalAlterConfigsRequestResourceConfig()
	config.Name, config.Value = name, &value
	resource.Configs = append(resource.Configs, config)
	request.Resources = append(request.Resources, resource)
	answer, err := request.RequestWith(ctx, client)
	if err != nil {
		return err
	}
	return kerr.ErrorForCode(answer.Resources[0].ErrorCode)
}

func (m *matrix) admins() {
	m.addAdmin("create-topic", func(ctx context.Context, admin *kadm.Client, noted facts) error {
		name, bad := m.prefix+"ai.created", m.prefix+"ai.bad"
		created, err := admin.CreateTopic(ctx, 3, 1, map[string]*string{"retention.ms": text("604800000")}, name)
		noted["created"] = []any{created.NumPartitions, created.ReplicationFactor, *created.Configs["retention.ms"].Value}
		fails := func(how string, replicas int16, configs map[string]*string, topic string) {
			_, err := admin.CreateTopic(ctx, 3, replicas, configs, topic)
			noted[how] = errorOf(err)
		}
		fails("again", 1, nil, name)
		fails("badName", 1, nil, "a b")
		fails("badConfig", 1, map[string]*string{"no.such": text("1")}, bad)
		fails("badReplication", 30, nil, bad)
		return err
	})
	m.addAdmin("list-topics", func(ctx context.Context, admin *kadm.Client, noted facts) error {
		name, err := m.topic(ctx, "ai.listed", 2)
		if err != nil {
			return err
		}
		listed, err := admin.ListTopics(ctx)
		noted["partitions"] = len(listed[name].Partitions)
		return err
	})
	m.addAdmin("describe-topics", m.describeTopics)
	m.addAdmin("describe-cluster", m.describeCluster)
	m.addAdmin("describe-configs", m.describeConfigs)
	m.addAdmin("alter-configs", m.alterConfigs)
	m.addAdmin("groups", m.adminGroups)
	m.addAdmin("list-offsets", m.listOffsets)
	m.addAdmin("delete-records", m.deleteRecords)
	m.addAdmin("create-partitions", func(ctx context.Context, admin *kadm.Client, noted facts) error {
		name, err := m.topic(ctx, "ai.grown", 2)
		if err != nil {
			return err
		}
		grow := func(to int) string {
			answers, err := admin.UpdatePartitions(ctx, to, name)
			if err != nil {
				return errorOf(err)
			}
			return errorOf(answers[name].Err)
		}
		noted["grown"] = grow(5)
		noted["partitions"] = until("5", func() string {
			listed, _ := admin.ListTopics(ctx, name)
			return fmt.Sprint(len(listed[name].Partitions))
		})
		noted["shrink"] = grow(3)
		return nil
	})
	m.addAdmin("delete-topic", func(ctx context.Context, admin *kadm.Client, noted facts) error {
		name, err := m.topic(ctx, "ai.deleted", 2)
		if err != nil {
			return err
		}
		remove := func() string {
			_, err := admin.DeleteTopic(ctx, name)
			return errorOf(err)
		}
		noted["deleted"] = remove()
		noted["after"] = until("UNKNOWN_TOPIC_OR_PARTITION", func() string {
			listed, _ := admin.ListTopics(ctx, name)
			return errorOf(listed[name].Err)
		})
		noted["again"] = remove()
		return nil
	})
	m.addAdmin("api-versions", func(ctx context.Context, admin *kadm.Client, noted facts) error {
		answers, err := admin.ApiVersions(ctx)
		for id, answer := range answers {
			noted[fmt.Sprintf("produce-%d", id)] = fmt.Sprint(answer.KeyVersions(0))
			noted[fmt.Sprintf("error-%d", id)] = errorOf(answer.Err)
		}
		return err
	})
	m.addAdmin("coordinators", func(ctx context.Context, admin *kadm.Client, noted facts) error {
		for _, found := range admin.FindGroupCoordinators(ctx, m.prefix+"a", m.prefix+"b").Sorted() {
			noted[found.Name] = []any{found.NodeID, errorOf(found.Err)}
		}
		for _, found := range admin.FindTxnCoordinators(ctx, m.prefix+"t").Sorted() {
			noted[found.Name] = []any{found.NodeID, errorOf(found.Err)}
		}
		return nil
	})
}

func (m *matrix) describeTopics(ctx context.Context, admin *kadm.Client, noted facts) error {
	name, err := m.topic(ctx, "ai.described", 3)
	if err != nil {
		return err
	}
	listed, err := admin.ListTopics(ctx, name, m.prefix+"ai.missing")
	if err != nil {
		return err
	}
	var partitions []string
	for _, p := range listed[name].Partitions.Sorted() {
		partitions = append(partitions, fmt.Sprintf("%d:%d:%v:%v", p.Partition, p.Leader, p.Replicas, p.ISR))
	}
	noted["partitions"], noted["hasId"] = partitions, listed[name].ID != kadm.TopicID{}
	noted["missing"] = errorOf(listed[m.prefix+"ai.missing"].Err)
	return nil
}

func (m *matrix) describeCluster(ctx context.Context, admin *kadm.Client, noted facts) error {
	metadata, err := admin.BrokerMetadata(ctx)
	if err != nil {
		return err
	}
	ids := metadata.Brokers.NodeIDs()
	slices.Sort(ids)
	noted["cluster"], noted["nodes"] = metadata.Cluster, ids
	noted["controller"] = slices.Contains(ids, metadata.Controller)
	return nil
}

func (m *matrix) describeConfigs(ctx context.Context, admin *kadm.Client, noted facts) error {
	name, err := m.topic(ctx, "ai.configured", 1)
	if err != nil {
		return err
	}
	// Addresses differ through a proxy; everything else must not.
	sum := func(configs kadm.ResourceConfigs, err error) string {
		if err != nil {
			return errorOf(err)
		}
		var lines []string
		for _, config := range configs[0].Configs {
			if !strings.Contains(config.Key, "listeners") && !strings.Contains(config.Key, "quorum") {
				lines = append(lines, fmt.Sprint(config.Key, config.MaybeValue(), config.Source, config.Sensitive))
			}
		}
		slices.Sort(lines)
		return fmt.Sprintf("%s %d %s", errorOf(configs[0].Err), len(configs[0].Configs), digest(lines))
	}
	noted["topic"] = sum(admin.DescribeTopicConfigs(ctx, name))
	noted["broker"] = sum(admin.DescribeBrokerConfigs(ctx, 1))
	noted["missing"] = sum(admin.DescribeTopicConfigs(ctx, m.prefix+"ai.missing"))
	return nil
}

func (m *matrix) alterConfigs(ctx context.Context, admin *kadm.Client, noted facts) error {
	name, err := m.topic(ctx, "ai.altered", 1)
	if err != nil {
		return err
	}
	alter := func(config kadm.AlterConfig) string {
		answers, err := admin.AlterTopicConfigs(ctx, []kadm.AlterConfig{config}, name)
		if err != nil {
			return errorOf(err)
		}
		return errorOf(answers[0].Err)
	}
	now := func() string {
		configs, err := admin.DescribeTopicConfigs(ctx, name)
		if err != nil {
			return errorOf(err)
		}
		for _, config := range configs[0].Configs {
			if config.Key == "retention.ms" {
				return config.MaybeValue()
			}
		}
		return "absent"
	}
	noted["set"] = alter(kadm.AlterConfig{Name: "retention.ms", Value: text("86400000")})
	noted["after"] = until("86400000", now)
	noted["bad"] = alter(kadm.AlterConfig{Name: "retention.ms", Value: text("soon")})
	noted["delete"] = alter(kadm.AlterConfig{Op: kadm.DeleteConfig, Name: "retention.ms"})
	noted["deleted"] = until("604800000", now)
	return nil
}

func (m *matrix) adminGroups(ctx context.Context, admin *kadm.Client, noted facts) error {
	topic, err := m.topic(ctx, "ai.grouped", 2)
	if err != nil {
		return err
	}
	group, producer := m.prefix+"bronze-processor", m.producer()
	defer producer.Close()
	if err := m.send(ctx, producer, topic, "event", 0, 10, 2); err != nil {
		return err
	}
	one, seen := m.member(group, topic, "only", "classic"), map[string]bool{}
	defer one.Close()
	for end := time.Now().Add(20 * time.Second); len(seen) < 10 && time.Now().Before(end); {
		if err := one.collect(ctx, seen); err != nil {
			return err
		}
	}
	if err := one.CommitUncommittedOffsets(ctx); err != nil {
		return err
	}
	listed, err := admin.ListGroups(ctx)
	if err != nil {
		return err
	}
	noted["listed"] = []any{listed[group].State, listed[group].ProtocolType, listed[group].Coordinator}
	remove := func() string {
		answers, err := admin.DeleteGroups(ctx, group)
		if err != nil {
			return errorOf(err)
		}
		return errorOf(answers[group].Err)
	}
	noted["deleteActive"] = remove()
	one.Close()
	noted["empty"] = until("Empty", func() string {
		described, _ := admin.DescribeGroups(ctx, group)
		return described[group].State
	})
	answers, err := admin.DeleteOffsets(ctx, group, kadm.TopicsSet{topic: {0: {}}})
	noted["offsetsDeleted"] = []any{errorOf(err), errorOf(answers[topic][0])}
	lag, err := admin.Lag(ctx, group)
	if err != nil {
		return err
	}
	noted["lag"] = lag[group].Lag.Total()
	noted["deleted"], noted["again"] = remove(), remove()
	return nil
}

func (m *matrix) filled(ctx context.Context, name string) (string, error) {
	topic, err := m.topic(ctx, name, eventPartitions)
	if err != nil {
		return topic, err
	}
	producer := m.producer()
	defer producer.Close()
	var sent []*kgo.Record
	for i := range eventCount {
		sent = append(sent, event(topic, i))
	}
	return topic, producer.ProduceSync(ctx, sent...).FirstErr()
}

func (m *matrix) listOffsets(ctx context.Context, admin *kadm.Client, noted facts) error {
	topic, err := m.filled(ctx, "ai.offsets")
	if err != nil {
		return err
	}
	for name, ask := range map[string]func() (kadm.ListedOffsets, error){
		"earliest": func() (kadm.ListedOffsets, error) { return admin.ListStartOffsets(ctx, topic) },
		"latest":   func() (kadm.ListedOffsets, error) { return admin.ListEndOffsets(ctx, topic) },
		"byTime":   func() (kadm.ListedOffsets, error) { return admin.ListOffsetsAfterMilli(ctx, firstMs+30, topic) },
		"maxTime":  func() (kadm.ListedOffsets, error) { return admin.ListMaxTimestampOffsets(ctx, topic) },
		"stable":   func() (kadm.ListedOffsets, error) { return admin.ListCommittedOffsets(ctx, topic) },
	} {
		listed, err := ask()
		if err != nil {
			return err
		}
		noted[name] = fmt.Sprintf("%d@%d", listed[topic][1].Offset, listed[topic][1].Timestamp)
	}
	return nil
}

func (m *matrix) deleteRecords(ctx context.Context, admin *kadm.Client, noted facts) error {
	topic, err := m.filled(ctx, "ai.cut")
	if err != nil {
		return err
	}
	cut := func(at int64) (int64, string) {
		offsets := kadm.Offsets{}
		offsets.Add(kadm.Offset{Topic: topic, Partition: 2, At: at})
		answers, err := admin.DeleteRecords(ctx, offsets)
		if err != nil {
			return -1, errorOf(err)
		}
		return answers[topic][2].LowWatermark, errorOf(answers[topic][2].Err)
	}
	low, failed := cut(7)
	noted["low"] = []any{low, failed}
	_, noted["beyond"] = cut(700)
	records, err := m.readAll(ctx, topic, 53)
	noted["left"] = len(records)
	return err
}

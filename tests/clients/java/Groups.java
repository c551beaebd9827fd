import java.time.Duration;
import java.util.ArrayList;
import java.util.Collections;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import java.util.TreeSet;
import java.util.stream.Collectors;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.consumer.AcknowledgeType;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.KafkaShareConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;

/** Two members and a rebalance in each group protocol, commit and resume, and a share group. */
final class Groups {
    private static final int PARTITIONS = 4;
    private static final Duration LIMIT = Duration.ofSeconds(40);

    private Groups() {
    }

    static void register(Matrix matrix) {
        matrix.add("group/classic", facts -> group(matrix, facts, "classic"));
        matrix.add("group/consumer", facts -> group(matrix, facts, "consumer"));
        matrix.add("group/share", facts -> share(matrix, facts));
    }

    private static KafkaConsumer<byte[], byte[]> member(Matrix matrix, String protocol, String group, String client) {
        var settings = matrix.settings.consumer("group.id", group, "group.protocol", protocol, "client.id", client);
        if (protocol.equals("classic")) {
            settings.put("heartbeat.interval.ms", 500);
            settings.put("session.timeout.ms", 10_000);
        }
        return new KafkaConsumer<>(settings);
    }

    private static void send(Matrix matrix, String topic, int from, int to) throws Exception {
        try (var producer = matrix.settings.producer("acks", "all")) {
            for (int i = from; i < to; i++) {
                producer.send(new org.apache.kafka.clients.producer.ProducerRecord<>(topic, i % PARTITIONS, null,
                        Events.text("event-" + i)));
            }
            producer.flush();
        }
    }

    private static void group(Matrix matrix, Facts facts, String protocol) throws Exception {
        String topic = matrix.topic("workflow.requested." + protocol, PARTITIONS);
        String group = matrix.prefix + "ai-service-group." + protocol;
        send(matrix, topic, 0, 40);
        Set<String> seen = new TreeSet<>();
        Map<TopicPartition, Long> next = new HashMap<>();
        try (var first = member(matrix, protocol, group, "first"); var second = member(matrix, protocol, group, "second")) {
            first.subscribe(List.of(topic));
            long until = System.nanoTime() + LIMIT.toNanos();
            while (seen.size() < 40 && System.nanoTime() < until) {
                collect(first, seen, next);
            }
            facts.note("alone", first.assignment().size()).note("readAlone", seen.size());
            first.commitSync(Duration.ofSeconds(10));
            second.subscribe(List.of(topic));
            while ((first.assignment().size() != 2 || second.assignment().size() != 2) && System.nanoTime() < until) {
                collect(first, seen, next);
                collect(second, seen, next);
            }
            facts.note("shared", List.of(first.assignment().size(), second.assignment().size()));
            send(matrix, topic, 40, 60);
            while (seen.size() < 60 && System.nanoTime() < until) {
                collect(first, seen, next);
                collect(second, seen, next);
            }
            facts.note("readShared", seen.size());
            try (var admin = matrix.settings.admin()) {
                var described = admin.describeConsumerGroups(List.of(group)).all().get().get(group);
                facts.note("state", described.groupState().toString()).note("type", described.type().toString())
                        .note("members", described.members().size()).note("assignor", described.partitionAssignor())
                        .note("clients", new TreeSet<>(described.members().stream().map(m -> m.clientId()).toList()));
            }
            for (var member : List.of(first, second)) {
                member.commitSync(offsets(member, next), Duration.ofSeconds(10));
            }
        }
        send(matrix, topic, 60, 68);
        Set<String> resumed = new TreeSet<>();
        try (var third = member(matrix, protocol, group, "third")) {
            third.subscribe(List.of(topic));
            long until = System.nanoTime() + LIMIT.toNanos();
            while (resumed.size() < 8 && System.nanoTime() < until) {
                collect(third, resumed, next);
            }
            facts.note("resumed", resumed);
            third.commitSync(offsets(third, next), Duration.ofSeconds(10));
        }
        try (var admin = matrix.settings.admin()) {
            Map<String, Long> committed = new TreeMap<>();
            admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata().get()
                    .forEach((partition, offset) -> committed.put("p" + partition.partition(), offset.offset()));
            facts.note("committed", committed);
        }
        Facts.check(seen.size() == 60, "read " + seen.size() + " of 60 events in the group");
        Facts.check(resumed.size() == 8, "resumed with " + resumed.size() + " of 8 events");
    }

    private static Map<TopicPartition, OffsetAndMetadata> offsets(KafkaConsumer<byte[], byte[]> member,
            Map<TopicPartition, Long> next) {
        return member.assignment().stream().filter(next::containsKey)
                .collect(Collectors.toMap(p -> p, p -> new OffsetAndMetadata(next.get(p), "by the matrix")));
    }

    private static void collect(KafkaConsumer<byte[], byte[]> member, Set<String> seen, Map<TopicPartition, Long> next) {
        member.poll(Duration.ofMillis(100)).forEach(record -> {
            seen.add(new String(record.value()));
            next.put(new TopicPartition(record.topic(), record.partition()), record.offset() + 1);
        });
    }

    private static void share(Matrix matrix, Facts facts) throws Exception {
        String topic = matrix.topic("workflow.requested.share", PARTITIONS);
        String group = matrix.prefix + "ai-service-group.share";
        try (var admin = matrix.settings.admin()) {
            admin.incrementalAlterConfigs(Map.of(new ConfigResource(ConfigResource.Type.GROUP, group),
                    List.of(new AlterConfigOp(new ConfigEntry("share.auto.offset.reset", "earliest"),
                            AlterConfigOp.OpType.SET)))).all().get();
        }
        send(matrix, topic, 0, 40);
        var settings = matrix.settings.consumer("group.id", group, "share.acknowledgement.mode", "explicit");
        settings.remove("auto.offset.reset");
        settings.remove("enable.auto.commit");
        Set<String> accepted = new TreeSet<>();
        Set<String> released = new TreeSet<>();
        Map<String, Integer> deliveries = Collections.synchronizedMap(new TreeMap<>());
        try (var first = new KafkaShareConsumer<byte[], byte[]>(settings);
                var second = new KafkaShareConsumer<byte[], byte[]>(settings)) {
            first.subscribe(List.of(topic));
            second.subscribe(List.of(topic));
            long until = System.nanoTime() + LIMIT.toNanos();
            while (accepted.size() < 40 && System.nanoTime() < until) {
                for (var member : List.of(first, second)) {
                    List<ConsumerRecord<byte[], byte[]>> batch = new ArrayList<>();
                    member.poll(Duration.ofMillis(200)).forEach(batch::add);
                    for (var record : batch) {
                        String event = new String(record.value());
                        deliveries.merge(event, 1, Integer::sum);
                        boolean refuse = event.endsWith("7") && released.add(event);
                        member.acknowledge(record, refuse ? AcknowledgeType.RELEASE : AcknowledgeType.ACCEPT);
                        if (!refuse) {
                            accepted.add(event);
                        }
                    }
                    member.commitSync(Duration.ofSeconds(10)).values()
                            .forEach(error -> Facts.check(error.isEmpty(), "an acknowledgement failed: " + error));
                }
            }
            try (var admin = matrix.settings.admin()) {
                var described = admin.describeShareGroups(List.of(group)).all().get().get(group);
                facts.note("state", described.groupState().toString()).note("members", described.members().size());
            }
        }
        facts.note("accepted", accepted.size()).note("released", released)
                .note("twice", deliveries.entrySet().stream().filter(e -> e.getValue() == 2).map(Map.Entry::getKey).toList());
        Facts.check(accepted.size() == 40, "accepted " + accepted.size() + " of 40 events");
    }
}

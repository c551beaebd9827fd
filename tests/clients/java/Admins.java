import java.util.Collection;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import java.util.TreeSet;
import java.util.stream.Collectors;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.DescribeClusterOptions;
import org.apache.kafka.clients.admin.DescribeTopicsOptions;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.admin.RecordsToDelete;
import org.apache.kafka.clients.admin.TopicDescription;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.Node;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.Uuid;
import org.apache.kafka.common.config.ConfigResource;

/** The admin client: every call's answer, less what must differ (addresses, topic ids). */
final class Admins {
    private Admins() {
    }

    private interface Call {
        void on(Admin admin, Facts facts) throws Exception;
    }

    static void register(Matrix matrix) {
        add(matrix, "admin/create-topic", (admin, facts) -> create(matrix, admin, facts));
        add(matrix, "admin/list-topics", (admin, facts) -> {
            matrix.topic("ai.listed", 2);
            facts.note("topics", new TreeSet<>(admin.listTopics().names().get().stream()
                    .filter(name -> name.equals(matrix.prefix + "ai.listed")).toList()));
        });
        add(matrix, "admin/describe-topics", (admin, facts) -> describeTopics(matrix, admin, facts));
        add(matrix, "admin/describe-cluster", (admin, facts) -> describeCluster(admin, facts));
        add(matrix, "admin/describe-configs", (admin, facts) -> describeConfigs(matrix, admin, facts));
        add(matrix, "admin/alter-configs", (admin, facts) -> alterConfigs(matrix, admin, facts));
        add(matrix, "admin/groups", (admin, facts) -> groups(matrix, admin, facts));
        add(matrix, "admin/list-offsets", (admin, facts) -> listOffsets(matrix, admin, facts));
        add(matrix, "admin/delete-records", (admin, facts) -> deleteRecords(matrix, admin, facts));
        add(matrix, "admin/create-partitions", (admin, facts) -> {
            String topic = matrix.topic("ai.grown", 2);
            admin.createPartitions(Map.of(topic, NewPartitions.increaseTo(5))).all().get();
            facts.note("partitions", until(() -> describe(admin, topic).partitions().size(), 5));
            facts.note("shrink", error(() -> admin.createPartitions(Map.of(topic, NewPartitions.increaseTo(3))).all().get()));
        });
        add(matrix, "admin/delete-topic", (admin, facts) -> {
            String topic = matrix.topic("ai.deleted", 2);
            admin.deleteTopics(List.of(topic)).all().get();
            facts.note("after", until(() -> error(() -> describe(admin, topic)), "UNKNOWN_TOPIC_OR_PARTITION"));
            facts.note("again", error(() -> admin.deleteTopics(List.of(topic)).all().get()));
            String byId = matrix.topic("ai.deleted-by-id", 2);
            Uuid id = describe(admin, byId).topicId();
            admin.deleteTopics(org.apache.kafka.common.TopicCollection.ofTopicIds(List.of(id))).all().get();
            facts.note("afterById", until(() -> error(() -> describe(admin, byId)), "UNKNOWN_TOPIC_OR_PARTITION"));
        });
        add(matrix, "admin/log-dirs", (admin, facts) -> {
            String topic = matrix.topic("ai.stored", 3);
            Set<String> replicas = new TreeSet<>();
            List<Integer> brokers = admin.describeCluster().nodes().get().stream().map(Node::id).sorted().toList();
            admin.describeLogDirs(brokers).allDescriptions().get().values().forEach(dirs -> dirs.values()
                    .forEach(dir -> dir.replicaInfos().keySet().stream().filter(p -> p.topic().equals(topic))
                            .forEach(p -> replicas.add("p" + p.partition()))));
            facts.note("brokers", brokers).note("replicas", replicas);
        });
        add(matrix, "admin/quorum", (admin, facts) -> {
            var quorum = admin.describeMetadataQuorum().quorumInfo().get();
            facts.note("voters", quorum.voters().stream().map(v -> v.replicaId()).sorted().toList());
            facts.note("nodes", new TreeSet<>(quorum.nodes().keySet()));
        });
        add(matrix, "admin/features", (admin, facts) -> facts.note("finalized",
                new TreeMap<>(admin.describeFeatures().featureMetadata().get().finalizedFeatures()).keySet()));
    }

    private static void add(Matrix matrix, String name, Call call) {
        matrix.add(name, facts -> {
            try (var admin = matrix.settings.admin()) {
                call.on(admin, facts);
            }
        });
    }

    interface Attempt<T> {
        T run() throws Exception;
    }

    static String error(Attempt<?> attempt) {
        try {
            attempt.run();
            return "none";
        } catch (Exception refused) {
            return Facts.error(refused);
        }
    }

    /** Metadata follows an admin call a moment later: asks again for up to ten seconds. */
    private static <T> T until(Attempt<T> attempt, T want) throws Exception {
        T got = attempt.run();
        for (int i = 0; i < 100 && !want.equals(got); i++) {
            Thread.sleep(100);
            got = attempt.run();
        }
        return got;
    }

    private static TopicDescription describe(Admin admin, String topic) throws Exception {
        return admin.describeTopics(List.of(topic)).allTopicNames().get().get(topic);
    }

    private static void create(Matrix matrix, Admin admin, Facts facts) throws Exception {
        String topic = matrix.prefix + "ai.created";
        var created = admin.createTopics(List.of(new NewTopic(topic, 3, (short) 1)
                .configs(Map.of("retention.ms", "604800000", "compression.type", "lz4"))));
        facts.note("partitions", created.numPartitions(topic).get());
        facts.note("replication", created.replicationFactor(topic).get());
        facts.note("retention", created.config(topic).get().get("retention.ms").value());
        facts.note("hasId", !created.topicId(topic).get().equals(Uuid.ZERO_UUID));
        facts.note("again", error(() -> admin.createTopics(List.of(new NewTopic(topic, 3, (short) 1))).all().get()));
        facts.note("badName", error(() -> admin.createTopics(List.of(new NewTopic("a b", 3, (short) 1))).all().get()));
        facts.note("badConfig", error(() -> admin.createTopics(List.of(new NewTopic(matrix.prefix + "ai.bad", 1, (short) 1)
                .configs(Map.of("no.such.config", "1")))).all().get()));
        facts.note("badReplication", error(() -> admin.createTopics(List.of(
                new NewTopic(matrix.prefix + "ai.bad", 1, (short) 30))).all().get()));
    }

    private static void describeTopics(Matrix matrix, Admin admin, Facts facts) throws Exception {
        String topic = matrix.topic("ai.described", 3);
        var described = admin.describeTopics(List.of(topic), new DescribeTopicsOptions()
                .includeAuthorizedOperations(true)).allTopicNames().get().get(topic);
        facts.note("internal", described.isInternal()).note("operations", names(described.authorizedOperations()));
        facts.note("partitions", described.partitions().stream().map(p -> p.partition() + ":" + p.replicas().size()
                + ":" + p.isr().size() + ":" + (p.leader() != null)).toList());
        facts.note("missing", error(() -> describe(admin, matrix.prefix + "ai.missing")));
        facts.note("byId", admin.describeTopics(org.apache.kafka.common.TopicCollection.ofTopicIds(
                List.of(described.topicId()))).allTopicIds().get().values().iterator().next().name());
    }

    private static Collection<String> names(Collection<?> values) {
        return values == null ? List.of() : values.stream().map(Object::toString)
                .collect(Collectors.toCollection(TreeSet::new));
    }

    private static void describeCluster(Admin admin, Facts facts) throws Exception {
        var cluster = admin.describeCluster(new DescribeClusterOptions().includeAuthorizedOperations(true));
        facts.note("cluster", cluster.clusterId().get()).note("nodes",
                cluster.nodes().get().stream().map(Node::id).sorted().toList());
        facts.note("controller", cluster.nodes().get().contains(cluster.controller().get()));
        facts.note("operations", names(cluster.authorizedOperations().get()));
        facts.note("ports", cluster.nodes().get().stream().map(Node::port).distinct().count());
    }

    private static void describeConfigs(Matrix matrix, Admin admin, Facts facts) throws Exception {
        String topic = matrix.topic("ai.configured", 1);
        var onTopic = new ConfigResource(ConfigResource.Type.TOPIC, topic);
        var onBroker = new ConfigResource(ConfigResource.Type.BROKER, "1");
        var configs = admin.describeConfigs(List.of(onTopic, onBroker)).all().get();
        facts.note("topic", digest(configs.get(onTopic).entries()));
        facts.note("broker", digest(configs.get(onBroker).entries()));
        facts.note("cleanup", configs.get(onTopic).get("cleanup.policy").value());
        facts.note("missing", error(() -> admin.describeConfigs(List.of(new ConfigResource(
                ConfigResource.Type.TOPIC, matrix.prefix + "ai.missing"))).all().get()));
    }

    /** Addresses differ through a proxy; everything else must not. */
    private static String digest(Collection<ConfigEntry> entries) throws Exception {
        var lines = entries.stream().filter(e -> !e.name().contains("listeners") && !e.name().contains("quorum"))
                .map(e -> e.name() + "=" + e.value() + "/" + e.source() + "/" + e.isReadOnly())
                .collect(Collectors.toCollection(TreeSet::new));
        return entries.size() + ":" + Events.digest(lines.toString());
    }

    private static void alterConfigs(Matrix matrix, Admin admin, Facts facts) throws Exception {
        String topic = matrix.topic("ai.altered", 1);
        var resource = new ConfigResource(ConfigResource.Type.TOPIC, topic);
        admin.incrementalAlterConfigs(Map.of(resource, List.of(new AlterConfigOp(
                new ConfigEntry("retention.ms", "86400000"), AlterConfigOp.OpType.SET)))).all().get();
        facts.note("set", until(() -> admin.describeConfigs(List.of(resource)).all().get().get(resource)
                .get("retention.ms").value(), "86400000"));
        admin.incrementalAlterConfigs(Map.of(resource, List.of(new AlterConfigOp(
                new ConfigEntry("retention.ms", null), AlterConfigOp.OpType.DELETE)))).all().get();
        facts.note("deleted", until(() -> admin.describeConfigs(List.of(resource)).all().get().get(resource)
                .get("retention.ms").value(), "604800000"));
        facts.note("bad", error(() -> admin.incrementalAlterConfigs(Map.of(resource, List.of(new AlterConfigOp(
                new ConfigEntry("retention.ms", "soon"), AlterConfigOp.OpType.SET)))).all().get()));
    }

    private static void groups(Matrix matrix, Admin admin, Facts facts) throws Exception {
        String topic = matrix.topic("ai.grouped", 2);
        String group = matrix.prefix + "bronze-processor";
        try (var producer = matrix.settings.producer("acks", "all")) {
            for (int i = 0; i < 10; i++) {
                producer.send(Events.event(topic, i % 2 == 0 ? 9 : 10));
            }
        }
        try (var consumer = new KafkaConsumer<byte[], byte[]>(matrix.settings.consumer("group.id", group))) {
            consumer.subscribe(List.of(topic));
            Events.read(consumer, 10, java.time.Duration.ofSeconds(20));
            consumer.commitSync();
            facts.note("listed", admin.listGroups().all().get().stream().filter(g -> g.groupId().equals(group))
                    .map(g -> g.protocol() + ":" + g.groupState().orElseThrow()).toList());
            facts.note("deleteActive", error(() -> admin.deleteConsumerGroups(List.of(group)).all().get()));
        }
        facts.note("offsetsDeleted", error(() -> admin.deleteConsumerGroupOffsets(group,
                Set.of(new TopicPartition(topic, 0))).all().get()));
        Map<String, Long> left = new TreeMap<>();
        admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata().get()
                .forEach((p, o) -> left.put("p" + p.partition(), o.offset()));
        facts.note("left", left);
        facts.note("deleted", error(() -> admin.deleteConsumerGroups(List.of(group)).all().get()));
        facts.note("after", error(() -> admin.describeConsumerGroups(List.of(group)).all().get()));
    }

    private static void listOffsets(Matrix matrix, Admin admin, Facts facts) throws Exception {
        String topic = matrix.topic("ai.offsets", 3);
        try (var producer = matrix.settings.producer("acks", "all")) {
            for (int i = 0; i < Events.COUNT; i++) {
                producer.send(Events.event(topic, i));
            }
        }
        var at = new TopicPartition(topic, 1);
        facts.note("earliest", admin.listOffsets(Map.of(at, OffsetSpec.earliest())).partitionResult(at).get().offset());
        facts.note("latest", admin.listOffsets(Map.of(at, OffsetSpec.latest())).partitionResult(at).get().offset());
        var found = admin.listOffsets(Map.of(at, OffsetSpec.forTimestamp(Events.FIRST_MS + 30))).partitionResult(at).get();
        facts.note("byTime", found.offset() + "@" + found.timestamp());
        var last = admin.listOffsets(Map.of(at, OffsetSpec.maxTimestamp())).partitionResult(at).get();
        facts.note("maxTime", last.offset() + "@" + last.timestamp());
    }

    private static void deleteRecords(Matrix matrix, Admin admin, Facts facts) throws Exception {
        String topic = matrix.topic("ai.cut", 3);
        try (var producer = matrix.settings.producer("acks", "all")) {
            for (int i = 0; i < Events.COUNT; i++) {
                producer.send(Events.event(topic, i));
            }
        }
        var at = new TopicPartition(topic, 2);
        facts.note("low", admin.deleteRecords(Map.of(at, RecordsToDelete.beforeOffset(7)))
                .lowWatermarks().get(at).get().lowWatermark());
        facts.note("earliest", admin.listOffsets(Map.of(at, OffsetSpec.earliest())).partitionResult(at).get().offset());
        facts.note("beyond", error(() -> admin.deleteRecords(Map.of(at, RecordsToDelete.beforeOffset(700))).all().get()));
        facts.note("left", Events.readAll(matrix.settings.consumer(), topic, 53).size());
    }
}

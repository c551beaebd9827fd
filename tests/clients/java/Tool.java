import java.util.ArrayList;
import java.util.BitSet;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.TreeMap;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewPartitionReassignment;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.TopicDescription;
import org.apache.kafka.common.ElectionType;
import org.apache.kafka.common.Node;
import org.apache.kafka.common.TopicPartition;

/** What the harness itself asks of a cluster; always directly, never through a proxy. */
final class Tool {
    private Tool() {
    }

    static boolean run(List<String> words) throws Exception {
        String word = words.isEmpty() ? "" : words.get(0);
        switch (word) {
            case "traffic" -> Traffic.run(words.get(1), words.get(2), Integer.parseInt(words.get(3)),
                    words.size() > 4 ? Integer.parseInt(words.get(4)) : 45);
            case "create" -> {
                try (var admin = new Settings(words.get(1)).admin()) {
                    List<NewTopic> topics = new ArrayList<>();
                    for (String topic : words.subList(4, words.size())) {
                        topics.add(new NewTopic(topic, Integer.parseInt(words.get(2)), Short.parseShort(words.get(3))));
                    }
                    admin.createTopics(topics).all().get();
                    Facts.print(Map.of("created", topics.size()));
                }
            }
            case "move-leader" -> {
                try (var admin = new Settings(words.get(1)).admin()) {
                    move(admin, words.subList(4, words.size()), Integer.parseInt(words.get(2)),
                            Integer.parseInt(words.get(3)));
                    Facts.print(Map.of("leader", words.get(3)));
                }
            }
            case "leaders" -> {
                try (var admin = new Settings(words.get(1)).admin()) {
                    var leaders = new TreeMap<String, Integer>();
                    var in = new TreeMap<String, Integer>();
                    for (var p : describe(admin, words.get(2)).partitions()) {
                        leaders.put("" + p.partition(), p.leader() == null ? -1 : p.leader().id());
                        in.put("" + p.partition(), p.isr().size());
                    }
                    Facts.print(new LinkedHashMap<>(Map.of("leaders", leaders, "isr", in)));
                }
            }
            case "ids" -> {
                var ids = new BitSet();
                for (var record : Events.readAll(new Settings(words.get(1)).consumer(), words.get(2),
                        Integer.parseInt(words.get(3)))) {
                    ids.set(Integer.parseInt(new String(record.value())));
                }
                Facts.print(Map.of("ids", Traffic.ranges(ids)));
            }
            default -> {
                return false;
            }
        }
        return true;
    }

    private static TopicDescription describe(Admin admin, String topic) throws Exception {
        return admin.describeTopics(List.of(topic)).allTopicNames().get().get(topic);
    }

    /** Makes {@code to} the preferred replica of the partition of each topic, then elects it. */
    private static void move(Admin admin, List<String> topics, int partition, int to) throws Exception {
        var orders = new HashMap<TopicPartition, Optional<NewPartitionReassignment>>();
        for (String topic : topics) {
            List<Integer> order = new ArrayList<>(List.of(to));
            for (Node replica : describe(admin, topic).partitions().get(partition).replicas()) {
                if (replica.id() != to) {
                    order.add(replica.id());
                }
            }
            orders.put(new TopicPartition(topic, partition), Optional.of(new NewPartitionReassignment(order)));
        }
        admin.alterPartitionReassignments(orders).all().get();
        for (int i = 0; i < 100; i++) {
            Admins.error(() -> admin.electLeaders(ElectionType.PREFERRED, orders.keySet()).all().get());
            boolean moved = true;
            for (String topic : topics) {
                Node leader = describe(admin, topic).partitions().get(partition).leader();
                moved &= leader != null && leader.id() == to;
            }
            if (moved) {
                return;
            }
            Thread.sleep(100);
        }
        throw new IllegalStateException("broker " + to + " did not become leader of " + orders.keySet());
    }
}

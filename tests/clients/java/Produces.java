import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.concurrent.Future;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;

/** Produce by codec and acks, and the reading back of what was produced. */
final class Produces {
    private Produces() {
    }

    static void register(Matrix matrix) {
        for (String codec : List.of("none", "gzip", "snappy", "lz4", "zstd")) {
            matrix.add("produce/" + codec + "/acks=all", facts -> produce(matrix, facts, codec, "all", false));
        }
        matrix.add("produce/none/acks=0", facts -> produce(matrix, facts, "none", "0", false));
        matrix.add("produce/none/acks=1", facts -> produce(matrix, facts, "none", "1", false));
        matrix.add("produce/lz4/acks=1", facts -> produce(matrix, facts, "lz4", "1", false));
        matrix.add("produce/none/idempotent", facts -> produce(matrix, facts, "none", "all", true));
        matrix.add("produce/zstd/idempotent", facts -> produce(matrix, facts, "zstd", "all", true));
        matrix.add("produce/missing-topic", facts -> missing(matrix, facts));
        matrix.add("produce/too-large", facts -> tooLarge(matrix, facts));
    }

    private static void produce(Matrix matrix, Facts facts, String codec, String acks, boolean idempotent)
            throws Exception {
        String topic = matrix.topic("user.authenticated." + codec + "-" + acks + (idempotent ? "-once" : ""), 3);
        Map<String, Object> offsets = new TreeMap<>();
        try (var producer = matrix.settings.producer("compression.type", codec, "acks", acks,
                "enable.idempotence", idempotent, "max.request.size", 2_000_000)) {
            List<Future<RecordMetadata>> sent = new ArrayList<>();
            for (int i = 0; i < Events.COUNT; i++) {
                sent.add(producer.send(Events.event(topic, i)));
            }
            producer.flush();
            for (var answer : sent) {
                offsets.put("p" + answer.get().partition(), answer.get().offset());
            }
        }
        facts.note("lastOffsets", offsets);
        Events.same(facts, Events.readAll(matrix.settings.consumer(), topic, Events.COUNT), Events.COUNT);
    }

    private static void missing(Matrix matrix, Facts facts) throws Exception {
        try (var producer = matrix.settings.producer("max.block.ms", 2_000)) {
            producer.send(new ProducerRecord<>(matrix.prefix + "user.nowhere", Events.text("x"))).get();
            facts.note("error", "none");
        } catch (Exception refused) {
            // The client times out while it looks for the topic; the last answer it saw is in the message.
            facts.note("timeout", refused.getCause() instanceof org.apache.kafka.common.errors.TimeoutException);
            Throwable last = refused.getCause() == null ? refused : refused.getCause();
            facts.note("cause", last.getCause() == null ? "none" : Facts.error(last.getCause()));
        }
    }

    private static void tooLarge(Matrix matrix, Facts facts) throws Exception {
        String topic = matrix.prefix + "user.small";
        try (var admin = matrix.settings.admin()) {
            admin.createTopics(List.of(new NewTopic(topic, 1, (short) 1)
                    .configs(Map.of("max.message.bytes", "2000")))).all().get();
        }
        try (var producer = matrix.settings.producer("acks", "all")) {
            try {
                producer.send(new ProducerRecord<>(topic, new byte[5000])).get();
                facts.note("error", "none");
            } catch (Exception refused) {
                facts.note("error", Facts.error(refused));
            }
            facts.note("after", producer.send(new ProducerRecord<>(topic, new byte[50])).get().offset());
        }
    }
}

import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import java.util.stream.Collectors;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.header.Header;

/** The records that every produce case sends, and the reading of them back to the last byte. */
final class Events {
    static final int PARTITIONS = 3;
    static final int COUNT = 60;
    static final long FIRST_MS = 1735689600000L;

    private Events() {
    }

    static ProducerRecord<byte[], byte[]> event(String topic, int i) {
        byte[] key = i % 7 == 0 ? null : ("org-" + i % 5).getBytes(StandardCharsets.UTF_8);
        var record = new ProducerRecord<>(topic, i % PARTITIONS, FIRST_MS + i, key, value(i));
        if (i % 4 != 0) {
            record.headers().add("event-type", text("user.authenticated"));
            record.headers().add("trace", text("a" + i));
            record.headers().add("trace", text("b" + i));
            record.headers().add("empty", new byte[0]);
            record.headers().add("absent", null);
        }
        return record;
    }

    /** Null, empty, every byte there is, one value larger than a socket buffer, JSON for the rest. */
    static byte[] value(int i) {
        if (i % 10 == 3) {
            return null;
        }
        if (i % 10 == 4) {
            return new byte[0];
        }
        if (i == 20) {
            byte[] large = new byte[200_000];
            for (int at = 0; at < large.length; at++) {
                large[at] = (byte) (at * 31 + at / 251);
            }
            return large;
        }
        if (i % 10 == 5) {
            byte[] all = new byte[256];
            for (int at = 0; at < all.length; at++) {
                all[at] = (byte) at;
            }
            return all;
        }
        return text("{\"event_type\":\"user.authenticated\",\"org_id\":" + i % 5 + ",\"sequence\":" + i + "}");
    }

    static byte[] text(String value) {
        return value.getBytes(StandardCharsets.UTF_8);
    }

    /** Reads until {@code want} records came or {@code limit} ran out. */
    static List<ConsumerRecord<byte[], byte[]>> read(KafkaConsumer<byte[], byte[]> consumer, int want, Duration limit) {
        var records = new ArrayList<ConsumerRecord<byte[], byte[]>>();
        long until = System.nanoTime() + limit.toNanos();
        while (records.size() < want && System.nanoTime() < until) {
            consumer.poll(Duration.ofMillis(200)).forEach(records::add);
        }
        return records;
    }

    static List<ConsumerRecord<byte[], byte[]>> readAll(Map<String, Object> settings, String topic, int want) {
        try (var consumer = new KafkaConsumer<byte[], byte[]>(settings)) {
            Set<TopicPartition> partitions = consumer.partitionsFor(topic).stream()
                    .map(p -> new TopicPartition(topic, p.partition())).collect(Collectors.toSet());
            consumer.assign(partitions);
            consumer.seekToBeginning(partitions);
            var records = read(consumer, want, Duration.ofSeconds(20));
            records.addAll(read(consumer, 1, Duration.ofMillis(want == 0 ? 1500 : 100)));
            return records;
        }
    }

    /** Fails unless {@code records} are exactly the events {@code sent}; the digest covers every byte. */
    static void same(Facts facts, List<ConsumerRecord<byte[], byte[]>> records, int sent) throws Exception {
        Map<Integer, List<String>> got = new TreeMap<>();
        for (var record : records) {
            got.computeIfAbsent(record.partition(), p -> new ArrayList<>()).add(line(record.key(), record.value(),
                    record.headers().toArray(), record.timestamp()));
        }
        Map<Integer, List<String>> want = new TreeMap<>();
        for (int i = 0; i < sent; i++) {
            var event = event("-", i);
            want.computeIfAbsent(event.partition(), p -> new ArrayList<>()).add(line(event.key(), event.value(),
                    event.headers().toArray(), event.timestamp()));
        }
        Map<String, Object> counts = new HashMap<>();
        got.forEach((partition, lines) -> counts.put("p" + partition, lines.size()));
        facts.note("counts", new TreeMap<>(counts));
        facts.note("digest", digest(got.toString()));
        Facts.check(got.equals(want), "the records read are not the records sent: " + counts);
    }

    private static String line(byte[] key, byte[] value, Header[] headers, long timestamp) {
        var line = new StringBuilder(hex(key)).append('|').append(hex(value)).append('|').append(timestamp);
        for (Header header : headers) {
            line.append('|').append(header.key()).append('=').append(hex(header.value()));
        }
        return line.toString();
    }

    private static String hex(byte[] bytes) {
        return bytes == null ? "null" : HexFormat.of().formatHex(bytes);
    }

    static String digest(String text) throws Exception {
        byte[] sum = MessageDigest.getInstance("SHA-256").digest(text(text));
        return HexFormat.of().formatHex(sum, 0, 8);
    }
}

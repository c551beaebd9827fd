import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.BitSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.concurrent.atomic.AtomicInteger;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.ProducerRecord;

/** Produces numbered events (acks=all, idempotent) while a group reads them; then what was lost. */
final class Traffic {
    private static final int PER_SECOND = 100;
    private final BitSet acknowledged = new BitSet();
    private final BitSet consumed = new BitSet();
    private final AtomicInteger refused = new AtomicInteger();
    private final int grace;
    private volatile boolean done;

    /** {@code grace}: seconds that the last events have to be acknowledged, and then to be read. */
    private Traffic(int grace) {
        this.grace = grace;
    }

    static void run(String bootstrap, String topic, int seconds, int grace) throws Exception {
        new Traffic(grace).go(new Settings(bootstrap), topic, seconds);
    }

    private void go(Settings settings, String topic, int seconds) throws Exception {
        var errors = new TreeMap<String, Integer>();
        var reader = new Thread(() -> read(settings, topic));
        reader.setDaemon(true);
        reader.start();
        long announced = 0;
        int sent = 0;
        var producer = settings.producer("acks", "all", "enable.idempotence", true,
                "delivery.timeout.ms", Math.max(grace, 6) * 1000, "request.timeout.ms", 5_000,
                "max.block.ms", 5_000);
        long from = System.nanoTime();
        while (System.nanoTime() - from < seconds * 1_000_000_000L && !stopped()) {
            // With no broker in reach the client forgets its metadata, and every send waits for new.
            while (sent < (System.nanoTime() - from) / (1_000_000_000L / PER_SECOND) && !stopped()) {
                int id = sent++;
                producer.send(new ProducerRecord<>(topic, Events.text("" + id)), (answer, error) -> {
                    synchronized (this) {
                        if (error == null) {
                            acknowledged.set(id);
                        } else {
                            refused.incrementAndGet();
                            errors.merge(Facts.error(error), 1, Integer::sum);
                        }
                    }
                });
            }
            if (announced == 0) {
                synchronized (this) {
                    announced = acknowledged.isEmpty() || consumed.isEmpty() ? 0 : sent;
                }
                if (announced > 0) {
                    Facts.print(Map.of("flows", announced));
                }
            }
            Thread.sleep(5);
        }
        // Without brokers in reach a flush or a close in good order may wait for good.
        var flush = new Thread(producer::flush);
        flush.setDaemon(true);
        flush.start();
        flush.join(Math.max(grace, 6) * 1000L + 2_000);
        producer.close(Duration.ZERO);
        done = true;
        reader.join(grace * 1000L + 5_000);
        var line = new LinkedHashMap<String, Object>();
        synchronized (this) {
            BitSet missing = (BitSet) acknowledged.clone();
            missing.andNot(consumed);
            line.put("traffic", topic);
            line.put("sent", sent);
            line.put("acknowledged", acknowledged.cardinality());
            line.put("consumed", consumed.cardinality());
            line.put("refused", refused.get());
            line.put("errors", errors);
            line.put("missing", missing.stream().limit(20).boxed().toList());
            line.put("ids", ranges(acknowledged));
        }
        Facts.print(line);
        System.exit(0);
    }

    /** The harness ends the producing by making the file named in TRAFFIC_STOP. */
    private static boolean stopped() {
        String file = System.getenv("TRAFFIC_STOP");
        return file != null && Files.exists(Path.of(file));
    }

    private void read(Settings settings, String topic) {
        Map<String, Object> stock = settings.consumer("group.id", topic + ".reader", "session.timeout.ms", 10_000,
                "heartbeat.interval.ms", 1_000, "request.timeout.ms", 5_000);
        // Not closed in good order: that waits for a coordinator, which may be out of reach.
        var consumer = new KafkaConsumer<byte[], byte[]>(stock);
        try {
            consumer.subscribe(List.of(topic));
            long until = Long.MAX_VALUE;
            long commitAt = System.nanoTime();
            while (System.nanoTime() < until) {
                consumer.poll(Duration.ofMillis(100)).forEach(record -> {
                    synchronized (this) {
                        consumed.set(Integer.parseInt(new String(record.value())));
                    }
                });
                if (System.nanoTime() > commitAt) {
                    consumer.commitAsync();
                    commitAt = System.nanoTime() + 1_000_000_000L;
                }
                if (done) {
                    until = Math.min(until, System.nanoTime() + grace * 1_000_000_000L);
                    synchronized (this) {
                        BitSet missing = (BitSet) acknowledged.clone();
                        missing.andNot(consumed);
                        if (missing.isEmpty()) {
                            return;
                        }
                    }
                }
            }
        } catch (Exception failed) {
            failed.printStackTrace();
        }
    }

    /** Numbers as `0-41,43`. */
    static String ranges(BitSet ids) {
        var text = new StringBuilder();
        for (int from = ids.nextSetBit(0); from >= 0; ) {
            int to = ids.nextClearBit(from) - 1;
            text.append(text.isEmpty() ? "" : ",").append(from == to ? "" + from : from + "-" + to);
            from = ids.nextSetBit(to + 1);
        }
        return text.toString();
    }
}

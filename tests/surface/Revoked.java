import java.time.Duration;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ExecutionException;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

/**
 * Kafka's own clients while rights end: two that lose their topic or their group, a producer that
 * loses its transactional id in the middle of a transaction, and one that loses nothing. Each says
 * `ready NAME` when it is at work, and `NAME WHAT` for what it meets then.
 */
public final class Revoked {
    public static void main(String[] words) throws Exception {
        String bootstrap = words[0];
        List<Thread> threads = List.of(
            new Thread(() -> topic(bootstrap, "topic", "live.lost")),
            new Thread(() -> topic(bootstrap, "kept", "live.kept")),
            new Thread(() -> group(bootstrap)),
            new Thread(() -> transaction(bootstrap)));
        threads.forEach(Thread::start);
        for (Thread thread : threads) {
            thread.join();
        }
    }

    private static synchronized void say(String line) {
        System.out.println(line);
        System.out.flush();
    }

    private static String name(Exception error) {
        Throwable cause = error instanceof ExecutionException ? error.getCause() : error;
        return cause.getClass().getSimpleName();
    }

    private static KafkaConsumer<String, String> consumer(String bootstrap, String group) {
        Map<String, Object> settings = new HashMap<>();
        settings.put("bootstrap.servers", bootstrap);
        settings.put("auto.offset.reset", "latest");
        settings.put("enable.auto.commit", false);
        if (group != null) {
            settings.put("group.id", group);
        }
        return new KafkaConsumer<>(settings, new StringDeserializer(), new StringDeserializer());
    }

    private static void topic(String bootstrap, String name, String topic) {
        try (KafkaConsumer<String, String> consumer = consumer(bootstrap, null)) {
            TopicPartition partition = new TopicPartition(topic, 0);
            consumer.assign(List.of(partition));
            consumer.position(partition);
            consumer.poll(Duration.ofMillis(700));
            say("ready " + name);
            while (consumer.poll(Duration.ofSeconds(1)).isEmpty()) {}
            say(name + " record");
        } catch (Exception error) {
            say(name + " " + name(error));
        }
    }

    private static void group(String bootstrap) {
        try (KafkaConsumer<String, String> consumer = consumer(bootstrap, "live.java")) {
            consumer.subscribe(List.of("live.kept"));
            while (consumer.assignment().isEmpty()) {
                consumer.poll(Duration.ofMillis(100));
            }
            say("ready group");
            while (consumer.poll(Duration.ofSeconds(1)) != null) {}
        } catch (Exception error) {
            say("group " + name(error));
        }
    }

    private static void transaction(String bootstrap) {
        Map<String, Object> settings = new HashMap<>();
        settings.put("bootstrap.servers", bootstrap);
        settings.put("transactional.id", "live.java");
        settings.put("transaction.timeout.ms", 60000);
        StringSerializer text = new StringSerializer();
        try (KafkaProducer<String, String> producer = new KafkaProducer<>(settings, text, text)) {
            producer.initTransactions();
            producer.beginTransaction();
            producer.send(new ProducerRecord<>("live.extra", "first")).get();
            say("ready transaction");
            while (true) {
                producer.send(new ProducerRecord<>("live.extra", "more")).get();
                Thread.sleep(20);
            }
        } catch (Exception error) {
            say("transaction " + name(error));
        }
    }
}

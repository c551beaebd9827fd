import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import org.apache.kafka.clients.consumer.ConsumerGroupMetadata;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;

/** Commit, abort, offsets in a transaction, fencing: read with read_committed. */
final class Transactions {
    private Transactions() {
    }

    static void register(Matrix matrix) {
        matrix.add("transaction/commit-abort", facts -> commitAbort(matrix, facts));
        matrix.add("transaction/offsets", facts -> offsets(matrix, facts));
        matrix.add("transaction/fenced", facts -> fenced(matrix, facts));
        matrix.add("transaction/describe", facts -> describe(matrix, facts));
    }

    private static KafkaProducer<byte[], byte[]> producer(Matrix matrix, String id) {
        var producer = matrix.settings.producer("transactional.id", matrix.prefix + id, "enable.idempotence", true);
        producer.initTransactions();
        return producer;
    }

    private static void send(KafkaProducer<byte[], byte[]> producer, String topic, String name) {
        for (int i = 0; i < 10; i++) {
            producer.send(new ProducerRecord<>(topic, i % 3, null, Events.text(name + "-" + i)));
        }
        producer.flush();
    }

    private static void commitAbort(Matrix matrix, Facts facts) throws Exception {
        String topic = matrix.topic("saga.started", 3);
        try (var producer = producer(matrix, "saga")) {
            for (String name : List.of("kept", "dropped", "kept-too")) {
                producer.beginTransaction();
                send(producer, topic, name);
                if (name.equals("dropped")) {
                    producer.abortTransaction();
                } else {
                    producer.commitTransaction();
                }
            }
        }
        Map<String, Object> seen = new TreeMap<>();
        for (String isolation : List.of("read_committed", "read_uncommitted")) {
            int want = isolation.equals("read_committed") ? 20 : 30;
            var records = Events.readAll(matrix.settings.consumer("isolation.level", isolation), topic, want);
            Map<String, Integer> names = new TreeMap<>();
            records.forEach(r -> names.merge(new String(r.value()).replaceAll("-\\d+$", ""), 1, Integer::sum));
            seen.put(isolation, names);
            Facts.check(records.size() == want, isolation + " saw " + records.size() + " of " + want);
        }
        facts.note("seen", seen);
    }

    private static void offsets(Matrix matrix, Facts facts) throws Exception {
        String from = matrix.topic("saga.requested", 3);
        String to = matrix.topic("saga.compensated", 3);
        String group = matrix.prefix + "saga-service";
        try (var producer = matrix.settings.producer("acks", "all")) {
            send(producer, from, "request");
        }
        try (var producer = producer(matrix, "saga-offsets");
                var consumer = new KafkaConsumer<byte[], byte[]>(matrix.settings.consumer("group.id", group))) {
            consumer.subscribe(List.of(from));
            var records = Events.read(consumer, 10, Duration.ofSeconds(20));
            producer.beginTransaction();
            Map<TopicPartition, OffsetAndMetadata> next = new java.util.HashMap<>();
            for (var record : records) {
                producer.send(new ProducerRecord<>(to, record.partition(), null, record.value()));
                next.put(new TopicPartition(from, record.partition()), new OffsetAndMetadata(record.offset() + 1));
            }
            ConsumerGroupMetadata member = consumer.groupMetadata();
            producer.sendOffsetsToTransaction(next, member);
            producer.commitTransaction();
            Map<String, Long> committed = new TreeMap<>();
            consumer.committed(next.keySet()).forEach((p, o) -> committed.put("p" + p.partition(), o == null ? -1 : o.offset()));
            facts.note("committed", committed);
        }
        var records = Events.readAll(matrix.settings.consumer("isolation.level", "read_committed"), to, 10);
        facts.note("copied", records.size());
        Facts.check(records.size() == 10, "copied " + records.size() + " of 10");
    }

    private static void fenced(Matrix matrix, Facts facts) throws Exception {
        String topic = matrix.topic("saga.fenced", 3);
        try (var old = producer(matrix, "saga-fenced")) {
            old.beginTransaction();
            send(old, topic, "old");
            try (var young = producer(matrix, "saga-fenced")) {
                young.beginTransaction();
                send(young, topic, "young");
                young.commitTransaction();
            }
            try {
                old.commitTransaction();
                facts.note("error", "none");
            } catch (Exception refused) {
                facts.note("error", Facts.error(refused));
            }
        }
        var records = Events.readAll(matrix.settings.consumer("isolation.level", "read_committed"), topic, 10);
        facts.note("seen", records.size());
    }

    private static void describe(Matrix matrix, Facts facts) throws Exception {
        String topic = matrix.topic("saga.described", 3);
        String id = matrix.prefix + "saga-described";
        try (var producer = producer(matrix, "saga-described"); var admin = matrix.settings.admin()) {
            producer.beginTransaction();
            send(producer, topic, "open");
            var open = admin.describeTransactions(List.of(id)).all().get().get(id);
            facts.note("state", open.state().toString()).note("partitions", open.topicPartitions().size());
            var listed = admin.listTransactions().all().get().stream()
                    .filter(t -> t.transactionalId().equals(id)).map(t -> t.state().toString()).toList();
            facts.note("listed", listed);
            var producers = admin.describeProducers(List.of(new TopicPartition(topic, 0))).all().get();
            facts.note("producers", producers.values().stream().map(p -> p.activeProducers().size()).toList());
            producer.commitTransaction();
        }
    }
}

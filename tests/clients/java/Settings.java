import java.util.HashMap;
import java.util.Map;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/** Stock client settings: nothing in them knows of a proxy. */
final class Settings {
    private final String bootstrap;

    Settings(String bootstrap) {
        this.bootstrap = bootstrap;
    }

    private Map<String, Object> base(Object... extra) {
        var settings = new HashMap<>(Security.settings());
        settings.put("bootstrap.servers", bootstrap);
        settings.put("request.timeout.ms", 10_000);
        settings.put("reconnect.backoff.max.ms", 500);
        for (int at = 0; at < extra.length; at += 2) {
            settings.put((String) extra[at], extra[at + 1]);
        }
        return settings;
    }

    KafkaProducer<byte[], byte[]> producer(Object... extra) {
        var settings = base("enable.idempotence", false, "delivery.timeout.ms", 20_000, "linger.ms", 5,
                "max.block.ms", 20_000);
        settings.putAll(base(extra));
        return new KafkaProducer<>(settings, new ByteArraySerializer(), new ByteArraySerializer());
    }

    Map<String, Object> consumer(Object... extra) {
        var settings = base("auto.offset.reset", "earliest", "enable.auto.commit", false,
                "default.api.timeout.ms", 20_000, "key.deserializer", ByteArrayDeserializer.class,
                "value.deserializer", ByteArrayDeserializer.class, "allow.auto.create.topics", false);
        settings.putAll(base(extra));
        return settings;
    }

    Admin admin() {
        return Admin.create(base("default.api.timeout.ms", 20_000));
    }
}

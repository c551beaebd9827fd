import com.fasterxml.jackson.databind.ObjectMapper;
import java.util.LinkedHashMap;
import java.util.Map;

/** One case's facts, in the order they were noted: what must be the same directly and through. */
final class Facts {
    private static final ObjectMapper JSON = new ObjectMapper();
    private final Map<String, Object> facts = new LinkedHashMap<>();

    /** Ends a case that this client cannot run. */
    static final class Skip extends RuntimeException {
        Skip(String reason) {
            super(reason);
        }
    }

    Facts note(String name, Object value) {
        facts.put(name, value);
        return this;
    }

    static void check(boolean holds, String what) {
        if (!holds) {
            throw new AssertionError(what);
        }
    }

    static synchronized void print(Map<String, ?> line) throws Exception {
        System.out.println(JSON.writeValueAsString(line));
        System.out.flush();
    }

    Map<String, Object> map() {
        return facts;
    }

    /** The broker's error behind an exception, by its protocol name. */
    static String error(Throwable thrown) {
        Throwable cause = thrown;
        while (cause.getCause() != null
                && (cause instanceof java.util.concurrent.ExecutionException
                || cause.getClass().equals(org.apache.kafka.common.KafkaException.class))) {
            cause = cause.getCause();
        }
        return org.apache.kafka.common.protocol.Errors.forException(cause).name();
    }
}

import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.common.TopicPartition;

/**
 * The Java client of the matrix: {@code Matrix BOOTSTRAP PREFIX [CASE...]}, or
 * {@code Matrix traffic BOOTSTRAP TOPIC SECONDS}, or one of the tools of {@link Tool}.
 */
public final class Matrix {
    interface Case {
        void run(Facts facts) throws Exception;
    }

    private static final long CASE_SECONDS_MAX = 90;
    final Settings settings;
    final String prefix;
    private final Map<String, Case> cases = new LinkedHashMap<>();

    private Matrix(String bootstrap, String prefix) {
        this.settings = new Settings(bootstrap);
        this.prefix = prefix;
        Admins.register(this);
        Produces.register(this);
        Groups.register(this);
        Transactions.register(this);
    }

    void add(String name, Case run) {
        cases.put(name, run);
    }

    /** Creates a topic of this run, waits until brokers describe it, and answers its full name. */
    String topic(String name, int partitions) throws Exception {
        try (var admin = settings.admin()) {
            admin.createTopics(List.of(new NewTopic(prefix + name, partitions, (short) 1))).all().get();
            Map<TopicPartition, OffsetSpec> ends = new LinkedHashMap<>();
            for (int partition = 0; partition < partitions; partition++) {
                ends.put(new TopicPartition(prefix + name, partition), OffsetSpec.latest());
            }
            // A leader that is not ready yet loses what acks=0 sends: ask each for its end first.
            for (int i = 0; i < 50; i++) {
                if (Admins.error(() -> describe(admin, name, ends)).equals("none")) {
                    break;
                }
                Thread.sleep(50);
            }
        }
        return prefix + name;
    }

    private Object describe(Admin admin, String name, Map<TopicPartition, OffsetSpec> ends) throws Exception {
        admin.describeTopics(List.of(prefix + name)).allTopicNames().get();
        return admin.listOffsets(ends).all().get();
    }

    private void run(List<String> wanted) throws Exception {
        var runner = Executors.newCachedThreadPool(task -> {
            var thread = new Thread(task);
            thread.setDaemon(true);
            return thread;
        });
        for (var entry : cases.entrySet()) {
            String name = entry.getKey();
            if (!wanted.isEmpty() && wanted.stream().noneMatch(w -> name.equals(w) || name.startsWith(w + "/"))) {
                continue;
            }
            var facts = new Facts();
            var line = new LinkedHashMap<String, Object>();
            line.put("case", name);
            long from = System.nanoTime();
            try {
                runner.submit(() -> {
                    entry.getValue().run(facts);
                    return null;
                }).get(CASE_SECONDS_MAX, TimeUnit.SECONDS);
                line.put("ok", true);
            } catch (Exception failed) {
                Throwable cause = failed.getCause() == null ? failed : failed.getCause();
                if (cause instanceof Facts.Skip) {
                    line.put("skip", cause.getMessage());
                } else {
                    line.put("ok", false);
                    line.put("error", cause.toString());
                    cause.printStackTrace();
                }
            }
            line.put("detail", facts.map());
            line.put("ms", (System.nanoTime() - from) / 1_000_000);
            Facts.print(line);
        }
    }

    public static void main(String[] args) throws Exception {
        List<String> words = Arrays.asList(args);
        if (Tool.run(words)) {
            return;
        }
        new Matrix(args[0], args[1]).run(words.subList(2, words.size()));
        System.exit(0);
    }
}

import java.io.BufferedInputStream;
import java.io.BufferedOutputStream;
import java.io.DataInputStream;
import java.io.DataOutputStream;
import java.io.EOFException;
import java.io.IOException;
import java.net.InetAddress;
import java.nio.charset.StandardCharsets;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import org.apache.kafka.common.Uuid;
import org.apache.kafka.common.acl.AclOperation;
import org.apache.kafka.common.acl.AclPermissionType;
import org.apache.kafka.common.metrics.Metrics;
import org.apache.kafka.common.metrics.internals.PluginMetricsImpl;
import org.apache.kafka.common.resource.PatternType;
import org.apache.kafka.common.resource.ResourcePattern;
import org.apache.kafka.common.resource.ResourceType;
import org.apache.kafka.common.security.auth.KafkaPrincipal;
import org.apache.kafka.common.security.auth.SecurityProtocol;
import org.apache.kafka.metadata.authorizer.StandardAcl;
import org.apache.kafka.metadata.authorizer.StandardAuthorizer;
import org.apache.kafka.server.authorizer.Action;
import org.apache.kafka.server.authorizer.AuthorizableRequestContext;
import org.apache.kafka.server.authorizer.AuthorizationResult;

/**
 * Kafka's own StandardAuthorizer as the judge of Kordon's policy decision.
 *
 * <p>Reads rounds from standard input until it ends and answers each on standard output. All
 * numbers are big-endian, a text is its length (int16) and its UTF-8 bytes. A round is: super users
 * ({@code super.users}, text); count of ACLs (int16), each resource type, pattern type, operation,
 * permission (int8 each, Kafka's codes), name, principal, host (texts); count of askers (int16),
 * each principal type and name (texts), address (int8 length, bytes); count of questions (int16),
 * each asker (int16), whether about any resource of the type (int8), operation, resource type
 * (int8), name (text). The answer is a byte a question: 0 no, 1 yes, 2 an exception.
 */
public final class Authorizer {
    private record Asker(KafkaPrincipal principal, InetAddress clientAddress)
            implements AuthorizableRequestContext {
        @Override
        public String listenerName() {
            return "EXTERNAL";
        }

        @Override
        public SecurityProtocol securityProtocol() {
            return SecurityProtocol.SASL_SSL;
        }

        @Override
        public int requestType() {
            return 0;
        }

        @Override
        public int requestVersion() {
            return 0;
        }

        @Override
        public String clientId() {
            return "test";
        }

        @Override
        public int correlationId() {
            return 0;
        }
    }

    private final Map<String, StandardAuthorizer> authorizers = new HashMap<>();
    private final DataInputStream in;

    private Authorizer(DataInputStream in) {
        this.in = in;
    }

    public static void main(String[] args) throws IOException {
        DataInputStream in = new DataInputStream(new BufferedInputStream(System.in, 1 << 16));
        DataOutputStream out =
                new DataOutputStream(new BufferedOutputStream(System.out, 1 << 16));
        Authorizer self = new Authorizer(in);
        while (true) {
            byte[] answers;
            try {
                answers = self.round();
            } catch (EOFException e) {
                break;
            }
            out.write(answers);
            out.flush();
        }
    }

    private byte[] round() throws IOException {
        StandardAuthorizer authorizer = authorizers.computeIfAbsent(text(), superUsers -> {
            StandardAuthorizer made = new StandardAuthorizer();
            made.configure(Map.of(StandardAuthorizer.SUPER_USERS_CONFIG, superUsers));
            made.withPluginMetrics(new PluginMetricsImpl(new Metrics(), Map.of()));
            return made;
        });
        // A broker refuses an ACL that is there already.
        Set<StandardAcl> acls = new LinkedHashSet<>();
        for (int left = in.readUnsignedShort(); left > 0; left--) {
            ResourceType type = ResourceType.fromCode(in.readByte());
            PatternType pattern = PatternType.fromCode(in.readByte());
            AclOperation operation = AclOperation.fromCode(in.readByte());
            AclPermissionType permission = AclPermissionType.fromCode(in.readByte());
            String name = text();
            String principal = text();
            acls.add(new StandardAcl(
                    type, name, pattern, principal, text(), operation, permission));
        }
        Map<Uuid, StandardAcl> snapshot = new LinkedHashMap<>();
        long id = 1;
        for (StandardAcl acl : acls) {
            snapshot.put(new Uuid(1, id++), acl);
        }
        authorizer.loadSnapshot(snapshot);
        authorizer.completeInitialLoad();
        Asker[] askers = new Asker[in.readUnsignedShort()];
        for (int i = 0; i < askers.length; i++) {
            String type = text();
            KafkaPrincipal principal = new KafkaPrincipal(type, text());
            byte[] address = in.readNBytes(in.readUnsignedByte());
            askers[i] = new Asker(principal, InetAddress.getByAddress(address));
        }
        byte[] answers = new byte[in.readUnsignedShort()];
        for (int i = 0; i < answers.length; i++) {
            Asker asker = askers[in.readUnsignedShort()];
            boolean any = in.readByte() != 0;
            AclOperation operation = AclOperation.fromCode(in.readByte());
            ResourceType type = ResourceType.fromCode(in.readByte());
            String name = text();
            try {
                AuthorizationResult result = any
                        ? authorizer.authorizeByResourceType(asker, operation, type)
                        : authorizer.authorize(asker, List.of(new Action(operation,
                                new ResourcePattern(type, name, PatternType.LITERAL),
                                1, true, true))).get(0);
                answers[i] = (byte) (result == AuthorizationResult.ALLOWED ? 1 : 0);
            } catch (RuntimeException e) {
                System.err.println(e);
                answers[i] = 2;
            }
        }
        return answers;
    }

    private String text() throws IOException {
        byte[] bytes = new byte[in.readUnsignedShort()];
        in.readFully(bytes);
        return new String(bytes, StandardCharsets.UTF_8);
    }
}

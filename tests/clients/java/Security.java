import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.HashMap;
import java.util.Map;

/** How the client proves who it is, as the environment says; the client's own stock settings. */
final class Security {
    private Security() {
    }

    static Map<String, Object> settings() {
        var settings = new HashMap<String, Object>();
        String security = System.getenv().getOrDefault("CLIENT_SECURITY", "plaintext");
        if (security.equals("plaintext")) {
            return settings;
        }
        settings.put("ssl.truststore.type", "PEM");
        settings.put("ssl.truststore.certificates", text("CLIENT_CA"));
        if (security.equals("mtls")) {
            settings.put("security.protocol", "SSL");
            settings.put("ssl.keystore.type", "PEM");
            settings.put("ssl.keystore.certificate.chain", text("CLIENT_CERT"));
            settings.put("ssl.keystore.key", text("CLIENT_KEY"));
            return settings;
        }
        String url = System.getenv("CLIENT_TOKEN_URL");
        System.setProperty("org.apache.kafka.sasl.oauthbearer.allowed.urls", url);
        settings.put("security.protocol", "SASL_SSL");
        settings.put("sasl.mechanism", "OAUTHBEARER");
        settings.put("sasl.oauthbearer.token.endpoint.url", url);
        settings.put("sasl.oauthbearer.client.credentials.client.id", System.getenv("CLIENT_ID"));
        settings.put("sasl.oauthbearer.client.credentials.client.secret", System.getenv("CLIENT_SECRET"));
        settings.put("sasl.oauthbearer.scope", System.getenv("CLIENT_SCOPE"));
        settings.put("sasl.login.callback.handler.class",
                "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginCallbackHandler");
        settings.put("sasl.jaas.config",
                "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required;");
        return settings;
    }

    private static String text(String variable) {
        try {
            return Files.readString(Path.of(System.getenv(variable)));
        } catch (IOException failed) {
            throw new UncheckedIOException(failed);
        }
    }
}

//! A real broker that lets nobody in unproven: SASL over TLS, and TLS with client certificates.
//!
//! OAUTHBEARER is judged by Kafka's own validator with the issuer's keys from its URL. The
//! broker's ACLs are on and empty: whoever is not among its super users is refused everything, so
//! that what a client may do proves who the broker takes it for.

use super::certificates::Authority;
use super::issuer::Issuer;
use super::kafka::{Kafka, Launch};
use super::port;
use std::fmt::Write as _;
use std::time::Duration;

/// A user of the broker's PLAIN and SCRAM-SHA-512, as a proxy in front of it would be.
pub const USER: &str = "kordon";
/// That user's password.
pub const PASSWORD: &str = "kordon-secret";

/// The broker and the addresses of its listeners.
pub struct Secure {
    /// The broker itself, with a plaintext listener for the harness.
    pub kafka: Kafka,
    /// SASL over TLS: OAUTHBEARER, SCRAM-SHA-512 and PLAIN.
    pub sasl: String,
    /// TLS that requires a client certificate; its common name is the principal.
    pub mtls: String,
}

impl Secure {
    /// Starts one broker that trusts `authority` and `issuer`; `principals` (names without
    /// `User:`) may do everything, others nothing. `max_reauth`: `connections.max.reauth.ms`.
    pub fn start(
        version: &str,
        authority: &Authority,
        issuer: &Issuer,
        principals: &[&str],
        max_reauth: Option<Duration>,
    ) -> Result<Secure, String> {
        let sasl = port::free("127.0.77.1", 2);
        let mtls = sasl + 1;
        let mut extra = properties(authority, issuer, sasl, mtls);
        // The harness and the controller come by the plaintext listeners.
        extra += "super.users=User:ANONYMOUS";
        for name in principals {
            write!(extra, ";User:{name}").unwrap();
        }
        let reauth = max_reauth.map_or(0, |max| max.as_millis());
        writeln!(extra, "\nconnections.max.reauth.ms={reauth}").unwrap();
        let scram = format!("SCRAM-SHA-512=[name={USER},password={PASSWORD}]");
        let launch = Launch {
            format: vec!["--add-scram".to_owned(), scram],
            java: vec![format!(
                "-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls={},{}",
                issuer.jwks_url(),
                issuer.token_url()
            )],
        };
        let kafka = Kafka::start_with(version, 1, &extra, launch)?;
        let at = |port: u16| format!("127.0.77.1:{port}");
        Ok(Secure {
            kafka,
            sasl: at(sasl),
            mtls: at(mtls),
        })
    }
}

fn properties(authority: &Authority, issuer: &Issuer, sasl: u16, mtls: u16) -> String {
    let plain = "org.apache.kafka.common.security.plain.PlainLoginModule";
    let scram = "org.apache.kafka.common.security.scram.ScramLoginModule";
    let oauth = "org.apache.kafka.common.security.oauthbearer";
    let validator = format!("{oauth}.OAuthBearerValidatorCallbackHandler");
    let listeners = format!("PLAINTEXT://$HOST:$PORT,SASL_SSL://$HOST:{sasl},SSL://$HOST:{mtls}");
    format!(
        r#"listeners={listeners},CONTROLLER://$HOST:$CONTROLLER
advertised.listeners={listeners}
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SASL_SSL:SASL_SSL,SSL:SSL
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
ssl.keystore.type=PEM
ssl.keystore.location={store}
ssl.truststore.type=PEM
ssl.truststore.location={ca}
ssl.principal.mapping.rules=RULE:^CN=([^,]+).*$/$1/
listener.name.ssl.ssl.client.auth=required
listener.name.sasl_ssl.ssl.client.auth=requested
listener.name.sasl_ssl.sasl.enabled.mechanisms=OAUTHBEARER,SCRAM-SHA-512,PLAIN
listener.name.sasl_ssl.plain.sasl.jaas.config={plain} required user_{USER}="{PASSWORD}";
listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config={scram} required;
listener.name.sasl_ssl.oauthbearer.sasl.jaas.config={oauth}.OAuthBearerLoginModule required;
listener.name.sasl_ssl.oauthbearer.sasl.server.callback.handler.class={validator}
listener.name.sasl_ssl.oauthbearer.sasl.oauthbearer.jwks.endpoint.url={jwks}
listener.name.sasl_ssl.oauthbearer.sasl.oauthbearer.expected.issuer={issuer}
listener.name.sasl_ssl.oauthbearer.sasl.oauthbearer.expected.audience=kafka
listener.name.sasl_ssl.oauthbearer.sasl.oauthbearer.jwks.endpoint.refresh.ms=2000
"#,
        store = authority.server().store.display(),
        ca = authority.ca().display(),
        jwks = issuer.jwks_url(),
        issuer = issuer.url,
    )
}

//! What a listener offers its clients, from one reading of its files: the settings of rustls,
//! and what is needed to ask later whether a client certificate still holds. A change of the
//! files makes a new one, with keys for tickets of its own: what was resumed under the old files
//! is proven anew under the new ones.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{CipherSuite, Error, ServerConfig};
use rustls_pki_types::{CertificateDer, UnixTime};
use x509_parser::prelude::{CertificateRevocationList, FromDer, X509Certificate};
use x509_parser::time::ASN1Time;

use super::tickets::Tickets;
use super::{TlsError, VERSIONS, authorities, chain, pair_error, private_key, provider};
use crate::clock;
use crate::net::settings::{ClientAuth, ServerTls};
use crate::net::verifier::StrictVerifier;

/// See the module.
pub struct Offer {
    /// The settings of rustls.
    pub config: Arc<ServerConfig>,
    /// When the listener's own certificate ends.
    pub expires: Option<SystemTime>,
    /// When the first of its revocation lists ends; `None`: it has none.
    pub lists_expire: Option<SystemTime>,
    verifier: Option<Arc<dyn ClientCertVerifier>>,
}

impl fmt::Debug for Offer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Offer")
            .field("expires", &self.expires)
            .field("lists_expire", &self.lists_expire)
            .finish_non_exhaustive()
    }
}

impl Offer {
    /// Reads the files that `settings` name.
    pub fn load(settings: &ServerTls) -> Result<Offer, TlsError> {
        let broken = |error: Error| TlsError::new(error.to_string());
        let builder = ServerConfig::builder_with_provider(cheapest_first())
            .with_protocol_versions(VERSIONS)
            .map_err(broken)?;
        let (verifier, lists_expire) = match client_verifier(settings)? {
            Some((verifier, until)) => (Some(verifier), until),
            None => (None, None),
        };
        let builder = match &verifier {
            None => builder.with_no_client_auth(),
            Some(verifier) => builder.with_client_cert_verifier(Arc::clone(verifier)),
        };
        let own = chain(&settings.cert)?;
        let expires = own.first().and_then(|leaf| end_of(leaf));
        let mut config = builder
            .with_single_cert(own, private_key(&settings.key)?)
            .map_err(|error| pair_error(&settings.cert, &settings.key, &error))?;
        // Sessions rest with the client, sealed: nothing is kept here for an idle connection,
        // and one ticket is enough for a client that comes back.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.ticketer = Arc::new(Tickets::new().map_err(broken)?);
        config.send_tls13_tickets = 1;
        // Ours is the choice among what a client offers, see `cheapest_first`.
        config.ignore_client_order = true;
        Ok(Offer {
            config: Arc::new(config),
            expires,
            lists_expire,
            verifier,
        })
    }

    /// Whether a session that was resumed with this offer still proves what it once did. The
    /// ticket was given by the same verifier, so only time can have changed something: where no
    /// date has passed there is nothing to compute, and where one has, the verifier decides.
    pub fn check_resumed(
        &self,
        shown: &[CertificateDer<'_>],
        now: SystemTime,
    ) -> Result<(), Error> {
        let lists_hold = self.lists_expire.is_none_or(|end| now < end);
        let holds = |one: &CertificateDer<'_>| end_of(one).is_some_and(|end| now < end);
        match !shown.is_empty() && lists_hold && shown.iter().all(holds) {
            true => Ok(()),
            false => self.check(shown, now),
        }
    }

    /// Whether a client that shows these certificates, leaf first, would be accepted.
    pub fn check(&self, shown: &[CertificateDer<'_>], now: SystemTime) -> Result<(), Error> {
        let Some(verifier) = &self.verifier else {
            return Ok(());
        };
        let Some((leaf, rest)) = shown.split_first() else {
            return match verifier.client_auth_mandatory() {
                true => Err(Error::NoCertificatesPresented),
                false => Ok(()),
            };
        };
        let now = UnixTime::since_unix_epoch(clock::since_epoch(now));
        verifier.verify_client_cert(leaf, rest, now).map(|_| ())
    }
}

/// The suites of rustls, those with AES-128 and SHA-256 in front of those with AES-256 and SHA-384:
/// most processors compute SHA-256 in hardware and SHA-384 not, and a resumed handshake is mostly
/// hashing. A client that offers only the others gets one of them.
fn cheapest_first() -> Arc<CryptoProvider> {
    let mut provider = aws_lc_rs::default_provider();
    // Stable: what is alike stays in rustls' own order.
    provider
        .cipher_suites
        .sort_by_key(|suite| match suite.suite() {
            CipherSuite::TLS13_AES_128_GCM_SHA256 => 0,
            CipherSuite::TLS13_AES_256_GCM_SHA384 => 1,
            CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => 2,
            CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
            | CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 => 3,
            _ => 4,
        });
    Arc::new(provider)
}

/// When a certificate ends; `None`: it cannot be read, or ends before 1970.
pub fn end_of(certificate: &[u8]) -> Option<SystemTime> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    instant(certificate.validity().not_after)
}

fn instant(time: ASN1Time) -> Option<SystemTime> {
    let seconds = u64::try_from(time.timestamp()).ok()?;
    UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

type Verifier = (Arc<dyn ClientCertVerifier>, Option<SystemTime>);

/// Who judges client certificates, and until when its revocation lists are good for that.
fn client_verifier(settings: &ServerTls) -> Result<Option<Verifier>, TlsError> {
    let (auth, path) = match (settings.client_auth, &settings.client_ca) {
        (ClientAuth::None, None) => return Ok(None),
        (auth @ (ClientAuth::Required | ClientAuth::Requested), Some(path)) => (auth, path),
        (ClientAuth::Required, None) => {
            return Err(TlsError::new("`clientAuth: required` needs `clientCa`"));
        }
        (ClientAuth::Requested, None) => {
            return Err(TlsError::new("`clientAuth: requested` needs `clientCa`"));
        }
        // Silence here would let the operator believe that certificates are checked.
        (ClientAuth::None, Some(_)) => {
            return Err(TlsError::new(
                "`clientCa` has no effect with `clientAuth: none`",
            ));
        }
    };
    let roots = Arc::new(authorities(path)?);
    let mut builder = WebPkiClientVerifier::builder_with_provider(roots, provider());
    if auth == ClientAuth::Requested {
        builder = builder.allow_unauthenticated();
    }
    let mut until = None;
    if !settings.crl.is_empty() {
        let lists = settings
            .crl
            .iter()
            .map(|path| super::revocation_lists(path));
        let lists: Vec<_> = lists.collect::<Result<Vec<_>, _>>()?.concat();
        let ends = lists.iter().filter_map(|list| {
            let (_, list) = CertificateRevocationList::from_der(list).ok()?;
            instant(list.next_update()?)
        });
        until = ends.min();
        // The whole chain is checked, and what no list speaks about is refused: that is rustls'
        // own default, while a list that is out of date would count without this.
        builder = builder.with_crls(lists).enforce_revocation_expiration();
    }
    let verifier = builder
        .build()
        .map_err(|error| TlsError::in_file(path, error))?;
    Ok(Some((Arc::new(StrictVerifier::new(verifier)), until)))
}

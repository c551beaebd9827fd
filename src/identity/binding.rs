//! Tokens that belong to a key (RFC 7800): `cnf` says whose. One member can be proven here,
//! `x5t#S256`, by the certificate of the very connection (RFC 8705 §3.1). A token that claims any
//! other binding is refused, also where the listener asks for none: its issuer meant it to be
//! worth nothing to somebody who merely holds it.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};

use crate::identity::json::Json;

/// The member of `cnf` that names a certificate.
const MEMBER: &str = "x5t#S256";

/// SHA-256 of a certificate's DER.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thumbprint([u8; 32]);

impl Thumbprint {
    /// Of the certificate with these bytes.
    pub fn of(der: &[u8]) -> Self {
        Self(Sha256::digest(der).into())
    }
}

/// As a token writes it: base64url without padding.
impl fmt::Display for Thumbprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

/// Whether a token with this `cnf` may be used by who showed `certificate`; `required`: only a
/// bound token is good.
pub fn holds(cnf: Option<&Json<'_>>, required: bool, certificate: Option<&Thumbprint>) -> bool {
    let Some(cnf) = cnf else {
        return !required;
    };
    let (Some(members), Some(certificate)) = (cnf.as_object(), certificate) else {
        return false;
    };
    // Not one of several: each says what must be proven.
    let bound = members
        .text(MEMBER)
        .filter(|_| members.members().len() == 1);
    bound == Some(&certificate.to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::identity::json::parse_object;

    #[test]
    fn a_thumbprint_is_written_as_rfc_8705_says() {
        // SHA-256 of nothing, in base64url.
        let empty = "47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU";
        assert_eq!(Thumbprint::of(b"").to_string(), empty);
    }

    #[test]
    fn a_binding_holds_for_its_certificate_alone_and_may_be_demanded() {
        let (mine, other) = (Thumbprint::of(b"mine"), Thumbprint::of(b"other"));
        let holds = |cnf: Option<&Value>, required, certificate| {
            let text = json!({ "cnf": cnf }).to_string();
            let claims = parse_object(text.as_bytes()).unwrap();
            let found = claims.get("cnf").filter(|_| cnf.is_some());
            holds(found, required, certificate)
        };
        let bound = json!({"x5t#S256": mine.to_string()});
        for required in [false, true] {
            assert!(holds(Some(&bound), required, Some(&mine)));
            assert!(!holds(Some(&bound), required, Some(&other)));
            assert!(!holds(Some(&bound), required, None));
            assert_eq!(holds(None, required, Some(&mine)), !required);
            assert_eq!(holds(None, required, None), !required);
            for cnf in [json!({}), json!(null), json!([bound]), json!({"jkt": "x"})] {
                assert!(!holds(Some(&cnf), required, Some(&mine)), "{cnf}");
                assert!(!holds(Some(&cnf), required, None), "{cnf}");
            }
        }
    }
}

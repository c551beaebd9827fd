//! SCRAM-SHA-256 and SCRAM-SHA-512 (RFC 5802, RFC 7677, KIP-84): the grammar of the four messages
//! and both sides' computations. Pure: nonces and salts come from the caller, and so does the
//! decision which user's credential is meant.
//!
//! The grammar is the broker's: names, nonces and values are ASCII, channel binding is not
//! offered. Passwords are taken as their UTF-8 bytes, as Kafka's clients take them (no SASLprep).

use std::fmt;
use std::num::NonZeroU32;

use aws_lc_rs::{constant_time, digest, hmac, pbkdf2};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// The fewest iterations accepted on either side (RFC 7677 §4, Kafka's minimum).
pub const ITERATIONS_MIN: u32 = 4096;
/// The most iterations accepted on either side: more would be a way to burn somebody's CPU.
pub const ITERATIONS_MAX: u32 = 1_000_000;
/// The longest message that is read, in bytes.
pub const MESSAGE_BYTES_MAX: usize = 8 * 1024;
/// The longest salt, in bytes.
pub const SALT_BYTES_MAX: usize = 1024;

/// The GS2 header of a client without channel binding and without an authorization id.
const GS2_HEADER: &str = "n,,";

/// The hash function of a SCRAM mechanism.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hash {
    /// SCRAM-SHA-256.
    Sha256,
    /// SCRAM-SHA-512.
    Sha512,
}

impl Hash {
    /// The mechanism's name, as SaslHandshake has it.
    pub fn mechanism(self) -> &'static str {
        match self {
            Hash::Sha256 => "SCRAM-SHA-256",
            Hash::Sha512 => "SCRAM-SHA-512",
        }
    }

    /// The length of a digest, in bytes.
    pub fn digest_bytes(self) -> usize {
        match self {
            Hash::Sha256 => digest::SHA256_OUTPUT_LEN,
            Hash::Sha512 => digest::SHA512_OUTPUT_LEN,
        }
    }

    fn digest(self, data: &[u8]) -> Vec<u8> {
        let algorithm = match self {
            Hash::Sha256 => &digest::SHA256,
            Hash::Sha512 => &digest::SHA512,
        };
        digest::digest(algorithm, data).as_ref().to_vec()
    }

    fn hmac(self, key: &[u8], data: &[u8]) -> Vec<u8> {
        let algorithm = match self {
            Hash::Sha256 => hmac::HMAC_SHA256,
            Hash::Sha512 => hmac::HMAC_SHA512,
        };
        let key = hmac::Key::new(algorithm, key);
        hmac::sign(&key, data).as_ref().to_vec()
    }

    /// `SaltedPassword`: takes as long as the iterations ask for.
    fn salted(self, password: &str, salt: &[u8], iterations: NonZeroU32) -> Vec<u8> {
        let algorithm = match self {
            Hash::Sha256 => pbkdf2::PBKDF2_HMAC_SHA256,
            Hash::Sha512 => pbkdf2::PBKDF2_HMAC_SHA512,
        };
        let mut out = vec![0; self.digest_bytes()];
        pbkdf2::derive(algorithm, iterations, salt, password.as_bytes(), &mut out);
        out
    }
}

/// Why an exchange fails. Never holds anything of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScramError {
    /// The message cannot be read.
    #[error("scram message has another form than expected")]
    Form,
    /// The message is longer than [`MESSAGE_BYTES_MAX`].
    #[error("scram message is longer than allowed")]
    Long,
    /// The nonce is not the one of this exchange.
    #[error("scram nonce is not the one of this exchange")]
    Nonce,
    /// The client believes in another channel binding than the server.
    #[error("scram channel binding is not the one of this exchange")]
    ChannelBinding,
    /// Fewer than [`ITERATIONS_MIN`] or more than [`ITERATIONS_MAX`].
    #[error("scram iterations are not between {ITERATIONS_MIN} and {ITERATIONS_MAX}")]
    Iterations,
    /// The client's proof, or the server's signature, is wrong.
    #[error("scram proof is wrong")]
    Proof,
    /// The client's proof is no digest of this mechanism.
    #[error("scram proof has another length than the mechanism's digest")]
    ProofLength,
    /// The server sent `e=…`.
    #[error("scram server reports an error")]
    Server,
}

/// What a server keeps of a password: enough to recognise it, not enough to use it.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    hash: Hash,
    iterations: NonZeroU32,
    salt: Vec<u8>,
    stored_key: Vec<u8>,
    server_key: Vec<u8>,
}

/// Never shows a key or the salt.
impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential")
            .field("hash", &self.hash)
            .field("iterations", &self.iterations)
            .finish_non_exhaustive()
    }
}

/// What is wrong with the text of a credential. Never repeats any of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CredentialFault {
    /// Not `MECHANISM$ITERATIONS:SALT$STORED-KEY:SERVER-KEY`.
    #[error("not `SCRAM-SHA-512$ITERATIONS:SALT$STOREDKEY:SERVERKEY`")]
    Form,
    /// Another mechanism than the two.
    #[error("the mechanism is neither `SCRAM-SHA-256` nor `SCRAM-SHA-512`")]
    Mechanism,
    /// The iterations are out of their bounds.
    #[error("the iterations are not {ITERATIONS_MIN} to {ITERATIONS_MAX}")]
    Iterations,
    /// The salt is not base64, empty or too long.
    #[error("the salt is not base64 of 1 to {SALT_BYTES_MAX} bytes")]
    Salt,
    /// A key is not base64 of a digest of this mechanism.
    #[error("a key is not base64 of a digest of this mechanism")]
    Key,
}

impl Credential {
    /// Of a password; takes as long as the iterations ask for.
    pub fn of_password(hash: Hash, password: &str, salt: &[u8], iterations: NonZeroU32) -> Self {
        let salted = hash.salted(password, salt, iterations);
        Self {
            hash,
            iterations,
            salt: salt.to_vec(),
            stored_key: hash.digest(&client_key(hash, &salted)),
            server_key: server_key(hash, &salted),
        }
    }

    /// Reads PostgreSQL's form, `SCRAM-SHA-512$4096:c2FsdA==$c3RvcmVk…:c2VydmVy…`.
    pub fn parse(text: &str) -> Result<Self, CredentialFault> {
        let mut parts = text.split('$');
        let (Some(mechanism), Some(cost), Some(keys), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(CredentialFault::Form);
        };
        let hash = [Hash::Sha256, Hash::Sha512]
            .into_iter()
            .find(|hash| hash.mechanism() == mechanism)
            .ok_or(CredentialFault::Mechanism)?;
        let (iterations, salt) = cost.split_once(':').ok_or(CredentialFault::Form)?;
        let iterations = read_iterations(iterations).ok_or(CredentialFault::Iterations)?;
        let salt = decode(salt).ok_or(CredentialFault::Salt)?;
        if salt.is_empty() || salt.len() > SALT_BYTES_MAX {
            return Err(CredentialFault::Salt);
        }
        let (stored_key, server_key) = keys.split_once(':').ok_or(CredentialFault::Form)?;
        let key = |text| {
            decode(text)
                .filter(|key| key.len() == hash.digest_bytes())
                .ok_or(CredentialFault::Key)
        };
        Ok(Self {
            hash,
            iterations,
            salt,
            stored_key: key(stored_key)?,
            server_key: key(server_key)?,
        })
    }

    /// The text that [`Credential::parse`] reads.
    pub fn text(&self) -> String {
        format!(
            "{}${}:{}${}:{}",
            self.hash.mechanism(),
            self.iterations,
            STANDARD.encode(&self.salt),
            STANDARD.encode(&self.stored_key),
            STANDARD.encode(&self.server_key)
        )
    }

    /// The hash function.
    pub fn hash(&self) -> Hash {
        self.hash
    }

    /// How often the password is hashed.
    pub fn iterations(&self) -> NonZeroU32 {
        self.iterations
    }

    /// Whether this is the password; takes as long as the iterations ask for.
    pub fn verify(&self, password: &str) -> bool {
        let salted = self.hash.salted(password, &self.salt, self.iterations);
        let stored = self.hash.digest(&client_key(self.hash, &salted));
        equal(&stored, &self.stored_key)
    }
}

/// The client's first message, as the server reads it.
#[derive(Clone, PartialEq, Eq)]
pub struct ClientFirst {
    /// The name the client wants to act as, as it stands in the message.
    pub authzid: Option<String>,
    /// The user, with `=2C` and `=3D` decoded.
    pub user: String,
    /// Whether the user is the id of a delegation token (`tokenauth=true`, KIP-48).
    pub token_auth: bool,
    header: String,
    nonce: String,
    bare: String,
}

/// Says who, and nothing else.
impl fmt::Debug for ClientFirst {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientFirst")
            .field("has_authzid", &self.authzid.is_some())
            .field("token_auth", &self.token_auth)
            .finish_non_exhaustive()
    }
}

impl ClientFirst {
    /// Reads `n,[a=AUTHZID],[m=…,]n=USER,r=NONCE[,KEY=VALUE]*`.
    pub fn parse(message: &[u8]) -> Result<Self, ScramError> {
        let text = text(message)?;
        // Channel binding (`p=`, `y`) is not offered, so the header begins with `n`.
        let rest = text.strip_prefix("n,").ok_or(ScramError::Form)?;
        let (authzid, bare) = rest.split_once(',').ok_or(ScramError::Form)?;
        let authzid = match authzid.strip_prefix("a=") {
            Some(name) if decode_saslname(name).is_some() => Some(name.to_owned()),
            None if authzid.is_empty() => None,
            _ => return Err(ScramError::Form),
        };
        let mut attributes = bare.split(',');
        let mut next = || attributes.next().ok_or(ScramError::Form);
        let mut user = next()?;
        if user.starts_with("m=") {
            attribute(user, "m=", is_value)?;
            user = next()?;
        }
        let nonce = next()?;
        let user = user.strip_prefix("n=").and_then(decode_saslname);
        let mut token_auth = false;
        for extension in attributes {
            let (key, value) = extension.split_once('=').ok_or(ScramError::Form)?;
            if !is_key(key) || !is_value(value) {
                return Err(ScramError::Form);
            }
            token_auth |= key == "tokenauth" && value.eq_ignore_ascii_case("true");
        }
        Ok(Self {
            authzid,
            user: user.ok_or(ScramError::Form)?,
            token_auth,
            header: text[..text.len() - bare.len()].to_owned(),
            nonce: attribute(nonce, "r=", is_printable)?.to_owned(),
            bare: bare.to_owned(),
        })
    }
}

/// The server's side of an exchange, between its first message and its last.
pub struct ServerExchange {
    header: String,
    nonce: String,
    /// `client-first-message-bare,server-first-message`.
    messages: String,
    credential: Credential,
}

/// Never shows a credential or a message.
impl fmt::Debug for ServerExchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerExchange").finish_non_exhaustive()
    }
}

impl ServerExchange {
    /// Begins with the client's first message; gives the server's. `nonce` is fresh, printable
    /// ASCII without a comma.
    pub fn begin(first: &ClientFirst, credential: &Credential, nonce: &str) -> (Self, String) {
        let nonce = format!("{}{nonce}", first.nonce);
        let salt = STANDARD.encode(&credential.salt);
        let message = format!("r={nonce},s={salt},i={}", credential.iterations);
        let exchange = Self {
            header: first.header.clone(),
            messages: format!("{},{message}", first.bare),
            nonce,
            credential: credential.clone(),
        };
        (exchange, message)
    }

    /// Reads the client's proof; gives the server's last message, which ends the exchange well.
    pub fn finish(&self, client_final: &[u8]) -> Result<String, ScramError> {
        let text = text(client_final)?;
        let (without_proof, proof) = text.rsplit_once(",p=").ok_or(ScramError::Form)?;
        let mut attributes = without_proof.split(',');
        let mut next = || attributes.next().ok_or(ScramError::Form);
        let binding = attribute(next()?, "c=", |_| true)?;
        let nonce = attribute(next()?, "r=", is_printable)?;
        let binding = decode(binding).ok_or(ScramError::Form)?;
        for extension in attributes {
            let (key, value) = extension.split_once('=').ok_or(ScramError::Form)?;
            if !is_key(key) || !is_value(value) {
                return Err(ScramError::Form);
            }
        }
        let proof = decode(proof).ok_or(ScramError::Form)?;
        if nonce != self.nonce {
            return Err(ScramError::Nonce);
        }
        // A broker does not look at this. Clients that leave the authorization id out here are
        // known; a client that believed in a channel binding was lied to on the way.
        if binding != self.header.as_bytes() && binding != GS2_HEADER.as_bytes() {
            return Err(ScramError::ChannelBinding);
        }
        let Credential {
            hash,
            stored_key,
            server_key,
            ..
        } = &self.credential;
        let message = format!("{},{without_proof}", self.messages);
        let signature = hash.hmac(stored_key, message.as_bytes());
        if proof.len() != signature.len() {
            return Err(ScramError::ProofLength);
        }
        let stored = hash.digest(&xor(&proof, &signature));
        if !equal(&stored, stored_key) {
            return Err(ScramError::Proof);
        }
        let signature = hash.hmac(server_key, message.as_bytes());
        Ok(format!("v={}", STANDARD.encode(signature)))
    }
}

/// The client's side of an exchange.
pub struct ScramClient {
    hash: Hash,
    nonce: String,
    bare: String,
    /// What the server must send at last, once the client has sent its proof.
    signature: Option<Vec<u8>>,
}

/// Never shows a message or a key.
impl fmt::Debug for ScramClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScramClient")
            .field("hash", &self.hash)
            .finish_non_exhaustive()
    }
}

impl ScramClient {
    /// Begins as `user`; gives the first message. `nonce` is fresh, printable ASCII without a
    /// comma.
    pub fn first(hash: Hash, user: &str, nonce: &str) -> (Self, String) {
        let user = user.replace('=', "=3D").replace(',', "=2C");
        let bare = format!("n={user},r={nonce}");
        let message = format!("{GS2_HEADER}{bare}");
        let client = Self {
            hash,
            nonce: nonce.to_owned(),
            bare,
            signature: None,
        };
        (client, message)
    }

    /// Answers the server's first message with the proof; takes as long as the iterations ask
    /// for, which are at most [`ITERATIONS_MAX`].
    pub fn second(&mut self, server_first: &[u8], password: &str) -> Result<String, ScramError> {
        let text = text(server_first)?;
        let mut attributes = text.split(',');
        let mut next = || attributes.next().ok_or(ScramError::Form);
        let first = next()?;
        if first.starts_with("e=") {
            return Err(ScramError::Server);
        }
        let nonce = attribute(first, "r=", is_printable)?;
        let salt = attribute(next()?, "s=", |_| true)?;
        let iterations = attribute(next()?, "i=", |_| true)?;
        let salt = decode(salt).ok_or(ScramError::Form)?;
        if salt.is_empty() || salt.len() > SALT_BYTES_MAX {
            return Err(ScramError::Form);
        }
        // The server's part of the nonce is what makes an answer fresh.
        if nonce.len() <= self.nonce.len() || !nonce.starts_with(&self.nonce) {
            return Err(ScramError::Nonce);
        }
        let iterations = read_iterations(iterations).ok_or(ScramError::Iterations)?;
        let hash = self.hash;
        let salted = hash.salted(password, &salt, iterations);
        let without_proof = format!("c={},r={nonce}", STANDARD.encode(GS2_HEADER));
        let message = format!("{},{text},{without_proof}", self.bare);
        let client_key = client_key(hash, &salted);
        let signature = hash.hmac(&hash.digest(&client_key), message.as_bytes());
        let proof = STANDARD.encode(xor(&client_key, &signature));
        self.signature = Some(hash.hmac(&server_key(hash, &salted), message.as_bytes()));
        Ok(format!("{without_proof},p={proof}"))
    }

    /// Whether the server's last message proves that it knows the credential.
    pub fn finish(&self, server_final: &[u8]) -> Result<(), ScramError> {
        let text = text(server_final)?;
        if text.starts_with("e=") {
            return Err(ScramError::Server);
        }
        let signature = text.split(',').next().and_then(|v| v.strip_prefix("v="));
        let signature = signature.and_then(decode).ok_or(ScramError::Form)?;
        match &self.signature {
            Some(expected) if equal(&signature, expected) => Ok(()),
            _ => Err(ScramError::Proof),
        }
    }
}

fn client_key(hash: Hash, salted: &[u8]) -> Vec<u8> {
    hash.hmac(salted, b"Client Key")
}

fn server_key(hash: Hash, salted: &[u8]) -> Vec<u8> {
    hash.hmac(salted, b"Server Key")
}

fn xor(one: &[u8], other: &[u8]) -> Vec<u8> {
    one.iter().zip(other).map(|(a, b)| a ^ b).collect()
}

fn equal(one: &[u8], other: &[u8]) -> bool {
    constant_time::verify_slices_are_equal(one, other).is_ok()
}

fn decode(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text).ok()
}

/// Digits only: what a number's own parser also takes (`+4096`) is not in the grammar.
fn read_iterations(text: &str) -> Option<NonZeroU32> {
    let number = text.bytes().all(|b| b.is_ascii_digit()).then_some(text)?;
    let number: u32 = number.parse().ok()?;
    let allowed = (ITERATIONS_MIN..=ITERATIONS_MAX).contains(&number);
    NonZeroU32::new(number).filter(|_| allowed)
}

/// A message's text: ASCII without NUL.
fn text(message: &[u8]) -> Result<&str, ScramError> {
    if message.len() > MESSAGE_BYTES_MAX {
        return Err(ScramError::Long);
    }
    let text = std::str::from_utf8(message).map_err(|_| ScramError::Form)?;
    if !text.bytes().all(|b| matches!(b, 0x01..=0x7f)) {
        return Err(ScramError::Form);
    }
    Ok(text)
}

fn attribute<'a>(
    text: &'a str,
    key: &str,
    is_allowed: impl Fn(&str) -> bool,
) -> Result<&'a str, ScramError> {
    let value = text.strip_prefix(key).filter(|value| is_allowed(value));
    value.ok_or(ScramError::Form)
}

fn is_key(key: &str) -> bool {
    !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphabetic())
}

fn is_value(value: &str) -> bool {
    !value.is_empty() && !value.contains(',')
}

fn is_printable(value: &str) -> bool {
    !value.is_empty() && value.bytes().all(|b| b.is_ascii_graphic() && b != b',')
}

/// A name without `,` and `=` except as `=2C` and `=3D`, which are decoded.
fn decode_saslname(name: &str) -> Option<String> {
    let mut pieces = name.split('=');
    let mut decoded = pieces.next()?.to_owned();
    for piece in pieces {
        let (sign, rest) = match (piece.strip_prefix("2C"), piece.strip_prefix("3D")) {
            (Some(rest), _) => (',', rest),
            (_, Some(rest)) => ('=', rest),
            _ => return None,
        };
        decoded.push(sign);
        decoded.push_str(rest);
    }
    (!name.is_empty() && !name.contains(',')).then_some(decoded)
}

#[cfg(test)]
mod tests;

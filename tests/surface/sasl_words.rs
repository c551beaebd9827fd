//! What is said in a SASL conversation, and what is heard, made comparable.

use crate::compare::show;
use crate::sasl_every::filled;
use crate::socket::{Socket, encode, frame, read, request};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use kordon::identity::scram::{Credential, Hash, ScramClient};
use kordon::wire::tree::{Node, StructNode};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::json;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

/// All that both sides offer.
pub const MECHANISMS: [&str; 4] = ["OAUTHBEARER", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"];
/// Longer than a broker needs for an answer, and longer than one on a machine under load.
const ANSWER_LIMIT: [Duration; 2] = [Duration::from_secs(4), Duration::from_secs(15)];
/// How long an end may come behind an answer that reports an error.
const END_LIMIT: [Duration; 2] = [Duration::from_millis(300), Duration::from_secs(3)];
const NAMES: [&str; 2] = ["alice", "bob"];
const ITERATIONS: NonZeroU32 = NonZeroU32::new(4096).unwrap();

/// The content of a message of a mechanism.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Token {
    /// A good token.
    Bearer,
    /// A good token of somebody else.
    BearerOther,
    /// With a broken signature.
    BearerRefused,
    /// Not the grammar.
    BearerMalformed,
    /// Wants to act as somebody else.
    BearerAuthzid,
    /// Another scheme.
    BearerBasic,
    /// 0x01.
    Abort,
    /// No bytes.
    Empty,
    /// A good password.
    Plain,
    /// Somebody else's.
    PlainOther,
    /// A wrong one.
    PlainWrong,
    /// Of nobody.
    PlainUnknown,
    /// Two parts.
    PlainShort,
    /// Four parts.
    PlainLong,
    /// Without a user.
    PlainNoUser,
    /// Without a password.
    PlainNoPassword,
    /// Wants to act as somebody else.
    PlainAuthzid,
    /// The first message of a user.
    ScramFirst,
    /// Of somebody else.
    ScramOther,
    /// Of nobody.
    ScramUnknown,
    /// Wants to act as somebody else.
    ScramAuthzid,
    /// Claims to be a delegation token.
    ScramDelegated,
    /// Not the grammar.
    ScramMalformed,
    /// The proof, if there was a challenge.
    ScramProof,
    /// A proof of another password.
    ScramWrong,
    /// A proof of no digest's length.
    ScramShortProof,
    /// A proof for another nonce.
    ScramNonce,
    /// Bytes.
    Garbage,
}

use Token as T;

const TOKENS: [Token; 28] = [
    T::Bearer,
    T::BearerOther,
    T::BearerRefused,
    T::BearerMalformed,
    T::BearerAuthzid,
    T::BearerBasic,
    T::Abort,
    T::Empty,
    T::Plain,
    T::PlainOther,
    T::PlainWrong,
    T::PlainUnknown,
    T::PlainShort,
    T::PlainLong,
    T::PlainNoUser,
    T::PlainNoPassword,
    T::PlainAuthzid,
    T::ScramFirst,
    T::ScramOther,
    T::ScramUnknown,
    T::ScramAuthzid,
    T::ScramDelegated,
    T::ScramMalformed,
    T::ScramProof,
    T::ScramWrong,
    T::ScramShortProof,
    T::ScramNonce,
    T::Garbage,
];

/// One frame of a client.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Word {
    /// ApiVersions.
    Versions,
    /// ApiVersions of a version to come.
    VersionsFuture,
    /// ApiVersions with a software name that is none.
    VersionsName,
    /// SaslHandshake.
    Handshake(i16, &'static str),
    /// SaslAuthenticate.
    Auth(i16, Token),
    /// A bare frame.
    Raw(Token),
    /// Metadata.
    Metadata,
    /// Produce.
    Produce,
    /// A request of this key and version.
    Other(i16, i16),
    /// A frame with a key that does not exist.
    UnknownKey,
    /// A frame that is shorter than a header.
    Short,
    /// The length of a frame that is too long.
    Oversize,
    /// More than a second passes.
    Pause,
}

impl Word {
    /// All that may be said at the beginning.
    pub fn all() -> Vec<Word> {
        let mut all = vec![
            Word::Versions,
            Word::VersionsFuture,
            Word::VersionsName,
            Word::Handshake(2, "PLAIN"),
            Word::Handshake(1, "GSSAPI"),
            Word::Handshake(0, "GSSAPI"),
        ];
        for mechanism in MECHANISMS {
            all.extend([0, 1].map(|version| Word::Handshake(version, mechanism)));
        }
        let more = Word::messages();
        all.extend(
            more.into_iter()
                .filter(|word| !all.contains(word))
                .collect::<Vec<_>>(),
        );
        all
    }

    /// All that may be said once a mechanism is agreed on.
    pub fn messages() -> Vec<Word> {
        let mut all: Vec<Word> = TOKENS.iter().map(|token| Word::Auth(2, *token)).collect();
        for version in [0, 1, 3] {
            all.extend([T::Bearer, T::Plain, T::ScramFirst].map(|t| Word::Auth(version, t)));
        }
        all.extend(TOKENS.iter().map(|token| Word::Raw(*token)));
        all.extend([
            Word::Versions,
            Word::VersionsFuture,
            Word::Handshake(1, "PLAIN"),
            Word::Metadata,
            Word::Produce,
            Word::UnknownKey,
            Word::Short,
            Word::Oversize,
        ]);
        all
    }

    /// The messages of the mechanism that a sequence agreed on, in its framing, and what has
    /// nothing to do with any.
    pub fn relevant(case: &[Word]) -> Vec<Word> {
        let agreed = case.iter().rev().find_map(|word| match word {
            Word::Handshake(version, name) => Some((*version, *name)),
            _ => None,
        });
        let Some((version, mechanism)) = agreed else {
            return Word::all();
        };
        let begins = match mechanism {
            "OAUTHBEARER" => "Bearer",
            "PLAIN" => "Plain",
            _ => "Scram",
        };
        let own = |token: &&Token| {
            let name = format!("{token:?}");
            name.starts_with(begins) || matches!(token, T::Abort | T::Empty | T::Garbage)
        };
        let mut all: Vec<Word> = TOKENS
            .iter()
            .filter(own)
            .map(|token| match version {
                0 => Word::Raw(*token),
                _ => Word::Auth(2, *token),
            })
            .collect();
        all.extend([
            Word::Versions,
            Word::VersionsFuture,
            Word::Handshake(1, mechanism),
            Word::Auth(0, T::Bearer),
            Word::Raw(T::Bearer),
            Word::Metadata,
            Word::Produce,
            Word::UnknownKey,
            Word::Short,
            Word::Oversize,
        ]);
        all
    }

    /// What may be said on an open session.
    pub fn again() -> Vec<Word> {
        let mut all: Vec<Word> = MECHANISMS.map(|m| Word::Handshake(1, m)).to_vec();
        all.extend([
            Word::Handshake(0, "OAUTHBEARER"),
            Word::Handshake(1, "GSSAPI"),
            Word::Versions,
            Word::Metadata,
            Word::Produce,
            Word::Raw(T::Bearer),
            Word::Auth(0, T::Bearer),
        ]);
        let tokens = [
            T::Bearer,
            T::BearerOther,
            T::BearerRefused,
            T::BearerMalformed,
            T::Abort,
            T::Plain,
            T::PlainOther,
            T::PlainWrong,
            T::ScramFirst,
            T::ScramOther,
            T::ScramProof,
        ];
        all.extend(tokens.map(|token| Word::Auth(2, token)));
        all
    }

    /// A good login.
    pub fn login(version: i16, mechanism: &'static str) -> Vec<Word> {
        let tokens: &[Token] = match mechanism {
            "OAUTHBEARER" => &[T::Bearer],
            "PLAIN" => &[T::Plain],
            _ => &[T::ScramFirst, T::ScramProof],
        };
        let message = |token: &Token| match version {
            0 => Word::Raw(*token),
            _ => Word::Auth(2, *token),
        };
        let mut login = vec![Word::Handshake(version, mechanism)];
        login.extend(tokens.iter().map(message));
        login
    }

    fn key(self) -> Option<(i16, i16)> {
        Some(match self {
            Word::Versions | Word::VersionsName => (18, 3),
            Word::VersionsFuture => (18, 99),
            Word::Handshake(version, _) => (17, version),
            Word::Auth(version, _) => (36, version),
            Word::Metadata => (3, 9),
            Word::Produce => (0, 9),
            Word::Other(key, version) => (key, version),
            _ => return None,
        })
    }
}

/// What follows a word.
#[derive(Clone, Debug, PartialEq)]
pub enum Heard {
    /// The connection ended.
    Closed,
    /// Nothing, in time.
    Silent,
    /// Nothing was to be heard.
    Paused,
    /// An answer as text; whether it reports an error, and then whether the end followed.
    Answer {
        /// What is comparable of it.
        text: String,
        /// The client has proven who it is.
        established: bool,
        /// Behind an error: whether the connection ended.
        ended: Option<bool>,
    },
}

impl Heard {
    /// Whether the connection ended without an answer.
    pub fn is_closed(&self) -> bool {
        *self == Heard::Closed
    }

    /// Whether the answer is ILLEGAL_SASL_STATE, and the connection ended behind it.
    pub fn is_refused(&self) -> bool {
        matches!(self, Heard::Answer { text, ended: Some(true), .. }
            if text.contains("ErrorCode: Int(34)"))
    }

    /// Whether more can be said.
    pub fn goes_on(&self) -> bool {
        match self {
            Heard::Answer { ended, .. } => *ended != Some(true),
            Heard::Paused => true,
            Heard::Closed | Heard::Silent => false,
        }
    }

    /// Whether more can be said, and other things than before.
    pub fn moves(&self) -> bool {
        let Heard::Answer { text, .. } = self else {
            return false;
        };
        let changes = ["versions 0", "handshake 0", "challenge", "invalid_token"];
        let changes = changes.iter().any(|word| text.contains(word));
        self.goes_on() && (changes || self.is_established())
    }

    /// Whether the client has proven who it is.
    pub fn is_established(&self) -> bool {
        matches!(
            self,
            Heard::Answer {
                established: true,
                ..
            }
        )
    }
}

/// Who there is, on both sides.
pub struct Users {
    /// The issuer's key set.
    pub jwks: String,
    /// Kordon's users file.
    pub file: String,
    /// Kordon's certificate.
    pub certificate: String,
    /// Its key.
    pub key: String,
    tls: Arc<rustls::ClientConfig>,
    good: [String; 2],
    bad: String,
}

impl Users {
    /// Makes keys, tokens and credentials.
    pub fn new() -> Users {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let public = pair.public_key_raw();
        let part = |from: usize| URL_SAFE_NO_PAD.encode(&public[from..from + 32]);
        let jwks = json!({"keys": [{
            "kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": "k1",
            "x": part(1), "y": part(33),
        }]});
        let signing = EncodingKey::from_ec_der(&pair.serialize_der());
        let now = std::time::SystemTime::UNIX_EPOCH
            .elapsed()
            .unwrap()
            .as_secs();
        let token = |name: &str| {
            let mut header = Header::new(Algorithm::ES256);
            header.kid = Some("k1".to_owned());
            let claims = json!({
                "iss": "https://issuer.example", "sub": name, "aud": "kafka",
                "iat": now, "exp": now + 1800,
            });
            jsonwebtoken::encode(&header, &claims, &signing).unwrap()
        };
        let good = NAMES.map(token);
        let (content, signature) = good[0].rsplit_once('.').unwrap();
        let swapped: String = signature.chars().rev().collect();
        let bad = format!("{content}.{swapped}");
        let mut file = "users:\n".to_owned();
        for name in NAMES {
            let texts = [Hash::Sha256, Hash::Sha512].map(|hash| {
                Credential::of_password(hash, &password(name), b"salt", ITERATIONS).text()
            });
            file += &format!("- {{name: {name}, credential: {texts:?}}}\n");
        }
        let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let certificate = certified.cert.pem();
        let mut roots = rustls::RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap())
            .unwrap();
        let tls = rustls::ClientConfig::builder()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Users {
            jwks: jwks.to_string(),
            file,
            certificate,
            key: certified.signing_key.serialize_pem(),
            tls: Arc::new(tls),
            good,
            bad,
        }
    }

    /// The options of a broker's PlainLoginModule.
    pub fn jaas(&self) -> String {
        let users = NAMES.map(|name| format!("user_{name}=\"{}\"", password(name)));
        users.join(" ")
    }

    /// Tells the broker's SCRAM of the users.
    pub fn tell(&self, broker: &str) {
        let mut socket = Socket::open(broker);
        // A user may stand in one request once.
        for mechanism in [1, 2] {
            let mut alter = request(51);
            for name in NAMES {
                let salted = salted(mechanism, &password(name));
                let mut one = alter.element("Upsertions");
                one.set_text("Name", Some(name));
                one.set_int("Mechanism", mechanism);
                one.set_int("Iterations", ITERATIONS.get().into());
                one.set("Salt", Node::Bytes(Some(Bytes::from_static(b"salt"))));
                one.set("SaltedPassword", Node::Bytes(Some(salted.into())));
                alter.structs_mut("Upsertions").push(one);
            }
            let answer = socket.call(51, 0, &alter);
            for result in answer.structs("Results") {
                assert_eq!(result.int("ErrorCode"), 0, "{}", show(result));
            }
        }
    }
}

fn password(name: &str) -> String {
    format!("{name}-password")
}

fn salted(mechanism: i64, password: &str) -> Vec<u8> {
    use aws_lc_rs::pbkdf2;
    let (algorithm, length) = match mechanism {
        1 => (pbkdf2::PBKDF2_HMAC_SHA256, 32),
        _ => (pbkdf2::PBKDF2_HMAC_SHA512, 64),
    };
    let mut out = vec![0; length];
    pbkdf2::derive(
        algorithm,
        ITERATIONS,
        b"salt",
        password.as_bytes(),
        &mut out,
    );
    out
}

trait Both: Read + Write {}
impl<T: Read + Write> Both for T {}

/// One connection and what it remembers.
pub struct Conversation<'u> {
    stream: Box<dyn Both>,
    socket: TcpStream,
    users: &'u Users,
    bare: bool,
    established: bool,
    renewing: bool,
    mechanism: &'static str,
    challenge: Option<String>,
    next: i32,
}

const NONCE: &str = "clientnonce";

impl<'u> Conversation<'u> {
    /// With a broker.
    pub fn plain(addr: &str, users: &'u Users) -> Self {
        let socket = connect(addr);
        let stream = Box::new(socket.try_clone().unwrap());
        Self::on(stream, socket, users)
    }

    /// With Kordon.
    pub fn tls(addr: &str, users: &'u Users) -> Self {
        let socket = connect(addr);
        let name = ServerName::try_from("localhost").unwrap();
        let session = rustls::ClientConnection::new(Arc::clone(&users.tls), name).unwrap();
        let stream = rustls::StreamOwned::new(session, socket.try_clone().unwrap());
        Self::on(Box::new(stream), socket, users)
    }

    fn on(stream: Box<dyn Both>, socket: TcpStream, users: &'u Users) -> Self {
        Conversation {
            stream,
            socket,
            users,
            bare: false,
            established: false,
            renewing: false,
            mechanism: "",
            challenge: None,
            next: 0,
        }
    }

    /// Says one word after the other until the connection ends.
    pub fn say(mut self, words: &[Word], patient: bool) -> Vec<Heard> {
        let mut all = Vec::new();
        for word in words {
            let heard = self.one(*word, patient);
            let goes_on = heard.goes_on();
            all.push(heard);
            if !goes_on {
                break;
            }
        }
        all
    }

    fn one(&mut self, word: Word, patient: bool) -> Heard {
        if word == Word::Pause {
            std::thread::sleep(Duration::from_millis(1100));
            return Heard::Paused;
        }
        self.next += 1;
        let bytes = self.bytes(word);
        if self
            .stream
            .write_all(&bytes)
            .and_then(|()| self.stream.flush())
            .is_err()
        {
            return Heard::Closed;
        }
        // In bare frames whatever is sent is read as a message of the mechanism.
        let bare = self.bare && !self.established;
        // A length alone ends a connection at once, or never.
        let limit = match word {
            Word::Oversize => END_LIMIT[usize::from(patient)],
            _ => ANSWER_LIMIT[usize::from(patient)],
        };
        let frame = match self.receive(limit) {
            Ok(frame) => frame,
            Err(heard) => return heard,
        };
        let (text, is_error, done) = match word.key().filter(|_| !bare) {
            None => self.message(&frame),
            Some((key, version)) => match read(key, version, &frame) {
                Ok((id, _)) if id != self.next => (format!("correlation id {id}"), true, false),
                Ok((_, node)) => self.answer(word, key, &node),
                Err(why) => (format!("{why}: {}", frame.escape_ascii()), true, false),
            },
        };
        if done {
            self.established = true;
            self.renewing = false;
            self.bare = false;
            self.challenge = None;
        }
        let ended = is_error.then(|| {
            let limit = END_LIMIT[usize::from(patient)];
            self.receive(limit) == Err(Heard::Closed)
        });
        Heard::Answer {
            text,
            established: done,
            ended,
        }
    }

    fn answer(&mut self, word: Word, key: i16, node: &StructNode) -> (String, bool, bool) {
        match key {
            18 => {
                let code = node.int("ErrorCode");
                (format!("versions {code}"), code != 0, false)
            }
            17 => {
                let code = node.int("ErrorCode");
                let mut names: Vec<&str> = node.texts("Mechanisms").collect();
                names.sort();
                if let (0, Word::Handshake(version, name)) = (code, word) {
                    self.bare = version == 0;
                    self.mechanism = name;
                    self.challenge = None;
                    self.renewing = self.established;
                    self.established = false;
                }
                (format!("handshake {code} {names:?}"), code != 0, false)
            }
            36 => {
                let code = node.int("ErrorCode");
                let bytes = node.bytes("AuthBytes").cloned().unwrap_or_default();
                let (said, _, done) = self.message(&bytes);
                let lifetime = match node.int("SessionLifetimeMs") {
                    0 => "none",
                    1_700_000..=1_800_000 => "a token's",
                    3_500_000..=3_600_000 => "the longest",
                    _ => "another",
                };
                let text = node.text("ErrorMessage");
                let text = format!("authenticate {code} {text:?} {said} for {lifetime}");
                (text, code != 0, done && code == 0)
            }
            _ if matches!(word, Word::Other(..)) => (show(node), true, false),
            _ => {
                // The brokers' addresses differ, and the order of nothing else here.
                let text = match key {
                    3 => node.structs("Topics").iter().map(show).collect(),
                    _ => node
                        .structs("Responses")
                        .iter()
                        .map(show)
                        .collect::<String>(),
                };
                let refused = text.contains("ErrorCode: Int(34)");
                (text, refused, false)
            }
        }
    }

    /// A message of the mechanism: its text, whether it is an error, whether it ends all well.
    fn message(&mut self, bytes: &Bytes) -> (String, bool, bool) {
        let text = String::from_utf8_lossy(bytes).into_owned();
        let scram = self.mechanism.starts_with("SCRAM");
        if scram && text.starts_with("r=") {
            let masked = text.split(",s=").nth(1).unwrap_or_default().to_owned();
            self.challenge = Some(text);
            return (format!("challenge {masked}"), false, false);
        }
        if scram && text.starts_with("v=") {
            return ("signature".to_owned(), false, true);
        }
        let done = text.is_empty() && !scram;
        (text, false, done)
    }

    fn receive(&mut self, limit: Duration) -> Result<Bytes, Heard> {
        self.socket.set_read_timeout(Some(limit)).unwrap();
        let mut prefix = [0; 4];
        self.fill(&mut prefix)?;
        let mut frame = vec![0; i32::from_be_bytes(prefix).try_into().unwrap()];
        self.fill(&mut frame)?;
        Ok(frame.into())
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), Heard> {
        self.stream.read_exact(bytes).map_err(|e| match e.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => Heard::Silent,
            _ => Heard::Closed,
        })
    }

    fn bytes(&mut self, word: Word) -> Vec<u8> {
        let own = |bytes: &[u8]| {
            let mut out = (bytes.len() as u32).to_be_bytes().to_vec();
            out.extend_from_slice(bytes);
            out
        };
        let body = match word {
            Word::Versions | Word::VersionsName => {
                let mut versions = request(18);
                let name = if word == Word::Versions { "test" } else { "-" };
                versions.set_text("ClientSoftwareName", Some(name));
                versions.set_text("ClientSoftwareVersion", Some("1"));
                encode(18, 3, &versions)
            }
            Word::VersionsFuture => Bytes::from_static(&[1, 2, 3]),
            Word::Handshake(version, mechanism) => {
                let mut handshake = request(17);
                handshake.set_text("Mechanism", Some(mechanism));
                encode(17, version.min(1), &handshake)
            }
            Word::Auth(version, token) => {
                let mut message = request(36);
                let bytes = self.token(token).into();
                message.set("AuthBytes", Node::Bytes(Some(bytes)));
                encode(36, version.min(2), &message)
            }
            Word::Raw(token) => return own(&self.token(token)),
            Word::Metadata => {
                let mut metadata = request(3);
                let mut topic = metadata.element("Topics");
                topic.set_text("Name", Some("missing"));
                metadata.structs_mut("Topics").push(topic);
                encode(3, 9, &metadata)
            }
            Word::Produce => {
                let mut produce = request(0);
                produce.set_int("Acks", 1).set_int("TimeoutMs", 5000);
                let mut topic = produce.element("TopicData");
                topic.set_text("Name", Some("missing"));
                let mut partition = topic.element("PartitionData");
                let records = crate::body::batch("missing", crate::body::Kind::Plain);
                partition.set("Records", Node::Bytes(Some(records)));
                topic.structs_mut("PartitionData").push(partition);
                produce.structs_mut("TopicData").push(topic);
                encode(0, 9, &produce)
            }
            Word::Other(key, version) => encode(key, version, &filled(key, version)),
            Word::UnknownKey => return own(&[0x30, 0, 0, 0, 0, 0, 0, 7, 0xff, 0xff]),
            Word::Short => return own(&[0, 18, 0]),
            Word::Oversize => return 524_289_u32.to_be_bytes().to_vec(),
            Word::Pause => return Vec::new(),
        };
        let (key, version) = word.key().unwrap();
        frame(key, version, self.next, "sasl", &body)
    }

    fn token(&self, token: Token) -> Vec<u8> {
        let bearer = |authzid: &str, scheme: &str, token: &str| {
            format!("n,{authzid},\x01auth={scheme} {token}\x01\x01")
        };
        let [alice, bob] = &self.users.good;
        let text = match token {
            T::Bearer => bearer("", "Bearer", alice),
            T::BearerOther => bearer("", "Bearer", bob),
            T::BearerRefused => bearer("", "Bearer", &self.users.bad),
            T::BearerMalformed => "n,,\x01auth=Bearer\x01\x01".to_owned(),
            T::BearerAuthzid => bearer("a=bob", "Bearer", alice),
            T::BearerBasic => bearer("", "Basic", alice),
            T::Abort => "\x01".to_owned(),
            T::Empty => String::new(),
            T::Plain => "\0alice\0alice-password".to_owned(),
            T::PlainOther => "\0bob\0bob-password".to_owned(),
            T::PlainWrong => "\0alice\0bob-password".to_owned(),
            T::PlainUnknown => "\0carol\0bob-password".to_owned(),
            T::PlainShort => "alice\0alice-password".to_owned(),
            T::PlainLong => "\0alice\0alice-password\0more\0".to_owned(),
            T::PlainNoUser => "\0\0alice-password".to_owned(),
            T::PlainNoPassword => "\0alice\0".to_owned(),
            T::PlainAuthzid => "bob\0alice\0alice-password".to_owned(),
            T::ScramFirst => format!("n,,n=alice,r={NONCE}"),
            T::ScramOther => format!("n,,n=bob,r={NONCE}"),
            T::ScramUnknown => format!("n,,n=carol,r={NONCE}"),
            T::ScramAuthzid => format!("n,a=bob,n=alice,r={NONCE}"),
            T::ScramDelegated => format!("n,,n=alice,r={NONCE},tokenauth=true"),
            T::ScramMalformed => format!("y,,n=alice,r={NONCE}"),
            T::ScramProof => self.proof("alice-password"),
            T::ScramWrong => self.proof("bob-password"),
            T::ScramShortProof => {
                let proof = self.proof("alice-password");
                format!("{},p=AAAA", proof.rsplit_once(",p=").unwrap().0)
            }
            T::ScramNonce => self.proof("alice-password").replace(NONCE, "othernonce"),
            T::Garbage => "\x02\x03garbage\x7f".to_owned(),
        };
        text.into_bytes()
    }

    fn proof(&self, password: &str) -> String {
        let hash = match self.mechanism {
            "SCRAM-SHA-512" => Hash::Sha512,
            _ => Hash::Sha256,
        };
        let (mut client, _) = ScramClient::first(hash, "alice", NONCE);
        let challenge = match &self.challenge {
            Some(challenge) => challenge.clone(),
            None => format!("r={NONCE}none,s=c2FsdA==,i=4096"),
        };
        client.second(challenge.as_bytes(), password).unwrap()
    }
}

fn connect(addr: &str) -> TcpStream {
    let socket = TcpStream::connect(addr).unwrap_or_else(|e| panic!("{addr}: {e}"));
    socket.set_nodelay(true).unwrap();
    socket
}

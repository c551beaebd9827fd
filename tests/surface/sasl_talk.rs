//! A SASL conversation over a socket, and what is heard in it, made comparable.

use crate::compare::show;
use crate::sasl_every::filled;
use crate::sasl_users::Users;
use crate::sasl_words::{Token, Token as T, Word};
use crate::socket::{encode, frame, read, request};
use bytes::Bytes;
use kordon::identity::scram::{Hash, ScramClient};
use kordon::wire::tree::{Node, StructNode};
use rustls::pki_types::ServerName;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

/// Longer than a broker needs for an answer, and longer than one on a machine under load.
const ANSWER_LIMIT: [Duration; 2] = [Duration::from_secs(4), Duration::from_secs(15)];
/// How long an end may come behind an answer that reports an error.
const END_LIMIT: [Duration; 2] = [Duration::from_millis(300), Duration::from_secs(3)];

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

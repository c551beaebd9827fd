//! What is said in a SASL conversation: messages good, bad and misplaced.

/// All that both sides offer.
pub const MECHANISMS: [&str; 4] = ["OAUTHBEARER", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"];
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
        all.extend(Word::misplaced("PLAIN"));
        all
    }

    /// What belongs to no conversation, and a handshake for a mechanism.
    fn misplaced(mechanism: &'static str) -> [Word; 8] {
        [
            Word::Versions,
            Word::VersionsFuture,
            Word::Handshake(1, mechanism),
            Word::Metadata,
            Word::Produce,
            Word::UnknownKey,
            Word::Short,
            Word::Oversize,
        ]
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
        all.extend([Word::Auth(0, T::Bearer), Word::Raw(T::Bearer)]);
        all.extend(Word::misplaced(mechanism));
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

    /// The key and version of its frame, if it is a request.
    pub fn key(self) -> Option<(i16, i16)> {
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

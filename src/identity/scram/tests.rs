use super::*;

const FEWEST: NonZeroU32 = NonZeroU32::new(ITERATIONS_MIN).unwrap();

struct Vector {
    hash: Hash,
    salt: &'static str,
    server_nonce: &'static str,
    proof: &'static str,
    signature: &'static str,
}

const CLIENT_NONCE: &str = "rOprNGfwEbeRWgbNEkqO";

/// The example of RFC 7677 §3, and one of the same user for SHA-512.
const VECTORS: [Vector; 2] = [
    Vector {
        hash: Hash::Sha256,
        salt: "W22ZaJ0SNY7soEsUEjb6gQ==",
        server_nonce: "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0",
        proof: "dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
        signature: "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
    },
    Vector {
        hash: Hash::Sha512,
        salt: "Yin2FuHTt/M0kJWb0t9OI32n2VmOGi3m+JfjOvuDF88=",
        server_nonce: "02431b08-2f89-4bad-a4e6-80c0564ec865",
        proof: "Hc5yec3NmCD7t+kFRw4/3yD6/F3SQHc7AVYschRja+Bc3sbdjlA0eH1OjJc0DD4ghn1tnXN5/Wr6qm9x\
                maHt4A==",
        signature: "BQuhnKHqYDwQWS5jAw4sZed+C9KFUALsbrq81bB0mh+bcUUbbMPNNmBIupnS2AmyyDnG5CTBQtk\
                    jJ9kyY4kzmw==",
    },
];

fn credential(hash: Hash, password: &str) -> Credential {
    Credential::of_password(hash, password, b"salt", FEWEST)
}

fn first(message: &str) -> Result<ClientFirst, ScramError> {
    ClientFirst::parse(message.as_bytes())
}

#[test]
fn both_sides_write_the_published_examples() {
    for vector in &VECTORS {
        let salt = STANDARD.decode(vector.salt).unwrap();
        let credential = Credential::of_password(vector.hash, "pencil", &salt, FEWEST);
        let (mut client, message) = ScramClient::first(vector.hash, "user", CLIENT_NONCE);
        assert_eq!(message, "n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
        let (server, answer) =
            ServerExchange::begin(&first(&message).unwrap(), &credential, vector.server_nonce);
        let nonce = format!("{CLIENT_NONCE}{}", vector.server_nonce);
        assert_eq!(answer, format!("r={nonce},s={},i=4096", vector.salt));
        let proof = client.second(answer.as_bytes(), "pencil").unwrap();
        assert_eq!(proof, format!("c=biws,r={nonce},p={}", vector.proof));
        let signature = server.finish(proof.as_bytes()).unwrap();
        assert_eq!(signature, format!("v={}", vector.signature));
        assert_eq!(client.finish(signature.as_bytes()), Ok(()));
    }
}

#[test]
fn another_password_is_noticed_by_either_side() {
    let credential = credential(Hash::Sha256, "right");
    let (mut client, message) = ScramClient::first(Hash::Sha256, "me", "abc");
    let (server, answer) = ServerExchange::begin(&first(&message).unwrap(), &credential, "def");
    let wrong = client.second(answer.as_bytes(), "wrong").unwrap();
    assert_eq!(server.finish(wrong.as_bytes()), Err(ScramError::Proof));
    let right = client.second(answer.as_bytes(), "right").unwrap();
    let signature = server.finish(right.as_bytes()).unwrap();
    client.second(answer.as_bytes(), "wrong").unwrap();
    assert_eq!(client.finish(signature.as_bytes()), Err(ScramError::Proof));
}

#[test]
fn names_travel_escaped() {
    let (_, message) = ScramClient::first(Hash::Sha512, "a=b,c=2C", "n");
    assert_eq!(message, "n,,n=a=3Db=2Cc=3D2C,r=n");
    assert_eq!(first(&message).unwrap().user, "a=b,c=2C");
}

#[test]
fn the_first_message_is_read_as_a_broker_reads_it() {
    let all = first("n,a=x=2Cy,m=v=1,n=me,r=a=b%c,tokenauth=true,k=v=w").unwrap();
    assert_eq!(all.authzid.as_deref(), Some("x=2Cy"));
    assert_eq!((all.user.as_str(), all.token_auth), ("me", true));
    assert!(!first("n,,n=me,r=a,tokenauth=false").unwrap().token_auth);
    for bad in [
        "",
        "n",
        "n,,",
        "y,,n=me,r=a",
        "p=tls-unique,,n=me,r=a",
        "n,a=,n=me,r=a",
        "n,b=x,n=me,r=a",
        "n,,n=,r=a",
        "n,,n=me",
        "n,,n=me,r=",
        "n,,n=me,r=a b",
        "n,,r=a,n=me",
        "n,,m=,n=me,r=a",
        "n,,n=m=2c,r=a",
        "n,,n=m=,r=a",
        "n,,n=me,r=a,",
        "n,,n=me,r=a,k=",
        "n,,n=me,r=a,k1=v",
        "n,,n=m\u{e9},r=a",
        "n,,n=m\0,r=a",
    ] {
        assert_eq!(first(bad), Err(ScramError::Form), "{bad:?}");
    }
    let long = format!("n,,n=me,r={}", "a".repeat(MESSAGE_BYTES_MAX));
    assert_eq!(first(&long), Err(ScramError::Long));
}

#[test]
fn the_proof_belongs_to_this_exchange_and_no_channel() {
    let credential = credential(Hash::Sha256, "p");
    let (mut client, message) = ScramClient::first(Hash::Sha256, "me", "abc");
    let parsed = first(&message).unwrap();
    let (server, answer) = ServerExchange::begin(&parsed, &credential, "def");
    let proof = client.second(answer.as_bytes(), "p").unwrap();
    let (other, _) = ServerExchange::begin(&parsed, &credential, "xyz");
    assert_eq!(other.finish(proof.as_bytes()), Err(ScramError::Nonce));
    let bound = proof.replace("c=biws", "c=eSws");
    assert_eq!(
        server.finish(bound.as_bytes()),
        Err(ScramError::ChannelBinding)
    );
    for (bad, error) in [
        ("".to_owned(), ScramError::Form),
        (proof.replace("c=", "d="), ScramError::Form),
        (proof.replace("biws", "biw"), ScramError::Form),
        (proof.replace(",p=", ",q="), ScramError::Form),
        (proof.replace(",p=", ",k,p="), ScramError::Form),
        (proof.replace(",p=", ",k=v,p="), ScramError::Proof),
        (format!("{proof},k=v"), ScramError::Form),
        (proof[..proof.len() - 4].to_owned(), ScramError::ProofLength),
    ] {
        assert_eq!(server.finish(bad.as_bytes()), Err(error), "{bad}");
    }
    assert!(server.finish(proof.as_bytes()).is_ok());
}

#[test]
fn a_client_bounds_what_a_server_asks_of_it() {
    for (answer, error) in [
        ("e=other-error", ScramError::Server),
        ("r=abcdef,s=c2FsdA==,i=4095", ScramError::Iterations),
        ("r=abcdef,s=c2FsdA==,i=1000001", ScramError::Iterations),
        ("r=abcdef,s=c2FsdA==,i=99999999999", ScramError::Iterations),
        ("r=abcdef,s=c2FsdA==,i=+4096", ScramError::Iterations),
        ("r=abc,s=c2FsdA==,i=4096", ScramError::Nonce),
        ("r=xyzdef,s=c2FsdA==,i=4096", ScramError::Nonce),
        ("r=abcdef,s=,i=4096", ScramError::Form),
        ("r=abcdef,s=?,i=4096", ScramError::Form),
        ("r=abcdef,s=c2FsdA==", ScramError::Form),
        ("m=ext,r=abcdef,s=c2FsdA==,i=4096", ScramError::Form),
        ("", ScramError::Form),
    ] {
        let (mut client, _) = ScramClient::first(Hash::Sha256, "me", "abc");
        assert_eq!(
            client.second(answer.as_bytes(), "p"),
            Err(error),
            "{answer}"
        );
    }
}

#[test]
fn a_client_believes_no_server_that_has_not_proven_itself() {
    let (client, _) = ScramClient::first(Hash::Sha256, "me", "abc");
    assert_eq!(client.finish(b"v="), Err(ScramError::Proof));
    assert_eq!(client.finish(b"e=invalid-proof"), Err(ScramError::Server));
    assert_eq!(client.finish(b""), Err(ScramError::Form));
}

#[test]
fn credentials_are_text_and_back() {
    for hash in [Hash::Sha256, Hash::Sha512] {
        let credential = credential(hash, "p");
        let read = Credential::parse(&credential.text()).unwrap();
        assert_eq!(read, credential);
        assert!(read.verify("p"));
        assert!(!read.verify("q"));
        assert!(!read.verify(""));
    }
}

#[test]
fn broken_credentials_are_refused_and_not_repeated() {
    let good = credential(Hash::Sha256, "p").text();
    let key = STANDARD.encode([0; 32]);
    for (bad, fault) in [
        ("hunter2".to_owned(), CredentialFault::Form),
        (format!("{good}$"), CredentialFault::Form),
        (good.replace("4096:", "4096"), CredentialFault::Form),
        (good.replace("SHA-256", "SHA-1"), CredentialFault::Mechanism),
        (good.replace("SHA-256", "SHA-512"), CredentialFault::Key),
        (good.replace("4096", "4095"), CredentialFault::Iterations),
        (good.replace("4096", "1000001"), CredentialFault::Iterations),
        (good.replace("c2FsdA==", ""), CredentialFault::Salt),
        (good.replace("c2FsdA==", "c2FsdA"), CredentialFault::Salt),
        (
            format!("SCRAM-SHA-256$4096:c2FsdA==${key}:"),
            CredentialFault::Key,
        ),
    ] {
        assert_eq!(Credential::parse(&bad), Err(fault), "{bad}");
    }
}

#[test]
fn debug_output_shows_no_secret() {
    let credential = credential(Hash::Sha256, "p");
    let (client, message) = ScramClient::first(Hash::Sha256, "me", "secret-nonce");
    let parsed = first(&message).unwrap();
    let (server, _) = ServerExchange::begin(&parsed, &credential, "secret-nonce");
    let shown = format!("{credential:?} {client:?} {parsed:?} {server:?}");
    let stored = STANDARD.encode(&credential.stored_key);
    assert!(
        !shown.contains("secret") && !shown.contains(&stored),
        "{shown}"
    );
}

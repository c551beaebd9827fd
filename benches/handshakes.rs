//! New connections by mTLS: what each costs the proxy in CPU time, whole handshakes and resumed
//! ones (TLS 1.3, ECDSA P-256 on both sides). A few clients of our own open them, each one after
//! the other; the proxy is a process of its own, so that its time is its own.
//! So is what it is compared with: the least that a server can do with the same libraries, which
//! is to accept, to shake hands and to read to the end.
//!
//! `cargo bench --bench handshakes`; `-- --connections N` for more than the default, `-- --only
//! full` or `-- --only resumed` to look at one of them with a profiler.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// Connections of each kind in a round.
const CONNECTIONS: u32 = 2_000;
/// Clients at once: as many as keep the proxy busy, since a process that sleeps between two
/// messages pays for each time it is woken.
const CLIENTS: u32 = 8;
/// Rounds of either kind, in alternation, after one that warms up.
const ROUNDS: usize = 5;
/// The kernel's unit of a process's time (`sysconf(_SC_CLK_TCK)`), 100 a second on Linux.
const TICKS: f64 = 100.0;

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, serve, dir] = &*arguments
        && serve == SERVE
    {
        return serve_least(Path::new(dir));
    }
    let value = |name: &str| {
        let at = arguments.iter().position(|word| word == name)?;
        arguments.get(at + 1)
    };
    let count = match value("--connections") {
        Some(count) => count.parse()?,
        None => CONNECTIONS,
    };
    let wanted = |kind: &str| value("--only").is_none_or(|only| only == kind);
    let dir = tempfile::tempdir()?;
    let (full, resumed) = certificates(dir.path())?;
    let (proxy, least) = (Server::kordon(dir.path())?, Server::least(dir.path())?);
    for server in [&proxy, &least] {
        server.open(&full, 200, HandshakeKind::Full)?;
        server.open(&resumed, 200, HandshakeKind::Resumed)?;
    }
    println!("connections for each CPU second: min, median, max");
    for (name, config, kind) in [
        ("full", &full, HandshakeKind::Full),
        ("resumed", &resumed, HandshakeKind::Resumed),
    ] {
        if !wanted(name) {
            continue;
        }
        let (mut ours, mut leasts, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let own = proxy.open(config, count, kind)?;
            let other = least.open(config, count, kind)?;
            ours.push(own);
            leasts.push(other);
            ratios.push(own / other);
        }
        show(&format!("{name}, kordon"), ours, 0);
        show(&format!("{name}, the least"), leasts, 0);
        show(&format!("{name}, ratio"), ratios, 2);
    }
    Ok(())
}

fn show(name: &str, mut values: Vec<f64>, digits: usize) {
    values.sort_by(f64::total_cmp);
    let (min, median, max) = (values[0], values[ROUNDS / 2], values[ROUNDS - 1]);
    println!("{name:<20} {min:>8.digits$} {median:>8.digits$} {max:>8.digits$}");
}

/// The word by which this program starts itself as the other server.
const SERVE: &str = "--serve-the-least";

/// A server on a port that it writes to a file, with the suites, the verifier and the tickets that
/// Kordon's listener has.
fn serve_least(dir: &Path) -> Outcome<()> {
    let pem = |name: &str| fs::read(dir.join(name));
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    let cheap = rustls::CipherSuite::TLS13_AES_128_GCM_SHA256;
    provider
        .cipher_suites
        .sort_by_key(|suite| suite.suite() != cheap);
    let provider = Arc::new(provider);
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(&pem("ca.pem")?)?)?;
    let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(
        Arc::new(roots),
        Arc::clone(&provider),
    );
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier.build()?)
        .with_single_cert(
            vec![CertificateDer::from_pem_slice(&pem("server.pem")?)?],
            PrivateKeyDer::from_pem_slice(&pem("server.key")?)?,
        )?;
    config.ignore_client_order = true;
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new()?;
    config.send_tls13_tickets = 1;
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(tokio::runtime::LocalOptions::default())?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        fs::write(dir.join("port.new"), port.to_string())?;
        fs::rename(dir.join("port.new"), dir.join("port"))?;
        loop {
            let (socket, _) = listener.accept().await?;
            let acceptor = acceptor.clone();
            tokio::task::spawn_local(async move {
                let Ok(mut stream) = acceptor.accept(socket).await else {
                    return;
                };
                let mut rest = [0; 256];
                while matches!(
                    tokio::io::AsyncReadExt::read(&mut stream, &mut rest).await,
                    Ok(1..)
                ) {}
            });
        }
    })
}

/// An authority, the listener's certificate, and two clients with one: one that never resumes,
/// one that always does.
fn certificates(dir: &Path) -> Outcome<(ClientConfig, ClientConfig)> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params
        .distinguished_name
        .push(DnType::CommonName, "authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = params.self_signed(&key)?;
    let issuer = Issuer::new(params, key);
    let leaf = |names: Vec<String>, usage: ExtendedKeyUsagePurpose| -> Outcome<(String, String)> {
        let mut params = CertificateParams::new(names)?;
        params
            .distinguished_name
            .push(DnType::CommonName, "orders-service");
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate()?;
        Ok((params.signed_by(&key, &issuer)?.pem(), key.serialize_pem()))
    };
    let (server, server_key) = leaf(
        vec!["localhost".into()],
        ExtendedKeyUsagePurpose::ServerAuth,
    )?;
    let (client, client_key) = leaf(Vec::new(), ExtendedKeyUsagePurpose::ClientAuth)?;
    fs::write(dir.join("ca.pem"), authority.pem())?;
    fs::write(dir.join("server.pem"), server)?;
    fs::write(dir.join("server.key"), server_key)?;
    let config = || -> Outcome<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(authority.der().clone())?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let chain = vec![CertificateDer::from_pem_slice(client.as_bytes())?];
        let key = PrivateKeyDer::from_pem_slice(client_key.as_bytes())?;
        Ok(ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)?)
    };
    let mut full = config()?;
    full.resumption = rustls::client::Resumption::disabled();
    Ok((full, config()?))
}

struct Server {
    child: Child,
    port: u16,
}

impl Server {
    fn kordon(dir: &Path) -> Outcome<Server> {
        let port = std::net::TcpListener::bind("127.0.0.1:0")?
            .local_addr()?
            .port();
        // Nobody listens there: no connection of these gets as far as a request.
        let config = format!(
            "upstream: {{bootstrap: [\"127.0.0.1:1\"]}}\nauthorization: off\n\
             listeners:\n- name: mesh\n  bind: 127.0.0.1:{port}\n  \
             advertise: {{host: \"broker-{{id}}.example\", port: {port}, sni: true}}\n  \
             tls: {{cert: server.pem, key: server.key, clientCa: ca.pem, clientAuth: required}}\n  \
             identity: {{mtls: {{from: cn}}}}\n"
        );
        fs::write(dir.join("kordon.yaml"), config)?;
        let binary = std::env::var("KORDON_BIN");
        let binary = binary.unwrap_or_else(|_| env!("CARGO_BIN_EXE_kordon").to_owned());
        let mut command = Command::new(binary);
        command.args(["run", "-c"]).arg(dir.join("kordon.yaml"));
        Server::start(command, || Some(port))
    }

    fn least(dir: &Path) -> Outcome<Server> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(SERVE).arg(dir);
        let port = || fs::read_to_string(dir.join("port")).ok()?.parse().ok();
        Server::start(command, port)
    }

    fn start(mut command: Command, port: impl Fn() -> Option<u16>) -> Outcome<Server> {
        let child = command.stderr(Stdio::null()).spawn()?;
        let mut server = Server { child, port: 0 };
        let listens = |port: &u16| TcpStream::connect(("127.0.0.1", *port)).is_ok();
        let begun = Instant::now();
        loop {
            if let Some(port) = port().filter(listens) {
                server.port = port;
                return Ok(server);
            }
            if begun.elapsed() > Duration::from_secs(10) {
                return Err("the server does not listen".into());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Opens `count` connections; how many for each CPU second of the server.
    fn open(&self, config: &ClientConfig, count: u32, kind: HandshakeKind) -> Outcome<f64> {
        let client = || -> Result<u32, String> {
            // A memory of sessions for each client: tickets serve once.
            let mut config = config.clone();
            if kind == HandshakeKind::Resumed {
                config.resumption = rustls::client::Resumption::in_memory_sessions(8);
            }
            let config = Arc::new(config);
            let mut as_meant = 0;
            for _ in 0..count / CLIENTS {
                let found = self.handshake(&config).map_err(|error| error.to_string())?;
                as_meant += u32::from(found == kind);
            }
            Ok(as_meant)
        };
        let before = self.cpu()?;
        let counts: Vec<_> = std::thread::scope(|scope| {
            let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(client)).collect();
            clients.into_iter().map(|client| client.join()).collect()
        });
        let spent = self.cpu()? - before;
        let mut as_meant = 0;
        for counted in counts {
            as_meant += counted.map_err(|_| "a client panicked")??;
        }
        // The first of those that resume has nothing to resume.
        if as_meant + CLIENTS < count {
            return Err(format!("{as_meant} of {count} handshakes were {kind:?}").into());
        }
        Ok(f64::from(count) / spent)
    }

    fn handshake(&self, config: &Arc<ClientConfig>) -> Outcome<HandshakeKind> {
        let mut socket = TcpStream::connect(("127.0.0.1", self.port))?;
        socket.set_nodelay(true)?;
        let name = ServerName::try_from("localhost")?;
        let mut tls = ClientConnection::new(Arc::clone(config), name)?;
        while tls.is_handshaking() {
            tls.complete_io(&mut socket)?;
        }
        while tls.wants_write() {
            tls.write_tls(&mut socket)?;
        }
        let kind = tls.handshake_kind().ok_or("no handshake")?;
        // The ticket comes behind the handshake.
        tls.read_tls(&mut socket)?;
        tls.process_new_packets()?;
        tls.send_close_notify();
        tls.write_tls(&mut socket)?;
        socket.flush()?;
        socket.shutdown(std::net::Shutdown::Write)?;
        let mut rest = [0; 256];
        while matches!(socket.read(&mut rest), Ok(1..)) {}
        Ok(kind)
    }

    /// User and system time so far, in seconds.
    fn cpu(&self) -> Outcome<f64> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        let fields: Vec<&str> = stat
            .rsplit(')')
            .next()
            .unwrap_or_default()
            .split_whitespace()
            .collect();
        let ticks = |at: usize| fields.get(at).and_then(|text| text.parse::<f64>().ok());
        let (user, system) = (ticks(11).ok_or("utime")?, ticks(12).ok_or("stime")?);
        Ok((user + system) / TICKS)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

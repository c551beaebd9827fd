//! `kordon run`: reads the configuration, opens the listeners, and serves until SIGTERM.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::runtime::{Builder, LocalOptions};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::admin::{
    AdminState, BrokerStatus, ListenerStatus, PolicyStatus, Readiness, StatusSource,
};
use crate::config::{Authorization, Config, Guards, guards};
use crate::identity::issuers::Issuers;
use crate::identity::mechanisms::Mechanisms;
use crate::identity::settings::{IdentitySettings, TokenSettings};
use crate::identity::token::Verifier;
use crate::net::listen::{self, Accepted, Doors};
use crate::policy::PolicySet;
use crate::problem::Problems;
use crate::proxy::listener::{Identity, Listener};
use crate::proxy::snapshot::Snapshot;
use crate::proxy::worker::Workers;
use crate::proxy::{Bounds, Proxy};
use crate::quota::Quotas;
use crate::schema::{Directory, SchemaSet};
use crate::session::fetch_sessions::FetchSessions;
use crate::telemetry::PolicyInForce;
use crate::telemetry::Recorder;
use crate::telemetry::audit::{Audit, DIGEST_DIGITS};
use crate::upstream::Cluster;
use crate::upstream::dial::Dialer;
use crate::{apis, clock};

/// How long connections may take to finish what they owe after SIGTERM.
const DRAIN_DEADLINE: Duration = Duration::from_secs(25);
/// How often it is looked whether they have.
const DRAIN_POLL: Duration = Duration::from_millis(5);

/// Runs the command; returns its exit code.
pub fn run(config: &Path) -> u8 {
    if let Err(error) = crate::telemetry::log::start() {
        eprintln!("error: {error}");
        return 2;
    }
    let running = match Running::start(config) {
        Ok(running) => running,
        Err(problems) => {
            let report = super::check::Report { problems, files: 1 };
            let _ = super::check::write_text(&report, &mut std::io::stderr());
            return 1;
        }
    };
    match wait_for_signals(&running) {
        Ok(()) => {
            running.stop();
            0
        }
        Err(error) => {
            tracing::error!(%error, "cannot wait for signals");
            1
        }
    }
}

/// Starts the proxy for the demo, which only needs it to end.
#[cfg(feature = "demo")]
pub fn start_for_demo(config: &Path) -> Result<Box<dyn std::any::Any>, Problems> {
    struct StopOnDrop(Option<Running>);
    impl Drop for StopOnDrop {
        fn drop(&mut self) {
            self.0.take().into_iter().for_each(Running::stop);
        }
    }
    Running::start(config).map(|running| Box::new(StopOnDrop(Some(running))) as _)
}

fn wait_for_signals(running: &Running) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut hangup = signal(SignalKind::hangup())?;
        loop {
            tokio::select! {
                _ = terminate.recv() => return Ok(()),
                _ = interrupt.recv() => return Ok(()),
                _ = hangup.recv() => running.reload(),
            }
        }
    })
}

/// A proxy that serves.
pub struct Running {
    proxy: Arc<Proxy>,
    config: Config,
    readiness: Readiness,
    doors: Doors,
    control: Option<JoinHandle<()>>,
    end: watch::Sender<bool>,
    workers: Arc<Workers>,
}

impl Running {
    /// Reads the configuration and everything it names, and starts to serve. All mistakes are
    /// returned at once.
    pub fn start(path: &Path) -> Result<Running, Problems> {
        let (config, guards, mut problems) = Config::load_with_guards(path);
        let Some(config) = config.filter(|_| !problems.has_errors()) else {
            return Err(problems);
        };
        let snapshot = snapshot(&config, guards, 1, None, &mut problems);
        let (doors, changes) = listen::doors();
        let listeners = listeners(&config, &doors, &mut problems);
        let dialer = dialer(&config, &mut problems);
        let recorder = Recorder::new(|key| apis::lookup(key).map(|api| api.name));
        let audit = match Audit::start(config.audit.clone(), &recorder) {
            Ok(audit) => Some(audit),
            Err(error) => {
                problems.error_without_place(error.to_string());
                None
            }
        };
        let (Some(dialer), Some(audit), false) = (dialer, audit, problems.has_errors()) else {
            return Err(problems);
        };
        for warning in &problems.list {
            let place = warning.place.as_ref().map(ToString::to_string);
            tracing::warn!(place, "{}", warning.message);
        }
        let generation = snapshot.generation;
        recorder.policy_in_force(PolicyInForce {
            generation,
            loaded: snapshot.loaded,
        });
        let proxy = Arc::new(Proxy {
            snapshot: ArcSwap::from_pointee(snapshot),
            cluster: Arc::new(Cluster::new(dialer, config.upstream.bootstrap.clone())),
            listeners,
            recorder,
            audit,
            fetch_sessions: FetchSessions::default(),
            bounds: Bounds {
                frame_bytes_max: config.limits.frame_bytes,
                connections_max: config.limits.connections,
                in_flight_max: config.limits.in_flight,
            },
            draining: watch::channel(false).0,
            open: AtomicUsize::new(0),
            numbers: AtomicU64::new(0),
        });
        proxy.cluster.watch(Arc::clone(&proxy) as _);
        Self::serve(proxy, config, doors, changes)
    }

    fn serve(
        proxy: Arc<Proxy>,
        config: Config,
        doors: Doors,
        changes: listen::Changes,
    ) -> Result<Running, Problems> {
        let mut problems = Problems::default();
        for listener in &proxy.listeners {
            if let Err(error) = listener.open() {
                let (name, bind) = (&listener.name, listener.settings.bind);
                problems
                    .error_without_place(format!("listener `{name}`: cannot bind {bind}: {error}"));
            }
        }
        let admin = config
            .admin
            .map(|addr| (addr, std::net::TcpListener::bind(addr)));
        if let Some((addr, Err(error))) = &admin {
            problems.error_without_place(format!("admin: cannot bind {addr}: {error}"));
        }
        // Half of the cores granted: the app in the pod needs the others, and fewer threads mean
        // fewer wake-ups for the same bytes.
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let workers = match Workers::start(&proxy, cores.div_ceil(2)) {
            Ok(workers) => Arc::new(workers),
            Err(error) => {
                problems.error_without_place(format!("cannot start threads: {error}"));
                return Err(problems);
            }
        };
        if problems.has_errors() {
            return Err(problems);
        }
        let readiness = Readiness::new();
        readiness.not_ready("no list of brokers from the cluster yet");
        let notes = readiness.clone();
        proxy.audit.watch(move |trouble| match trouble {
            Some(text) => notes.note("audit", text),
            None => notes.clear("audit"),
        });
        let (end, ended) = watch::channel(false);
        let state = AdminState {
            recorder: proxy.recorder.clone(),
            readiness: readiness.clone(),
            source: Arc::clone(&proxy) as _,
        };
        let control = Control {
            proxy: Arc::clone(&proxy),
            workers: Arc::clone(&workers),
            changes,
            admin: admin.and_then(|(_, bound)| bound.ok()),
            state,
            ended,
        };
        let control = match std::thread::Builder::new()
            .name("control".into())
            .spawn(move || control.run())
        {
            Ok(thread) => thread,
            Err(error) => {
                problems.error_without_place(format!("cannot start a thread: {error}"));
                return Err(problems);
            }
        };
        for listener in &proxy.listeners {
            tracing::info!(listener = %listener.name, bind = %listener.settings.bind,
                identity = listener.identity.name(), tls = listener.tls.is_some(), "listening");
        }
        Ok(Running {
            proxy,
            config,
            readiness,
            doors,
            control: Some(control),
            end,
            workers,
        })
    }

    /// Reads policies and schemas again. A bad new version leaves the old one in force, and
    /// says so in the log, in `/readyz` and in a metric.
    pub fn reload(&self) {
        self.proxy.audit.reopen();
        let mut problems = Problems::default();
        let guards = match &self.config.policies {
            Some(dir) => guards::load(dir, &mut problems),
            None => Guards::default(),
        };
        if self.config.schemas.is_none() {
            guards.need_schemas(&mut problems);
        }
        let old = self.proxy.snapshot.load_full();
        let generation = old.generation + 1;
        let new = snapshot(
            &self.config,
            guards,
            generation,
            Some(&old.quotas),
            &mut problems,
        );
        if problems.has_errors() {
            for problem in &problems.list {
                let place = problem.place.as_ref().map(ToString::to_string);
                tracing::error!(place, "{}", problem.message);
            }
            self.proxy.recorder.policy_reload_failure();
            self.readiness.note(
                "policies",
                "the last change holds errors and is not in force",
            );
            return;
        }
        self.readiness.clear("policies");
        let loaded = new.loaded;
        tracing::info!(digest = new.digest, generation, "policies in force");
        self.proxy.snapshot.store(Arc::new(new));
        self.proxy
            .recorder
            .policy_in_force(PolicyInForce { generation, loaded });
    }

    /// Stops accepting, lets connections finish what they owe, and ends.
    pub fn stop(mut self) {
        tracing::info!("draining");
        self.readiness.not_ready("draining");
        self.doors.close_all();
        let _ = self.proxy.draining.send(true);
        let begun = clock::now();
        while self.proxy.open.load(Ordering::Relaxed) > 0 {
            if clock::now().duration_since(begun) > DRAIN_DEADLINE {
                let open = self.proxy.open.load(Ordering::Relaxed);
                tracing::warn!(open, "connections still owed answers at the deadline");
                break;
            }
            std::thread::sleep(DRAIN_POLL);
        }
        let _ = self.end.send(true);
        if let Some(control) = self.control.take() {
            let _ = control.join();
        }
        if let Ok(workers) = Arc::try_unwrap(self.workers)
            && self.proxy.open.load(Ordering::Relaxed) == 0
        {
            workers.join();
        }
        if !self.proxy.audit.close() {
            tracing::warn!("the audit log did not take everything in time");
        }
        tracing::info!("ended");
    }
}

/// The thread beside the workers: accepts, asks the cluster, serves the admin endpoint.
struct Control {
    proxy: Arc<Proxy>,
    workers: Arc<Workers>,
    changes: listen::Changes,
    admin: Option<std::net::TcpListener>,
    state: AdminState,
    ended: watch::Receiver<bool>,
}

impl Control {
    fn run(self) {
        let runtime = match Builder::new_current_thread()
            .enable_all()
            .build_local(LocalOptions::default())
        {
            Ok(runtime) => runtime,
            Err(error) => {
                tracing::error!(%error, "cannot start the control thread");
                return;
            }
        };
        let Control {
            proxy,
            workers,
            changes,
            admin,
            state,
            mut ended,
        } = self;
        let readiness = state.readiness.clone();
        runtime.block_on(async move {
            if let Some(admin) = admin {
                let mut ended = ended.clone();
                tokio::task::spawn_local(async move {
                    let shutdown = async move {
                        let _ = ended.wait_for(|ended| *ended).await;
                    };
                    if let Err(error) = crate::admin::serve(admin, state, shutdown).await {
                        tracing::error!(%error, "admin endpoint");
                    }
                });
            }
            let cluster = Arc::clone(&proxy.cluster);
            let asking = async move { cluster.run(|| readiness.ready()).await };
            let accepted = move |accepted: Accepted| {
                proxy.recorder.connection_accepted();
                match proxy.admit() {
                    Some(permit) => workers.give(accepted, permit),
                    None => proxy.recorder.connection_refused(),
                }
            };
            tokio::select! {
                () = listen::run(changes, accepted) => {}
                () = asking => {}
                _ = ended.wait_for(|ended| *ended) => {}
            }
        });
    }
}

fn snapshot(
    config: &Config,
    guards: Guards,
    generation: u64,
    quotas: Option<&Quotas>,
    problems: &mut Problems,
) -> Snapshot {
    let access = match &config.authorization {
        Authorization::Off => None,
        Authorization::Enforced { super_users } => {
            Some(PolicySet::new(guards.access, super_users.clone()))
        }
    };
    let directory = match &config.schemas {
        Some(dir) => Directory::load(dir, problems),
        None => Directory::default(),
    };
    Snapshot {
        generation,
        access,
        schemas: SchemaSet::new(guards.schemas, directory, problems),
        quotas: match quotas {
            Some(old) => old.reloaded(guards.quotas),
            None => Quotas::new(guards.quotas),
        },
        short_digest: guards.digest.get(..DIGEST_DIGITS).map(Into::into),
        digest: guards.digest,
        files: guards
            .paths
            .iter()
            .map(|path| path.display().to_string())
            .collect(),
        loaded: clock::wall(),
    }
}

fn listeners(config: &Config, doors: &Doors, problems: &mut Problems) -> Vec<Listener> {
    let mut listeners = Vec::new();
    for (index, listener) in config.listeners.iter().enumerate() {
        let tls = match &listener.net.tls {
            None => None,
            Some(settings) => match crate::net::tls::server_config(settings) {
                Ok(config) => Some(config),
                Err(error) => {
                    say(problems, &error);
                    continue;
                }
            },
        };
        let identity = match &listener.identity {
            IdentitySettings::Static(principal) => Identity::Static(principal.clone()),
            IdentitySettings::Mtls(settings) => Identity::Mtls(settings.clone()),
            IdentitySettings::Sasl(sasl) => {
                let issuers = sasl.oauthbearer.iter();
                let verifiers = issuers.filter_map(|one| verifier(one, problems)).collect();
                let issuers = Issuers::new(verifiers, config.limits.token_bytes);
                Identity::Sasl(Mechanisms {
                    oauthbearer: (!sasl.oauthbearer.is_empty()).then_some(issuers),
                })
            }
        };
        let (net, doors) = (listener.net.clone(), doors.clone());
        listeners.push(Listener::new(index, net, tls, identity, doors));
    }
    listeners
}

fn verifier(settings: &TokenSettings, problems: &mut Problems) -> Option<Verifier> {
    let file = &settings.jwks_file;
    let verifier = crate::config::file::read(file)
        .and_then(|text| Verifier::new(settings, &text).map_err(|error| error.to_string()));
    match verifier {
        Ok(verifier) => Some(verifier),
        Err(error) => {
            problems.error_without_place(format!("`{}`: {error}", file.display()));
            None
        }
    }
}

fn dialer(config: &Config, problems: &mut Problems) -> Option<Dialer> {
    match &config.upstream.tls {
        None => Some(Dialer::new(None)),
        Some(settings) => match crate::net::tls::client_config(settings) {
            Ok(config) => Some(Dialer::new(Some(config))),
            Err(error) => {
                say(problems, &error);
                None
            }
        },
    }
}

fn say(problems: &mut Problems, error: &crate::net::tls::TlsError) {
    let problem = problems.error_without_place(error.to_string());
    if let Some(help) = error.help() {
        problem.help(help);
    }
}

impl StatusSource for Proxy {
    fn listeners(&self) -> Vec<ListenerStatus> {
        let status = |listener: &Listener| ListenerStatus {
            name: listener.name.to_string(),
            bind: listener.settings.bind,
            tls: listener.tls.is_some(),
            identity: listener.identity.name(),
            brokers: listener
                .all_advertised()
                .into_iter()
                .map(|(id, advertised)| BrokerStatus { id, advertised })
                .collect(),
        };
        self.listeners.iter().map(status).collect()
    }

    fn policy(&self) -> PolicyStatus {
        let snapshot = self.snapshot.load();
        PolicyStatus {
            authorization: snapshot.access.is_some(),
            digest: snapshot.digest.clone(),
            generation: snapshot.generation,
            loaded: snapshot.loaded,
            files: snapshot.files.clone(),
        }
    }
}

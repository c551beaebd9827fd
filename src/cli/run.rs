//! `kordon run`: reads the configuration, opens the listeners, and serves until SIGTERM.

mod delivery;
mod files;
mod identities;
mod observed;
mod units;
mod watched;

use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::runtime::{Builder, LocalOptions};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::users::UserTables;
use crate::admin::{
    AdminState, BrokerStatus, IdentityStatus, IssuerStatus, ListenerStatus, PolicyStatus,
    Readiness, StatusSource,
};
use crate::config::{Authorization, Config, Guards};
use crate::identity::issuers::{Issuer, Issuers};
use crate::identity::mechanisms::Mechanisms;
use crate::identity::settings::{IdentitySettings, TokenSettings, TokenSource};
use crate::identity::token::Verifier;
use crate::issuer::desk::Desk;
use crate::net::listen::{self, Doors};
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
use crate::topic_rules::TopicRules;
use crate::upstream::Cluster;
use crate::{apis, clock};

use delivery::Delivery;
use identities::Sources;
use watched::{Unit, Watch, Watched};

/// Why a process that has just started is not ready.
pub(super) const NO_BROKERS: &str = "no list of brokers from the cluster yet";
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
    readiness: Readiness,
    watch: Option<Watch>,
    doors: Doors,
    control: Option<JoinHandle<()>>,
    delivery: Delivery,
    end: watch::Sender<bool>,
    workers: Workers,
}

impl Running {
    /// Reads the configuration and everything it names, and starts to serve. All mistakes are
    /// returned at once.
    pub fn start(path: &Path) -> Result<Running, Problems> {
        let (config, mut guards, mut problems) = Config::load_with_guards(path);
        let Some(config) = config.filter(|_| !problems.has_errors()) else {
            return Err(problems);
        };
        let config = Arc::new(config);
        // Before the files are read, so that a change meanwhile is noticed.
        let units = units::units(&config, guards.take_known());
        let snapshot = snapshot(&config, guards, 1, None, &mut problems);
        let (doors, changes) = listen::doors();
        let users = UserTables::load(&config, &mut problems);
        let recorder = Recorder::new(|key| apis::lookup(key).map(|api| api.name));
        let mut desk = Desk::default();
        let listeners = listeners(&config, &users, &doors, &mut desk, &recorder, &mut problems);
        let identities = identities::identities(&config.upstream, &mut problems);
        let audit = match Audit::start(config.audit.clone(), &recorder) {
            Ok(audit) => Some(audit),
            Err(error) => {
                problems.error_without_place(error.to_string());
                None
            }
        };
        let (Some((identities, sources)), Some(audit), false) =
            (identities, audit, problems.has_errors())
        else {
            return Err(problems);
        };
        let dialer = identities.everybody().dialer.clone();
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
            swapped: watch::Sender::new(snapshot.generation),
            retired: Mutex::default(),
            snapshot: ArcSwap::from_pointee(snapshot),
            cluster: Arc::new(Cluster::new(dialer, config.upstream.bootstrap.clone())),
            identities,
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
        for listener in &proxy.listeners {
            units::listener_expiry(&proxy.recorder, listener);
        }
        identities::expiries(&proxy, &config.upstream);
        Self::serve(proxy, &config, units, desk, doors, changes, sources)
    }

    fn serve(
        proxy: Arc<Proxy>,
        config: &Config,
        units: Vec<Unit>,
        desk: Desk,
        doors: Doors,
        changes: listen::Changes,
        sources: Sources,
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
        let workers = match Workers::start(&proxy, cores.div_ceil(2), changes) {
            Ok(workers) => workers,
            Err(error) => {
                problems.error_without_place(format!("cannot start threads: {error}"));
                return Err(problems);
            }
        };
        if problems.has_errors() {
            return Err(problems);
        }
        let readiness = Readiness::new();
        readiness.not_ready(NO_BROKERS);
        let watched = Watched::new(units, Arc::clone(&proxy), readiness.clone());
        let watch = match Watch::start(watched) {
            Ok(watch) => watch,
            Err(error) => {
                problems.error_without_place(format!("cannot start a thread: {error}"));
                return Err(problems);
            }
        };
        let notes = readiness.clone();
        proxy.audit.watch(move |trouble| match trouble {
            Some(text) => notes.note("audit", text),
            None => notes.clear("audit"),
        });
        let delivery = Delivery::start(&proxy, &config.audit)?;
        let (end, ended) = watch::channel(false);
        let state = AdminState {
            recorder: proxy.recorder.clone(),
            readiness: readiness.clone(),
            source: Arc::clone(&proxy) as _,
        };
        let control = Control {
            proxy: Arc::clone(&proxy),
            desk,
            sources,
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
            readiness,
            watch: Some(watch),
            doors,
            control: Some(control),
            delivery,
            end,
            workers,
        })
    }

    /// Makes everything again that is made of files, changed or not, and opens the audit file
    /// anew. What cannot be made stays as it was, and the log, `/readyz` and a metric say so.
    pub fn reload(&self) {
        self.proxy.audit.reopen();
        self.watch.iter().for_each(Watch::again);
    }

    /// Stops accepting, lets connections finish what they owe, and ends.
    pub fn stop(mut self) {
        tracing::info!("draining");
        self.readiness.not_ready("draining");
        self.watch.take().into_iter().for_each(Watch::stop);
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
        if self.proxy.open.load(Ordering::Relaxed) == 0 {
            self.workers.join();
        }
        self.delivery.end(&self.proxy);
        tracing::info!("ended");
    }
}

/// The thread beside the workers: asks the cluster, and issuers for their keys, and serves the
/// admin endpoint.
struct Control {
    proxy: Arc<Proxy>,
    desk: Desk,
    sources: Sources,
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
            desk,
            sources,
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
            let notes = readiness.clone();
            let issuers = desk.run(move |trouble| match trouble {
                Some(trouble) => notes.note("issuers", trouble),
                None => notes.clear("issuers"),
            });
            for (whom, source) in sources {
                let told = super::tokens::told(&whom, proxy.recorder.clone(), readiness.clone());
                tokio::task::spawn_local(source.run(told));
            }
            let cluster = Arc::clone(&proxy.cluster);
            let asking = async move { cluster.run(|| readiness.ready()).await };
            tokio::select! {
                () = asking => {}
                () = issuers => {}
                _ = ended.wait_for(|ended| *ended) => {}
            }
        });
    }
}

fn snapshot(
    config: &Config,
    guards: Guards,
    generation: u64,
    old: Option<&Snapshot>,
    problems: &mut Problems,
) -> Snapshot {
    let observed_quotas = observed::quotas(&guards, old.map(|old| &old.observed_quotas));
    let (access, shadows) = match &config.authorization {
        Authorization::Off => (None, Vec::new()),
        Authorization::Enforced { super_users } => {
            let shadows = observed::sets(&guards, super_users);
            let rules = PolicySet::new(guards.access, super_users.clone());
            (Some(rules.within(guards.tenants.clone())), shadows)
        }
    };
    let directory = match &config.schemas {
        Some(dir) => Directory::load(dir, problems),
        None => Directory::default(),
    };
    Snapshot {
        generation,
        access,
        shadows,
        tenants: guards.tenants,
        schemas: SchemaSet::new(guards.schemas, directory, problems),
        topic_rules: TopicRules::new(guards.topics),
        observed_topic_rules: TopicRules::new(guards.observing.topics),
        quotas: match old {
            Some(old) => old.quotas.reloaded(guards.quotas),
            None => Quotas::new(guards.quotas),
        },
        observed_quotas,
        short_digest: guards.digest.get(..DIGEST_DIGITS).map(Into::into),
        digest: guards.digest,
        place: Arc::clone(&config.policies_written),
        files: guards
            .paths
            .iter()
            .map(|path| path.display().to_string())
            .collect(),
        loaded: clock::wall(),
    }
}

fn listeners(
    config: &Config,
    users: &UserTables,
    doors: &Doors,
    desk: &mut Desk,
    recorder: &Recorder,
    problems: &mut Problems,
) -> Vec<Listener> {
    let mut listeners = Vec::new();
    for (index, listener) in config.listeners.iter().enumerate() {
        let tls = match &listener.net.tls {
            None => None,
            Some(settings) => match crate::net::tls::Offer::load(settings) {
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
                let name = &listener.net.name;
                let issuers = sasl.oauthbearer.iter();
                let issuers = issuers
                    .filter_map(|one| issuer(one, name, desk, recorder, problems))
                    .collect();
                let issuers = Issuers::asking(issuers, config.limits.token_bytes);
                Identity::Sasl(Mechanisms {
                    oauthbearer: (!sasl.oauthbearer.is_empty()).then_some(issuers),
                    plain: sasl.plain.as_ref().and_then(|one| users.passwords(one)),
                    scram_sha256: sasl
                        .scram_sha256
                        .as_ref()
                        .and_then(|one| users.passwords(one)),
                    scram_sha512: sasl
                        .scram_sha512
                        .as_ref()
                        .and_then(|one| users.passwords(one)),
                })
            }
        };
        let (net, doors) = (listener.net.clone(), doors.clone());
        listeners.push(Listener::new(index, net, tls, identity, doors));
    }
    listeners
}

fn issuer(
    settings: &TokenSettings,
    listener: &str,
    desk: &mut Desk,
    recorder: &Recorder,
    problems: &mut Problems,
) -> Option<Issuer> {
    let (issuer, at) = match &settings.source {
        TokenSource::KeyFile(path) => {
            let verifier = crate::config::file::read(path)
                .and_then(|text| Verifier::new(settings, &text).map_err(|error| error.to_string()));
            let issuer = verifier.map(|verifier| Issuer {
                verifier: Arc::new(verifier),
                asked: None,
            });
            (issuer, path.display().to_string())
        }
        TokenSource::KeyUrl(keys) => {
            let issuer = desk.key_url(listener, settings, keys, recorder);
            let issuer = issuer.map_err(|error| error.to_string());
            (issuer, keys.url.to_string())
        }
        TokenSource::Introspection(asking) => {
            let issuer = desk.introspection(listener, settings, asking, recorder);
            let issuer = issuer.map_err(|error| error.to_string());
            (issuer, asking.url.to_string())
        }
    };
    match issuer {
        Ok(issuer) => Some(issuer),
        Err(error) => {
            problems.error_without_place(format!("`{at}`: {error}"));
            None
        }
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
            issuers: issuer_status(listener),
            brokers: listener
                .all_advertised()
                .into_iter()
                .map(|(id, advertised)| BrokerStatus { id, advertised })
                .collect(),
        };
        self.listeners.iter().map(status).collect()
    }

    fn upstream(&self) -> Vec<IdentityStatus> {
        identities::status(&self.identities)
    }

    fn policy(&self) -> PolicyStatus {
        let snapshot = self.snapshot.load();
        PolicyStatus {
            authorization: snapshot.access.is_some(),
            digest: snapshot.digest.clone(),
            generation: snapshot.generation,
            loaded: snapshot.loaded,
            files: snapshot.files.clone(),
            shadows: observed::status(&snapshot),
        }
    }
}

fn issuer_status(listener: &Listener) -> Vec<IssuerStatus> {
    let Identity::Sasl(Mechanisms {
        oauthbearer: Some(issuers),
        ..
    }) = &listener.identity
    else {
        return Vec::new();
    };
    let status = |verifier: &Arc<Verifier>| {
        let confirmed = verifier.keys_confirmed();
        let age = confirmed.map(|at| clock::wall().duration_since(at).unwrap_or_default());
        IssuerStatus {
            issuer: verifier.settings().issuer.clone(),
            tokens: match verifier.settings().source {
                TokenSource::KeyFile(_) => "keys from a file",
                TokenSource::KeyUrl(_) => "keys from a URL",
                TokenSource::Introspection(_) => "introspection",
            },
            keys: verifier.key_count(),
            keys_age_seconds: age.map(|age| age.as_secs()),
        }
    };
    issuers.verifiers().map(status).collect()
}

//! What the configuration makes of files, for the start and for every change after it. A new
//! kind of file is a unit of three lines here.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::watched::Unit;
use super::{identities, say, snapshot};
use crate::clock;
use crate::config::guards::{self, KnownFiles};
use crate::config::{self, Config, file};
use crate::identity::settings::{IdentitySettings, TokenSource};
use crate::net::settings::ServerTls;
use crate::net::tls::Offer;
use crate::problem::Problems;
use crate::proxy::Proxy;
use crate::proxy::listener::{Identity, Listener};
use crate::telemetry::{Expiring, PolicyInForce, Recorder, Reloaded};

/// How long before its end a certificate is warned of.
const EXPIRY_WARNING: Duration = Duration::from_secs(24 * 60 * 60);

/// Every unit, with the state of its files now; `known`: what was read of the policies.
pub(super) fn units(config: &Arc<Config>, known: KnownFiles) -> Vec<Unit> {
    let mut units = vec![policies(config, known)];
    let mut users: Vec<PathBuf> = Vec::new();
    for (index, listener) in config.listeners.iter().enumerate() {
        let name = &listener.net.name;
        if let Some(settings) = listener.net.tls.clone() {
            let subject = format!("tls of listener `{name}`");
            let paths = server_files(&settings);
            units.push(Unit::new(
                Reloaded::ListenerTls,
                subject,
                paths,
                move |proxy, problems| listener_tls(proxy, index, &settings, problems),
            ));
        }
        let IdentitySettings::Sasl(sasl) = &listener.identity else {
            continue;
        };
        let passwords = [&sasl.plain, &sasl.scram_sha256, &sasl.scram_sha512];
        for settings in passwords.into_iter().flatten() {
            let file = settings.users_file.clone();
            if users.contains(&file) {
                continue;
            }
            users.push(file.clone());
            units.push(Unit::new(
                Reloaded::Users,
                format!("users of `{}`", file.display()),
                vec![file.clone()],
                move |proxy, problems| users_of(proxy, &file, problems),
            ));
        }
        for (at, settings) in sasl.oauthbearer.iter().cloned().enumerate() {
            let subject = format!("keys of `{}` at listener `{name}`", settings.issuer);
            let TokenSource::KeyFile(path) = settings.source else {
                continue; // the issuer is asked, and watches itself
            };
            units.push(Unit::new(
                Reloaded::Keys,
                subject,
                vec![path.clone()],
                move |proxy, problems| keys(proxy, (index, at), &path, problems),
            ));
        }
    }
    units.extend(identities::units(&config.upstream));
    units
}

fn policies(config: &Arc<Config>, mut known: KnownFiles) -> Unit {
    let paths = config.policies.iter().chain(&config.schemas);
    let paths = paths.chain(&config.shadow);
    let (paths, config) = (paths.cloned().collect(), Arc::clone(config));
    let subject = match config.shadow {
        // Both are taken or neither.
        Some(_) => "policies and shadow set",
        None => "policies",
    };
    Unit::new(
        Reloaded::Policies,
        subject,
        paths,
        move |proxy, problems| {
            let (policies, shadow) = (config.policies.as_deref(), config.shadow.as_deref());
            let mut guards = guards::load_beside(policies, shadow, &known, problems);
            known = guards.take_known();
            let digest = guards.shadow.as_ref().map(|shadow| shadow.digest.clone());
            if config.schemas.is_none() {
                guards.need_schemas(problems);
            }
            let old = proxy.snapshot.load_full();
            let generation = old.generation + 1;
            let new = snapshot(&config, guards, generation, Some(&old), problems);
            if problems.has_errors() {
                return;
            }
            let loaded = new.loaded;
            tracing::info!(
                digest = new.digest,
                shadow = digest,
                generation,
                "policies in force"
            );
            proxy.enforce(new);
            let in_force = PolicyInForce { generation, loaded };
            proxy.recorder.policy_in_force(in_force);
        },
    )
}

fn server_files(settings: &ServerTls) -> Vec<PathBuf> {
    let own = [&settings.cert, &settings.key].into_iter();
    let clients = settings.client_ca.iter().chain(&settings.crl);
    own.chain(clients).cloned().collect()
}

fn listener_tls(proxy: &Proxy, index: usize, settings: &ServerTls, problems: &mut Problems) {
    let Some(listener) = proxy.listeners.get(index) else {
        return;
    };
    match Offer::load(settings) {
        Ok(offer) => {
            if let Some(current) = &listener.tls {
                current.send_replace(Arc::new(offer));
            }
            listener_expiry(&proxy.recorder, listener);
        }
        Err(error) => say(problems, &error),
    }
}

fn keys(proxy: &Proxy, (listener, issuer): (usize, usize), path: &Path, problems: &mut Problems) {
    let Some(Identity::Sasl(offered)) = proxy.listeners.get(listener).map(|one| &one.identity)
    else {
        return;
    };
    let issuers = offered.oauthbearer.as_ref();
    let Some(verifier) = issuers.and_then(|all| all.verifiers().nth(issuer)) else {
        return;
    };
    let replaced = file::read(path).and_then(|text| {
        verifier
            .replace_keys(&text)
            .map_err(|error| error.to_string())
    });
    if let Err(error) = replaced {
        problems.error_without_place(format!("`{}`: {error}", path.display()));
    }
}

/// Listeners that name one file share its table.
fn users_of(proxy: &Proxy, file: &Path, problems: &mut Problems) {
    let offered = proxy
        .listeners
        .iter()
        .filter_map(|one| match &one.identity {
            Identity::Sasl(offered) => Some(offered),
            _ => None,
        });
    let mut passwords = offered.flat_map(|one| [&one.plain, &one.scram_sha256, &one.scram_sha512]);
    let table = passwords.find_map(|one| one.as_ref().filter(|one| one.users.file() == file));
    if let Some(table) = table {
        config::users::reload(&table.users, problems);
    }
}

/// Shows when a listener's certificate and lists end, and warns if that is soon.
pub(super) fn listener_expiry(recorder: &Recorder, listener: &Listener) {
    let Some(offer) = listener.tls.as_ref().map(|tls| Arc::clone(&tls.borrow())) else {
        return;
    };
    expiry(recorder, Expiring::Listener, &listener.name, offer.expires);
    let lists = offer.lists_expire;
    expiry(recorder, Expiring::RevocationList, &listener.name, lists);
}

/// Shows when one certificate or list ends, and warns if that is soon.
pub(super) fn expiry(
    recorder: &Recorder,
    what: Expiring,
    listener: &str,
    ends: Option<SystemTime>,
) {
    recorder.expiry(what, listener, ends);
    let Some(ends) = ends else { return };
    let left = ends.duration_since(clock::wall()).unwrap_or_default();
    if left < EXPIRY_WARNING {
        let (what, minutes) = (what.as_str(), left.as_secs() / 60);
        let listener = (!listener.is_empty()).then_some(listener);
        match left.is_zero() {
            true => tracing::warn!(what, listener, "a certificate or list has expired"),
            false => tracing::warn!(what, listener, minutes, "a certificate or list ends soon"),
        }
    }
}

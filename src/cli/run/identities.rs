//! As whom broker connections are opened: from the configuration and its files, at the start and
//! when the files change, and for the status page.

use std::path::PathBuf;

use super::say;
use super::units;
use super::watched::Unit;
use crate::admin::IdentityStatus;
use crate::config::Upstream;
use crate::issuer::token::TokenSource;
use crate::net::settings::ClientTls;
use crate::net::tls;
use crate::problem::Problems;
use crate::proxy::Proxy;
use crate::telemetry::{Expiring, Reloaded};
use crate::upstream::dial::Dialer;
use crate::upstream::identities::{Identities, Identity, UpstreamIdentity, Whom};
use crate::upstream::sasl::{Credentials, Settings};

/// What fetches tokens, and for whose connections.
pub(super) type Sources = Vec<(Whom, TokenSource)>;

/// All identities, and what is to run so that they have their tokens.
pub(super) fn identities(
    upstream: &Upstream,
    problems: &mut Problems,
) -> Option<(Identities, Sources)> {
    let tls = upstream.tls.as_ref();
    let bare = dialer(tls, problems);
    // Read even where the default cannot be made: all mistakes are reported at once.
    let own = upstream.identities.iter();
    let own: Vec<_> = own
        .map(|one| own_tls(upstream, one).map(|tls| dialer(Some(&tls), problems)))
        .collect();
    let bare = bare?;
    let mut sources = Sources::new();
    let mut supply = |dialer: Dialer, whom: &Whom, sasl: &Settings| {
        let (credentials, source) = sasl.credentials();
        sources.extend(source.map(|source| (whom.clone(), source)));
        dialer.with_credentials(credentials)
    };
    let everybody = match &upstream.sasl {
        Some(sasl) => supply(bare, &Whom::Everybody, sasl),
        None => bare.with_credentials(Credentials::None),
    };
    let default = Identity::new(Whom::Everybody, everybody.clone(), upstream.sasl.as_ref());
    let mut special = Vec::new();
    for (one, own) in upstream.identities.iter().zip(own) {
        // A clone has the same TLS, also after a change of its files, and the same token.
        let is_own = own.is_some();
        let dialer = match own {
            Some(own) => own?.with_credentials(everybody.credentials().clone()),
            None => everybody.clone(),
        };
        let dialer = match &one.sasl {
            Some(sasl) => supply(dialer, &one.whom, sasl),
            None => dialer,
        };
        let sasl = one.sasl.as_ref().or(upstream.sasl.as_ref());
        let identity = Identity::new(one.whom.clone(), dialer, sasl);
        special.push(match is_own {
            true => identity,
            false => identity.with_subject_of(&default),
        });
    }
    Some((Identities::new(default, special), sources))
}

fn dialer(tls: Option<&ClientTls>, problems: &mut Problems) -> Option<Dialer> {
    match tls.map(tls::client_config).transpose() {
        Ok(config) => Some(Dialer::new(config)),
        Err(error) => {
            say(problems, &error);
            None
        }
    }
}

/// TLS of an entry that shows a certificate of its own.
fn own_tls(upstream: &Upstream, one: &UpstreamIdentity) -> Option<ClientTls> {
    let tls = upstream.tls.as_ref()?;
    Some(ClientTls {
        ca: tls.ca.clone(),
        identity: Some(one.certificate.clone()?),
    })
}

/// What is made again when files change.
pub(super) fn units(upstream: &Upstream) -> Vec<Unit> {
    let mut units = Vec::new();
    let everybody = upstream.tls.clone().map(|tls| (None, Whom::Everybody, tls));
    let special = upstream.identities.iter().enumerate();
    let special =
        special.filter_map(|(at, one)| Some((Some(at), one.whom.clone(), own_tls(upstream, one)?)));
    for (at, whom, settings) in everybody.into_iter().chain(special) {
        let subject = match whom {
            Whom::Everybody => "tls of the upstream".to_owned(),
            whom => format!("tls of the upstream for {whom}"),
        };
        let paths = files(&settings);
        let rebuild = move |proxy: &Proxy, problems: &mut Problems| {
            let identities = &proxy.identities;
            let identity = match at {
                None => Some(identities.everybody()),
                Some(at) => identities.get(at),
            };
            let Some(identity) = identity else { return };
            match tls::client_config(&settings) {
                Ok(config) => {
                    identity.dialer.replace_tls(config);
                    expiry(proxy, identity, &settings);
                }
                Err(error) => say(problems, &error),
            }
        };
        units.push(Unit::new(Reloaded::UpstreamTls, subject, paths, rebuild));
    }
    units
}

fn files(settings: &ClientTls) -> Vec<PathBuf> {
    let own = settings.identity.iter().flat_map(|(cert, key)| [cert, key]);
    own.chain(&settings.ca).cloned().collect()
}

/// Shows when the certificates that are shown to brokers end, and warns if that is soon.
pub(super) fn expiries(proxy: &Proxy, upstream: &Upstream) {
    if let Some(settings) = &upstream.tls {
        expiry(proxy, proxy.identities.everybody(), settings);
    }
    for (at, one) in upstream.identities.iter().enumerate() {
        if let (Some(identity), Some(settings)) = (proxy.identities.get(at), own_tls(upstream, one))
        {
            expiry(proxy, identity, &settings);
        }
    }
}

fn expiry(proxy: &Proxy, identity: &Identity, settings: &ClientTls) {
    let certificate = settings.identity.as_ref().map(|(cert, _)| cert);
    let shown = certificate.and_then(|path| tls::shown(path).ok());
    let (ends, subject) = shown.unwrap_or_default();
    let whom = match &identity.whom {
        Whom::Everybody => String::new(),
        whom => whom.to_string(),
    };
    identity.replace_subject(subject);
    units::expiry(&proxy.recorder, Expiring::Upstream, &whom, ends);
}

/// What the status page shows.
pub(super) fn status(identities: &Identities) -> Vec<IdentityStatus> {
    let status = |one: &Identity| IdentityStatus {
        whose: one.whom.kind(),
        names: one.whom.names().to_vec(),
        mechanism: one.mechanism,
        name: match one.mechanism {
            Some(_) => one
                .name
                .clone()
                .or_else(|| Some("the client's own token".to_owned())),
            None => None,
        },
        certificate: one.subject(),
    };
    identities.all().map(status).collect()
}

#[cfg(test)]
mod tests;

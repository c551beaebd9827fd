//! `oauthbearer.jwks` and `oauthbearer.introspection`: where an issuer's keys come from, or how
//! it is asked about tokens.

use std::path::PathBuf;
use std::time::Duration;

use super::identity::Source;
use super::outside;
use super::read::Paths;
use crate::document::{Fields, Node};
use crate::identity::settings::{Introspection, KeyUrl, TokenSettings, TokenSource};
use crate::net::http::Url;
use crate::problem::Problems;

/// How long keys are believed without the issuer where `maxStale` is not given.
const STALE_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// The least that `maxStale` may be: keys are fetched again before.
const STALE_MAX_LEAST: Duration = Duration::from_secs(60);
/// The most: whoever leaves or is revoked must be forgotten one day.
const STALE_MAX_MOST: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// How long an answer about a token is believed where `cacheFor` is not given.
const CACHE_FOR: Duration = Duration::from_secs(60);
/// The most that `cacheFor` may be: for so long a revoked token is good.
const CACHE_FOR_MOST: Duration = Duration::from_secs(60 * 60);

/// `jwks: {url: …}` or `jwks: {file: …}`.
pub(super) fn keys(node: &Node, paths: &Paths, problems: &mut Problems) -> Option<TokenSource> {
    let mut fields = Fields::of(node, problems)?;
    let (url, file) = (fields.take("url"), fields.take("file"));
    let misspelt = fields.misspelt("url") || fields.misspelt("file");
    let with_url = ["ca", "cacheFile", "maxStale"].map(|key| (key, fields.entry(key)));
    fields.finish(problems);
    match (url, file) {
        (Some(url), None) => {
            let [ca, cache_file, stale_max] =
                with_url.map(|(_, entry)| entry.map(|entry| &entry.value));
            let stale_max = stale_max.map_or(Some(STALE_MAX), |n| {
                duration(n, STALE_MAX_LEAST..=STALE_MAX_MOST, problems)
            });
            let cache_file = cache_file.map(|n| paths.output(n, problems));
            let (url, ca) = address(url, ca, paths, problems);
            Some(TokenSource::KeyUrl(KeyUrl {
                url: url?,
                ca: ca?,
                cache_file: match cache_file {
                    Some(path) => Some(path?),
                    None => None,
                },
                stale_max: stale_max?,
            }))
        }
        (None, Some(file)) => {
            for (key, entry) in with_url {
                if let Some(entry) = entry {
                    let message = format!("`{key}` goes with `jwks.url`, not with a file");
                    problems.error(&entry.place, message);
                }
            }
            Some(TokenSource::KeyFile(paths.file(file, problems)?))
        }
        (None, None) if misspelt => None,
        _ => {
            problems
                .error(&node.place, "expected exactly one of `url` and `file`")
                .help("for example `jwks: {url: https://idp.example/realms/prod/jwks}`");
            None
        }
    }
}

/// `introspection: {url: …, clientId: …, clientSecret: …}`.
pub(super) fn introspection(
    node: &Node,
    paths: &Paths,
    problems: &mut Problems,
) -> Option<TokenSource> {
    let mut fields = Fields::of(node, problems)?;
    let url = fields.require("url", problems);
    let client_id = fields.require("clientId", problems);
    let client_secret = fields.require("clientSecret", problems);
    let ca = fields.take("ca");
    let cache_for = fields.take("cacheFor");
    fields.finish(problems);
    let client_id = client_id.and_then(|n| n.name(problems));
    let client_secret = client_secret.and_then(|n| outside::secret(n, paths, problems));
    let cache_for = cache_for.map_or(Some(CACHE_FOR), |n| {
        duration(n, Duration::ZERO..=CACHE_FOR_MOST, problems)
    });
    let (url, ca) = address(url?, ca, paths, problems);
    Some(TokenSource::Introspection(Introspection {
        url: url?,
        ca: ca?,
        client_id: client_id?.to_owned(),
        client_secret: client_secret?,
        cache_for: cache_for?,
    }))
}

/// Where to ask, and whom to trust there.
fn address(
    url: &Node,
    ca: Option<&Node>,
    paths: &Paths,
    problems: &mut Problems,
) -> (Option<Url>, Option<Option<PathBuf>>) {
    let url = outside::url(url, problems);
    if let (Some(url), Some(ca)) = (&url, ca)
        && !url.is_tls()
    {
        let message = "`ca` has no effect without TLS: the URL begins with `http://`";
        problems.error(&ca.place, message);
    }
    let ca = match ca {
        Some(node) => paths.file(node, problems).map(Some),
        None => Some(None),
    };
    (url, ca)
}

fn duration(
    node: &Node,
    range: std::ops::RangeInclusive<Duration>,
    problems: &mut Problems,
) -> Option<Duration> {
    let duration = node.duration(problems)?;
    if range.contains(&duration) {
        return Some(duration);
    }
    let shown = |duration: &Duration| format!("`{}s`", duration.as_secs());
    let (least, most) = (shown(range.start()), shown(range.end()));
    node.expected(&format!("a duration from {least} to {most}"), problems);
    None
}

/// What tells one source from another of the same issuer.
pub(super) fn named(source: &TokenSource) -> String {
    match source {
        TokenSource::KeyFile(path) => path.display().to_string(),
        TokenSource::KeyUrl(keys) => keys.url.to_string(),
        TokenSource::Introspection(asking) => asking.url.to_string(),
    }
}

/// Where an issuer's keys are kept, and whose and from where they are.
pub(super) struct CacheFile {
    path: PathBuf,
    who: String,
}

impl CacheFile {
    pub(super) fn of(settings: &TokenSettings) -> Option<CacheFile> {
        let TokenSource::KeyUrl(keys) = &settings.source else {
            return None;
        };
        Some(CacheFile {
            path: keys.cache_file.clone()?,
            who: format!("{} {}", settings.issuer, keys.url),
        })
    }
}

/// Two issuers that write to one file would each find the other's keys there.
pub(super) fn check_cache_files(sources: &[Source], problems: &mut Problems) {
    for (at, source) in sources.iter().enumerate() {
        let Some(cache) = &source.cache else {
            continue;
        };
        let meets = |other: &CacheFile| other.path == cache.path && other.who != cache.who;
        let mut earlier = sources.iter().take(at);
        let other = earlier.find(|other| other.cache.as_ref().is_some_and(meets));
        if let Some(other) = other {
            let message = format!(
                "the `cacheFile` of this issuer is also that of the one on line {}",
                other.place.line
            );
            problems
                .error(&source.place, message)
                .help("give each issuer a file of its own");
        }
    }
}

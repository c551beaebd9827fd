//! As whom a client's broker connection is opened (`upstream.identities`): by its principal, else
//! by the listener it came through, else as everybody. What an entry leaves out (the client
//! certificate, or SASL) is everybody's.

use std::collections::HashMap;
use std::fmt::{self, Display};
use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwapOption;

use super::dial::Dialer;
use super::sasl::{Credentials, Settings};

/// How many entries `upstream.identities` may have: each may keep a token of its own.
pub const IDENTITIES_MAX: usize = 64;
/// How many names of an entry stand in a log line or a note.
const NAMES_SHOWN: usize = 3;

/// Whose broker connections an identity opens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whom {
    /// Those that no other entry names, and the proxy's own.
    Everybody,
    /// Those of clients that came through these listeners.
    Listeners(Vec<String>),
    /// Those of these principals (`User:name`), through whatever listener they came.
    Principals(Vec<String>),
}

impl Whom {
    /// The names as they are configured.
    pub fn names(&self) -> &[String] {
        match self {
            Whom::Everybody => &[],
            Whom::Listeners(names) | Whom::Principals(names) => names,
        }
    }

    /// One word for each of the three.
    pub fn kind(&self) -> &'static str {
        match self {
            Whom::Everybody => "everybody",
            Whom::Listeners(_) => "listeners",
            Whom::Principals(_) => "principals",
        }
    }
}

/// The kind and the first few names.
impl Display for Whom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind())?;
        let names = self.names();
        for (at, name) in names.iter().take(NAMES_SHOWN).enumerate() {
            let before = if at == 0 { " " } else { ", " };
            write!(f, "{before}`{name}`")?;
        }
        match names.len().saturating_sub(NAMES_SHOWN) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

/// What the configuration says of one entry; at least one of the two is there.
#[derive(Clone, Debug)]
pub struct UpstreamIdentity {
    /// Whose connections it opens.
    pub whom: Whom,
    /// The client certificate and its key, in place of everybody's.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// SASL, in place of everybody's.
    pub sasl: Option<Settings>,
}

/// An identity in use.
pub struct Identity {
    /// Whose connections it opens.
    pub whom: Whom,
    /// Opens them.
    pub dialer: Dialer,
    /// The mechanism of SASL; `None`: there is none.
    pub mechanism: Option<&'static str>,
    /// The name that SASL proves, where that is known beforehand.
    pub name: Option<String>,
    /// Of the client certificate, as the file says now; one for all that show the same.
    subject: Arc<ArcSwapOption<String>>,
}

impl Identity {
    /// Of this dialer, which has what `sasl` means.
    pub fn new(whom: Whom, dialer: Dialer, sasl: Option<&Settings>) -> Identity {
        Identity {
            whom,
            dialer,
            mechanism: sasl.map(Settings::mechanism),
            name: sasl.and_then(Settings::name).map(str::to_owned),
            subject: Arc::default(),
        }
    }

    /// The same certificate as `other`'s, now and after a change of its files.
    pub fn with_subject_of(self, other: &Identity) -> Identity {
        let subject = Arc::clone(&other.subject);
        Identity { subject, ..self }
    }

    /// The subject of the client certificate; `None`: none is shown, or it names nobody.
    pub fn subject(&self) -> Option<String> {
        self.subject.load().as_deref().cloned()
    }

    /// The certificate that is shown from now on.
    pub fn replace_subject(&self, subject: Option<String>) {
        self.subject.store(subject.map(Arc::new));
    }

    fn forwards(&self) -> bool {
        matches!(self.dialer.credentials(), Credentials::Forward)
    }
}

/// All identities of the process.
pub struct Identities {
    everybody: Identity,
    /// In the order of the configuration.
    special: Vec<Identity>,
    principals: HashMap<String, usize>,
    listeners: HashMap<String, usize>,
}

impl Identities {
    /// Everybody's, and the entries in the order of the configuration. No name stands twice.
    pub fn new(everybody: Identity, special: Vec<Identity>) -> Identities {
        let (mut principals, mut listeners) = (HashMap::new(), HashMap::new());
        for (at, identity) in special.iter().enumerate() {
            let names = match &identity.whom {
                Whom::Everybody => continue,
                Whom::Principals(_) => &mut principals,
                Whom::Listeners(_) => &mut listeners,
            };
            names.extend(identity.whom.names().iter().map(|name| (name.clone(), at)));
        }
        Identities {
            everybody,
            special,
            principals,
            listeners,
        }
    }

    /// As whom the connection of `principal` is opened, who came through `listener`. A principal
    /// says more of a client than the listener it shares with others.
    pub fn choose(&self, listener: &str, principal: &str) -> &Identity {
        let at = self.principals.get(principal);
        let at = at.or_else(|| self.listeners.get(listener));
        at.and_then(|at| self.special.get(*at))
            .unwrap_or(&self.everybody)
    }

    /// Whether any client's own token is sent on.
    pub fn forward(&self) -> bool {
        self.all().any(Identity::forwards)
    }

    /// The entry at this place of the configuration.
    pub fn get(&self, at: usize) -> Option<&Identity> {
        self.special.get(at)
    }

    /// Everybody's.
    pub fn everybody(&self) -> &Identity {
        &self.everybody
    }

    /// Everybody's, then the others in the order of the configuration.
    pub fn all(&self) -> impl Iterator<Item = &Identity> {
        std::iter::once(&self.everybody).chain(&self.special)
    }
}

#[cfg(test)]
mod tests;

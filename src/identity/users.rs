//! Users who prove themselves by a password, for SASL/PLAIN and SCRAM: the table of a users file
//! and what a mechanism makes of an entry. The table can be swapped while connections look users
//! up; reading its file is `config`'s.

use std::collections::HashMap;
use std::fmt;
use std::hash::BuildHasher as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::identity::issuers::Proven;
use crate::identity::plain::PlainMessage;
use crate::identity::scram::{ClientFirst, Credential, Hash, ScramError, ServerExchange};
use crate::principal::{Principal, Proof, TextClaims};

/// How many users one file may hold.
pub const USERS_MAX: usize = 10_000;

/// An entry of a users file.
#[derive(Clone, Debug)]
pub struct User {
    /// The name, as the client says it.
    pub name: String,
    /// The tenant; `None`: the mechanism's.
    pub tenant: Option<String>,
    /// The groups.
    pub groups: Arc<[Arc<str>]>,
    /// At least one, no two of one hash.
    pub credentials: Vec<Credential>,
}

impl User {
    /// The credential for a SCRAM mechanism.
    pub fn credential(&self, hash: Hash) -> Option<&Credential> {
        self.credentials.iter().find(|one| one.hash() == hash)
    }
}

/// The entries of a users file.
#[derive(Default)]
pub struct Users {
    list: Vec<User>,
    /// Index into `list`.
    by_name: HashMap<String, usize>,
}

/// Does not show who there is.
impl fmt::Debug for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} users", self.list.len())
    }
}

impl Users {
    /// A table of users with different names.
    pub fn new(list: Vec<User>) -> Self {
        let names = list.iter().enumerate();
        let by_name = names.map(|(at, user)| (user.name.clone(), at)).collect();
        Self { list, by_name }
    }

    fn find(&self, name: &str) -> Option<&User> {
        self.list.get(*self.by_name.get(name)?)
    }

    /// Whose credential is computed where nobody has this name, so that an answer takes as long
    /// as for a user who is there. The same one for the same name: an average over many tries
    /// would show the difference otherwise.
    fn decoy(&self, name: &str) -> Option<&User> {
        let hash = self.by_name.hasher().hash_one(name);
        let count = u64::try_from(self.list.len()).ok()?;
        let at = usize::try_from(hash.checked_rem(count)?).ok()?;
        self.list.get(at)
    }
}

/// The users of a file that may change while the process runs.
#[derive(Debug)]
pub struct UserTable {
    /// The file.
    file: PathBuf,
    /// Of which hashes every user must have a credential.
    hashes: Vec<Hash>,
    users: ArcSwap<Users>,
}

impl UserTable {
    /// A table of what the file held when it was read.
    pub fn new(file: PathBuf, hashes: Vec<Hash>, users: Users) -> Self {
        let users = ArcSwap::from_pointee(users);
        Self {
            file,
            hashes,
            users,
        }
    }

    /// The file.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Of which hashes every user must have a credential.
    pub fn hashes(&self) -> &[Hash] {
        &self.hashes
    }

    /// From now on these are the users.
    pub fn replace(&self, users: Users) {
        self.users.store(Arc::new(users));
    }
}

/// Why a password proves nothing. For the audit log; the client learns less.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PasswordError {
    /// Nobody has this name.
    #[error("user is unknown")]
    Unknown,
    /// The password is another one.
    #[error("password is wrong")]
    Wrong,
    /// The client wants to act as somebody else.
    #[error("authorization id differs from the user")]
    Authzid,
    /// The user would be a delegation token (KIP-48).
    #[error("delegation tokens are not known")]
    DelegationToken,
    /// A message of SCRAM is wrong.
    #[error(transparent)]
    Scram(#[from] ScramError),
}

/// What a mechanism with passwords needs.
#[derive(Clone, Debug)]
pub struct Passwords {
    /// Who there is.
    pub users: Arc<UserTable>,
    /// What is put before each name.
    pub prefix: String,
    /// The tenant of users whose entry names none; empty: none.
    pub tenant: String,
    /// The longest session (KIP-368).
    pub session_max: Option<Duration>,
}

/// A SCRAM exchange whose client has still to prove itself.
#[derive(Debug)]
pub struct ScramLogin {
    exchange: ServerExchange,
    proven: Proven,
}

impl ScramLogin {
    /// Who the client is, and the server's last message.
    pub fn finish(self, client_final: &[u8]) -> Result<(Proven, String), PasswordError> {
        let last = self.exchange.finish(client_final)?;
        Ok((self.proven, last))
    }
}

impl Passwords {
    /// SASL/PLAIN: takes as long as the user's iterations ask for, known or not.
    pub fn verify(&self, message: &PlainMessage) -> Result<Proven, PasswordError> {
        let users = self.users.users.load_full();
        let user = users.find(&message.user);
        let computed = user.or_else(|| users.decoy(&message.user));
        let credential = computed.and_then(|user| user.credentials.first());
        let good = credential.is_some_and(|one| one.verify(message.password.text()));
        let user = user.ok_or(PasswordError::Unknown)?;
        if !good {
            return Err(PasswordError::Wrong);
        }
        if message.authzid.as_ref().is_some_and(|a| *a != user.name) {
            return Err(PasswordError::Authzid);
        }
        Ok(self.proven(user))
    }

    /// SCRAM: the server's first message to a user. `nonce` is fresh.
    pub fn challenge(
        &self,
        hash: Hash,
        first: &ClientFirst,
        nonce: &str,
    ) -> Result<(ScramLogin, String), PasswordError> {
        if first.token_auth {
            return Err(PasswordError::DelegationToken);
        }
        let users = self.users.users.load();
        let user = users.find(&first.user).ok_or(PasswordError::Unknown)?;
        let credential = user.credential(hash).ok_or(PasswordError::Unknown)?;
        if first.authzid.as_ref().is_some_and(|a| *a != user.name) {
            return Err(PasswordError::Authzid);
        }
        let (exchange, message) = ServerExchange::begin(first, credential, nonce);
        let proven = self.proven(user);
        Ok((ScramLogin { exchange, proven }, message))
    }

    fn proven(&self, user: &User) -> Proven {
        let tenant = user.tenant.as_deref().unwrap_or(&self.tenant);
        Proven {
            principal: Principal {
                name: format!("User:{}{}", self.prefix, user.name).into(),
                tenant: tenant.into(),
                groups: Arc::clone(&user.groups),
                proof: Proof::Password,
                expires_at: None,
            },
            claims: TextClaims::default(),
            session_max: self.session_max,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;
    use crate::identity::plain;
    use crate::identity::scram::ScramClient;

    fn passwords() -> Passwords {
        let iterations = NonZeroU32::new(4096).unwrap();
        let user = |name: &str, hash, tenant: Option<&str>| User {
            name: name.to_owned(),
            tenant: tenant.map(str::to_owned),
            groups: ["batch".into()].into(),
            credentials: vec![Credential::of_password(hash, "right", b"salt", iterations)],
        };
        let users = Users::new(vec![
            user("old", Hash::Sha256, None),
            user("new", Hash::Sha512, Some("shop")),
        ]);
        Passwords {
            users: Arc::new(UserTable::new("users.yaml".into(), Vec::new(), users)),
            prefix: "p-".to_owned(),
            tenant: "mesh".to_owned(),
            session_max: Some(Duration::from_secs(60)),
        }
    }

    fn say(passwords: &Passwords, message: &str) -> Result<Proven, PasswordError> {
        passwords.verify(&plain::parse(message.as_bytes()).unwrap())
    }

    #[test]
    fn a_password_proves_the_user_of_the_file() {
        let passwords = passwords();
        let proven = say(&passwords, "\0old\0right").unwrap();
        assert_eq!(&*proven.principal.name, "User:p-old");
        assert_eq!(&*proven.principal.tenant, "mesh");
        assert_eq!(proven.principal.proof, Proof::Password);
        assert_eq!(proven.session_max, Some(Duration::from_secs(60)));
        let proven = say(&passwords, "new\0new\0right").unwrap();
        assert_eq!(&*proven.principal.tenant, "shop");
        assert_eq!(&*proven.principal.groups, ["batch".into()]);
    }

    #[test]
    fn everything_else_proves_nothing() {
        let passwords = passwords();
        for (message, error) in [
            ("\0old\0wrong", PasswordError::Wrong),
            ("\0nobody\0right", PasswordError::Unknown),
            ("\0p-old\0right", PasswordError::Unknown),
            ("\0OLD\0right", PasswordError::Unknown),
            ("new\0old\0right", PasswordError::Authzid),
            // Who wants to be somebody else first proves who it is.
            ("new\0old\0wrong", PasswordError::Wrong),
        ] {
            assert_eq!(say(&passwords, message), Err(error), "{message:?}");
        }
        passwords.users.replace(Users::default());
        let nobody = say(&passwords, "\0old\0right");
        assert_eq!(nobody, Err(PasswordError::Unknown));
    }

    #[test]
    fn scram_takes_the_credential_of_its_hash() {
        let passwords = passwords();
        let first = |user| {
            let (client, message) = ScramClient::first(Hash::Sha512, user, "c");
            (client, ClientFirst::parse(message.as_bytes()).unwrap())
        };
        let (mut client, message) = first("new");
        let (login, challenge) = passwords.challenge(Hash::Sha512, &message, "s").unwrap();
        let proof = client.second(challenge.as_bytes(), "right").unwrap();
        let (proven, last) = login.finish(proof.as_bytes()).unwrap();
        assert_eq!(client.finish(last.as_bytes()), Ok(()));
        assert_eq!(&*proven.principal.name, "User:p-new");
        for (hash, user) in [
            (Hash::Sha512, "old"),
            (Hash::Sha256, "new"),
            (Hash::Sha512, "nobody"),
        ] {
            let refused = passwords.challenge(hash, &first(user).1, "s").unwrap_err();
            assert_eq!(refused, PasswordError::Unknown, "{user}");
        }
        let token = ClientFirst::parse(b"n,,n=new,r=c,tokenauth=true").unwrap();
        let refused = passwords.challenge(Hash::Sha512, &token, "s").unwrap_err();
        assert_eq!(refused, PasswordError::DelegationToken);
        let other = ClientFirst::parse(b"n,a=old,n=new,r=c").unwrap();
        let refused = passwords.challenge(Hash::Sha512, &other, "s").unwrap_err();
        assert_eq!(refused, PasswordError::Authzid);
    }
}

//! The users of a running proxy: tables that listeners share where they name one file.

use std::path::Path;
use std::sync::Arc;

use crate::config::{Config, users};
use crate::identity::mechanisms::Mechanism;
use crate::identity::scram::Hash;
use crate::identity::settings::{IdentitySettings, PasswordSettings};
use crate::identity::users::{Passwords, UserTable};
use crate::problem::Problems;

/// Every users file of a configuration, read once.
pub struct UserTables {
    list: Vec<Arc<UserTable>>,
}

impl UserTables {
    /// Reads the files.
    pub fn load(config: &Config, problems: &mut Problems) -> Self {
        let mut wanted: Vec<(&Path, Vec<Hash>)> = Vec::new();
        for listener in &config.listeners {
            let IdentitySettings::Sasl(sasl) = &listener.identity else {
                continue;
            };
            for (settings, mechanism) in [
                (&sasl.plain, Mechanism::Plain),
                (&sasl.scram_sha256, Mechanism::Scram(Hash::Sha256)),
                (&sasl.scram_sha512, Mechanism::Scram(Hash::Sha512)),
            ] {
                let Some(settings) = settings else { continue };
                let file = settings.users_file.as_path();
                let at = wanted.iter().position(|(known, _)| *known == file);
                let at = at.unwrap_or_else(|| {
                    wanted.push((file, Vec::new()));
                    wanted.len() - 1
                });
                if let (Mechanism::Scram(hash), Some((_, hashes))) = (mechanism, wanted.get_mut(at))
                    && !hashes.contains(&hash)
                {
                    hashes.push(hash);
                }
            }
        }
        let tables = wanted.into_iter().filter_map(|(file, hashes)| {
            let users = users::read(file, &hashes, problems)?;
            Some(Arc::new(UserTable::new(file.to_owned(), hashes, users)))
        });
        Self {
            list: tables.collect(),
        }
    }

    /// What a mechanism needs; `None`: its file could not be read.
    pub fn passwords(&self, settings: &PasswordSettings) -> Option<Passwords> {
        let table = self.list.iter().find(|t| t.file() == settings.users_file)?;
        Some(Passwords {
            users: Arc::clone(table),
            prefix: settings.principal_prefix.clone(),
            tenant: settings.tenant.clone(),
            session_max: settings.session_max,
        })
    }
}

//! As whom which client is taken to its broker.

use super::*;
use crate::secret::Secret;

fn user(username: &str) -> Settings {
    let password = Secret::Variable("PASSWORD".to_owned());
    Settings::Plain {
        username: username.to_owned(),
        password,
    }
}

fn identity(whom: Whom, name: &str) -> Identity {
    let sasl = user(name);
    let dialer = Dialer::new(None).with_credentials(sasl.credentials().0);
    Identity::new(whom, dialer, Some(&sasl))
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn the_principal_goes_before_the_listener_and_both_before_everybody() {
    let special = vec![
        identity(Whom::Listeners(names(&["mesh", "tokens"])), "listener"),
        identity(Whom::Principals(names(&["User:a", "User:b"])), "principal"),
    ];
    let all = Identities::new(identity(Whom::Everybody, "everybody"), special);
    let cases = [
        ("mesh", "User:a", "principal"),
        ("app", "User:b", "principal"),
        ("tokens", "User:c", "listener"),
        ("app", "User:c", "everybody"),
        // Names are whole, and a listener's name is no principal's.
        ("app", "User:aa", "everybody"),
        ("app", "a", "everybody"),
        ("User:a", "mesh", "everybody"),
    ];
    for (listener, principal, expected) in cases {
        let chosen = all.choose(listener, principal);
        assert_eq!(
            chosen.name.as_deref(),
            Some(expected),
            "{listener} {principal}"
        );
        let Credentials::Plain { username, .. } = chosen.dialer.credentials() else {
            panic!("another mechanism");
        };
        assert_eq!(&**username, expected);
    }
    assert!(!all.forward());
}

#[test]
fn one_entry_that_forwards_is_enough_to_keep_tokens_for_it() {
    let forward = Settings::Forward;
    let dialer = Dialer::new(None).with_credentials(forward.credentials().0);
    let whom = Whom::Listeners(names(&["tokens"]));
    let special = vec![Identity::new(whom, dialer, Some(&forward))];
    let all = Identities::new(identity(Whom::Everybody, "everybody"), special);
    assert!(all.forward());
    assert_eq!(all.choose("tokens", "User:a").name, None);
}

#[test]
fn a_long_list_of_names_stays_one_short_line() {
    let many = (0..9).map(|at| format!("User:{at}")).collect();
    assert_eq!(
        Whom::Principals(many).to_string(),
        "principals `User:0`, `User:1`, `User:2` and 6 more"
    );
    assert_eq!(
        Whom::Listeners(names(&["mesh"])).to_string(),
        "listeners `mesh`"
    );
}

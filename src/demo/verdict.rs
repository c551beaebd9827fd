//! Why something happened: for a refusal, Kordon's own audit log says it; for what went ahead,
//! the policies in force are asked the same question.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use crate::config::guards;
use crate::policy::PolicySet;
use crate::policy::model::{Operation, ResourceKind, Subject};
use crate::principal::{Principal, Proof};
use crate::problem::Problems;

/// How long an audit line may take to be written.
const AUDIT_WAIT: Duration = Duration::from_secs(3);
const AUDIT_PAUSE: Duration = Duration::from_millis(10);

/// Where reasons are looked up.
pub struct Reasons {
    directory: PathBuf,
    policies: PolicySet,
    /// Lines of the audit log that belong to earlier steps.
    seen: usize,
}

impl Reasons {
    /// Reads the policies below the directory of the stage.
    pub fn new(directory: &Path) -> Self {
        let mut problems = Problems::default();
        let guards = guards::load(&directory.join("policies"), &mut problems);
        Self {
            directory: directory.to_owned(),
            policies: PolicySet::new(guards.access, Vec::new()).within(guards.tenants),
            seen: 0,
        }
    }

    /// The rule that allows it; `None` if none does.
    pub fn allowed(
        &self,
        service: &str,
        operation: Operation,
        kind: ResourceKind,
        name: &str,
    ) -> Option<String> {
        let principal = Principal {
            name: format!("User:{service}").into(),
            tenant: "".into(),
            groups: Arc::new([]),
            proof: Proof::Static,
            expires_at: None,
        };
        let subject = Subject {
            principal: &principal,
            host: IpAddr::V4(Ipv4Addr::LOCALHOST),
        };
        let decision = self.policies.view(&subject).decide(operation, kind, name);
        let rule = decision.rule.filter(|_| decision.allowed)?;
        Some(format!("allow {}", self.short(&rule.to_string())))
    }

    /// The line of `kordon.yaml` that holds this text.
    pub fn configured(&self, text: &str) -> Option<String> {
        let config = std::fs::read_to_string(self.directory.join("kordon.yaml")).ok()?;
        let line = config.lines().position(|line| line.contains(text))? + 1;
        Some(format!("kordon.yaml:{line}"))
    }

    /// What the next audit line says that denies a request of this API to `service` (`None`: an
    /// attempt to prove an identity, by somebody who has not).
    pub async fn denied(&mut self, service: Option<&str>, api: &str) -> Option<Denial> {
        let principal = service.map_or(Value::Null, |s| Value::from(format!("User:{s}")));
        self.said(|line| {
            line["decision"] == "deny" && line["principal"] == principal && line["api"] == api
        })
        .await
    }

    /// What the next audit line says that throttles `service`.
    pub async fn throttled(&mut self, service: &str) -> Option<Denial> {
        let principal = Value::from(format!("User:{service}"));
        self.said(|line| line["reason"] == "quota" && line["principal"] == principal)
            .await
    }

    async fn said(&mut self, concerns: impl Fn(&Value) -> bool) -> Option<Denial> {
        let deadline = crate::clock::now() + AUDIT_WAIT;
        loop {
            let text = std::fs::read_to_string(self.directory.join("audit.jsonl"));
            let text = text.unwrap_or_default();
            let whole = text.rfind('\n').map_or("", |end| &text[..end]);
            for (at, line) in whole.lines().enumerate().skip(self.seen) {
                let Ok(line) = serde_json::from_str::<Value>(line) else {
                    continue;
                };
                if concerns(&line) {
                    self.seen = at + 1;
                    return Some(Denial {
                        rule: line["rule"].as_str().map(|rule| self.short(rule)),
                        reason: line["reason"].as_str().unwrap_or_default().to_owned(),
                        detail: line["detail"].as_str().unwrap_or_default().to_owned(),
                    });
                }
            }
            if crate::clock::now() >= deadline {
                return None;
            }
            tokio::time::sleep(AUDIT_PAUSE).await;
        }
    }

    /// A place relative to the stage's directory.
    fn short(&self, place: &str) -> String {
        let directory = format!("{}/", self.directory.display());
        place.strip_prefix(&directory).unwrap_or(place).to_owned()
    }
}

/// What an audit line says.
#[derive(Debug)]
pub struct Denial {
    /// `file:line`; `None`: no rule had a part in it.
    pub rule: Option<String>,
    /// The reason's name.
    pub reason: String,
    /// More about it; may be empty.
    pub detail: String,
}

//! The thread that writes audit lines to their topic. It is one of its own, since it ends last:
//! lines come until every connection has ended.

use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::runtime::Builder;

use crate::config::AuditSettings;
use crate::net::backoff::random;
use crate::problem::Problems;
use crate::proxy::Proxy;
use crate::telemetry::audit::AuditSink;
use crate::upstream::producer;

/// Longest part of a machine's name in keys, in characters.
const NAME_CHARS_MAX: usize = 64;

/// The thread, where lines go to a topic.
pub(super) struct Delivery(Option<JoinHandle<()>>);

impl Delivery {
    pub fn start(proxy: &Arc<Proxy>, settings: &AuditSettings) -> Result<Delivery, Problems> {
        Self::try_start(proxy, settings).map_err(|error| {
            let mut problems = Problems::default();
            problems.error_without_place(format!("cannot start a thread: {error}"));
            problems
        })
    }

    fn try_start(proxy: &Arc<Proxy>, settings: &AuditSettings) -> std::io::Result<Delivery> {
        let (AuditSink::Topic(topic), Some(lines)) = (&settings.sink, proxy.audit.delivery())
        else {
            return Ok(Delivery(None));
        };
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (cluster, topic, key) = (Arc::clone(&proxy.cluster), topic.clone(), key());
        tracing::info!(topic, key, "audit lines go to a topic");
        let thread = std::thread::Builder::new().name("audit topic".into());
        let delivering =
            move || runtime.block_on(producer::deliver(&cluster, &topic, &key, &lines));
        Ok(Delivery(Some(thread.spawn(delivering)?)))
    }

    /// Closes the audit log: its last lines are written, or time is up.
    pub fn end(self, proxy: &Proxy) {
        if !proxy.audit.close() {
            tracing::warn!("the audit log did not take everything in time");
        }
        if let Some(thread) = self.0 {
            let _ = thread.join();
        }
    }
}

/// What the lines of this process have in common and those of no other: where it runs, and
/// chance, since each process begins a chain.
fn key() -> String {
    // Linux: a pod's name.
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name: String = name.trim().chars().take(NAME_CHARS_MAX).collect();
    let name = if name.is_empty() { "kordon" } else { &name };
    format!("{name}-{:08x}", random() as u32)
}

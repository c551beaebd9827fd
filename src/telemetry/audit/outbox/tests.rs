//! The outbox keeps order and bounds, and its writer never waits for good.

use std::thread;
use std::time::Duration;

use super::*;
use crate::telemetry::Recorder;
use crate::telemetry::audit::tests::entry;
use crate::telemetry::audit::{Audit, AuditSettings, AuditSink};

fn text(bytes: usize) -> Bytes {
    Bytes::from(vec![b'x'; bytes])
}

fn audit() -> (Audit, Delivery) {
    let settings = AuditSettings {
        sink: AuditSink::Topic("t".to_owned()),
        ..AuditSettings::default()
    };
    let audit = Audit::start(settings, &Recorder::new(|_| None)).unwrap();
    let delivery = audit.delivery().unwrap();
    (audit, delivery)
}

fn block<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.unwrap().block_on(future)
}

#[test]
fn lines_stay_until_they_are_delivered() {
    let (audit, delivery) = audit();
    for _ in 0..3 {
        audit.record(entry());
    }
    let (mut lines, mut seen) = (0, Vec::new());
    while lines < 4 {
        let first = block(delivery.next(1, usize::MAX)).unwrap();
        assert_eq!(block(delivery.next(1, usize::MAX)).unwrap(), first);
        let both = block(delivery.next(2, 1)).unwrap();
        assert_eq!(both, first, "a bound in bytes, but for the first");
        seen.extend(first);
        delivery.delivered(1);
        lines += 1;
    }
    assert!(
        seen.iter().all(|line| line.ends_with(b"\"}")),
        "one line each"
    );
    // The end of the chain comes last, and all is delivered before it is over.
    let closing = {
        let audit = audit.clone();
        thread::spawn(move || audit.close())
    };
    let last = block(delivery.next(10, usize::MAX)).unwrap();
    assert!(last[0].starts_with(b"{") && last.len() == 1);
    delivery.delivered(1);
    assert_eq!(block(delivery.next(10, usize::MAX)), None);
    assert!(closing.join().unwrap());
}

#[test]
fn what_has_no_room_waits_and_is_dropped_before_the_seal() {
    let (audit, delivery) = audit();
    let all = OUTBOX_LINES_MAX + super::super::QUEUE_LINES_MAX;
    // More than both queues and the writer's hands hold.
    for _ in 0..all + 1000 {
        audit.record(entry());
    }
    let waiting = lock(&delivery.outbox.queue).lines.len();
    assert!(waiting <= OUTBOX_LINES_MAX, "{waiting}");
    // Nobody delivers: it ends all the same.
    let begun = std::time::Instant::now();
    assert!(!audit.close());
    assert!(begun.elapsed() < super::super::CLOSE_WAIT + Duration::from_secs(5));
    block(delivery.given_up());
    assert_eq!(block(delivery.next(1, 1)), None);
    assert!(!delivery.outbox.put(text(1), false));
}

#[test]
fn a_bound_in_bytes_lets_a_single_line_through() {
    let outbox = Arc::new(Outbox::default());
    assert!(outbox.put(text(2 * OUTBOX_BYTES_MAX), false));
    let other = Arc::clone(&outbox);
    let waits = thread::spawn(move || other.put(text(1), true));
    outbox.remove(1);
    assert!(waits.join().unwrap());
    assert_eq!(lock(&outbox.queue).bytes, 1);
    // A mark is no decision.
    assert_eq!(outbox.remove(1), 0);
    assert_eq!(outbox.give_up(), 0);
}

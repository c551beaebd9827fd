//! Writes that fail in the middle.

use std::io::Read as _;

use rustix::pipe::{PipeFlags, pipe_with};

use super::*;
use crate::clock;
use crate::telemetry::audit::tests::entry;
use crate::telemetry::audit::verify::verify;

/// What has come through a pipe so far.
fn drain(pipe: &mut File, into: &mut Vec<u8>) {
    // It does not block: an error is the end of what is there.
    let _ = pipe.read_to_end(into);
}

#[test]
fn after_a_failed_write_the_chain_goes_on_from_what_was_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.jsonl");
    let settings = AuditFile {
        path: path.clone(),
        rotation: None,
    };
    let sink = AuditSink::File(settings);
    let mut output = Output::open(sink, Sealer::default()).unwrap().unwrap();
    let (read, write) = pipe_with(PipeFlags::NONBLOCK).unwrap();
    output.to = To::File(File::from(write));
    let (mut pipe, mut text) = (File::from(read), Vec::new());

    let (mut lines, mut lost, mut appended) = (0, 0, 0);
    for round in 0..6 {
        // More than a pipe holds, and each time a line is cut somewhere else.
        for _ in 0..250 + round {
            output.append(clock::wall(), &entry());
            appended += 1;
        }
        let written = output.flush();
        assert!(written.error.is_some(), "a pipe took everything");
        lines += written.lines;
        lost += written.lost;
        // A second failure before anything could be written: its line must not be a new excuse.
        if round % 2 == 0 {
            output.append(clock::wall(), &entry());
            appended += 1;
            let written = output.flush();
            lines += written.lines;
            lost += written.lost;
        }
        drain(&mut pipe, &mut text);
    }
    output.append_losses(clock::wall());
    output.append_end(clock::wall());
    assert!(output.flush().error.is_none());
    drain(&mut pipe, &mut text);
    assert_eq!((lines + lost, lost > 0, lines > 0), (appended, true, true));

    std::fs::write(&path, &text).unwrap();
    let report = verify(&[path], &Sealer::default()).unwrap();
    assert_eq!(report.faults, []);
    assert_eq!(report.lost, lost);
    assert!(report.notes.len() >= 5, "{:?}", report.notes);
}

#[test]
fn a_file_that_cannot_be_changed_is_written_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.jsonl");
    // The name that the full file would get is taken by a folder with something in it.
    std::fs::create_dir_all(folder.path().join("audit.jsonl.1/x")).unwrap();
    let settings = AuditFile {
        path: path.clone(),
        rotation: Some(super::super::Rotation {
            max_bytes: 2_000,
            keep: 1,
        }),
    };
    let sink = AuditSink::File(settings);
    let mut output = Output::open(sink, Sealer::default()).unwrap().unwrap();
    for _ in 0..20 {
        output.append(clock::wall(), &entry());
    }
    let written = output.flush();
    assert_eq!((written.lines, written.lost), (20, 0));
    assert!(written.error.is_some(), "somebody must be told");
    assert!(verify(&[path], &Sealer::default()).unwrap().holds());
}

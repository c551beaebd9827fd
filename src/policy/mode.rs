//! Whether a policy has effect: the key `mode`, which every kind of policy shares.

use crate::document::{Fields, Node};
use crate::problem::Problems;

/// What a policy is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// It is in force.
    #[default]
    Enforce,
    /// It is decided beside what is in force, and counted: it neither allows nor refuses.
    Observe,
}

impl Mode {
    /// Takes the key `mode` from a `spec`.
    pub fn take(fields: &mut Fields<'_>, problems: &mut Problems) -> Mode {
        let words = [
            ("enforce", Some(Mode::Enforce)),
            ("observe", Some(Mode::Observe)),
        ];
        let mode = fields.take("mode");
        mode.and_then(|node| node.choice(&words, problems))
            .unwrap_or_default()
    }

    /// The mode of a `spec` whose mistakes its own reader reports.
    pub fn of(spec: &Node) -> Mode {
        let mut unheard = Problems::default();
        let fields = Fields::of(spec, &mut unheard);
        fields.map_or(Mode::default(), |mut fields| {
            Mode::take(&mut fields, &mut unheard)
        })
    }
}

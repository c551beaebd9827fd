//! Which of many prefixes a name begins with. The names that begin with a prefix are neighbours in
//! sorted order and the prefix is the first of them, so all prefixes of a name are found among the
//! last entry that is not above it and that entry's parents.
//!
//! The search for that entry compares numbers: bytes 0 to 8 of each name behind what all of them
//! begin with. They lie side by side, where the names lie anywhere.

/// Prefixes in sorted order, each with what is said about it.
#[derive(Clone, Debug)]
pub(super) struct Prefixes<T> {
    /// How many bytes all of them share.
    shared: usize,
    /// What the search compares first, for each entry.
    heads: Vec<u64>,
    entries: Vec<Entry<T>>,
}

#[derive(Clone, Debug)]
struct Entry<T> {
    name: Box<str>,
    said: T,
    /// The longest other prefix that this one begins with.
    parent: Option<usize>,
}

impl<T> Prefixes<T> {
    /// `sorted` is in ascending order of its names, without duplicates. `say` makes what is kept
    /// of one, knowing that of the longest other one that it begins with.
    pub(super) fn new<S>(
        sorted: Vec<(Box<str>, S)>,
        say: impl Fn(S, Option<&T>) -> T,
    ) -> Prefixes<T> {
        let mut entries: Vec<Entry<T>> = Vec::with_capacity(sorted.len());
        for (name, said) in sorted {
            let mut parent = entries.len().checked_sub(1);
            while let Some(at) = parent {
                if name.starts_with(&*entries[at].name) {
                    break;
                }
                parent = entries[at].parent;
            }
            let said = say(said, parent.map(|at| &entries[at].said));
            entries.push(Entry { name, said, parent });
        }
        // What the first and the last share, all between them do.
        let shared = match (entries.first(), entries.last()) {
            (Some(first), Some(last)) => {
                let pairs = first.name.bytes().zip(last.name.bytes());
                pairs.take_while(|(a, b)| a == b).count()
            }
            _ => 0,
        };
        let heads = entries.iter().map(|e| head(&e.name.as_bytes()[shared..]));
        Prefixes {
            shared,
            heads: heads.collect(),
            entries,
        }
    }

    /// Every prefix with what is said about it, in sorted order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &T)> {
        let entries = self.entries.iter();
        entries.map(|entry| (&*entry.name, &entry.said))
    }

    /// What is said about the longest prefix of `name`.
    pub(super) fn longest(&self, name: &str) -> Option<&T> {
        Some(&self.find(name)?.said)
    }

    /// Visits what is said about each prefix of `name`, the longest first.
    pub(super) fn each<'p>(&'p self, name: &str, mut visit: impl FnMut(&'p T)) {
        let mut next = self.find(name);
        while let Some(entry) = next {
            visit(&entry.said);
            next = entry.parent.and_then(|at| self.entries.get(at));
        }
    }

    /// The longest prefix of `name`; what it begins with are the others.
    fn find(&self, name: &str) -> Option<&Entry<T>> {
        let name = name.as_bytes();
        let first = self.entries.first()?;
        let (shared, rest) = name.split_at_checked(self.shared)?;
        if !first.name.as_bytes().starts_with(shared) {
            return None;
        }
        let last = self.not_above(name, head(rest)).checked_sub(1)?;
        let mut entry = self.entries.get(last)?;
        if !name.starts_with(entry.name.as_bytes()) {
            // Its parents begin as it does: those are prefixes that are not longer than that.
            let alike = entry.name.bytes().zip(name);
            let alike = alike.take_while(|(a, b)| a == *b).count();
            while entry.name.len() > alike {
                entry = self.entries.get(entry.parent?)?;
            }
        }
        Some(entry)
    }

    /// How many entries are not above `name`.
    fn not_above(&self, name: &[u8], head: u64) -> usize {
        let below = self.heads.partition_point(|other| *other < head);
        if self.heads.get(below) != Some(&head) {
            return below;
        }
        let alike = self.heads[below..].partition_point(|other| *other == head);
        let alike = &self.entries[below..below + alike];
        below + alike.partition_point(|entry| entry.name.as_bytes() <= name)
    }
}

/// The first eight bytes as a number that orders as they do; missing ones count as zero, so that
/// names may differ whose numbers do not.
fn head(bytes: &[u8]) -> u64 {
    match bytes.first_chunk() {
        Some(chunk) => u64::from_be_bytes(*chunk),
        None => {
            let mut chunk = [0; 8];
            chunk[..bytes.len()].copy_from_slice(bytes);
            u64::from_be_bytes(chunk)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn found<'p>(prefixes: &'p Prefixes<String>, name: &str) -> Vec<&'p str> {
        let mut found = Vec::new();
        prefixes.each(name, |said| found.push(said.as_str()));
        found
    }

    fn of(names: &std::collections::BTreeSet<String>) -> Prefixes<String> {
        let sorted = names.iter().map(|n| (n.as_str().into(), n.clone()));
        Prefixes::new(sorted.collect(), |name, _| name)
    }

    #[test]
    fn nothing_is_found_among_nothing() {
        assert!(found(&of(&Default::default()), "a").is_empty());
    }

    proptest! {
        /// Few letters, NUL and ones of several bytes among them; stems that are longer than what
        /// is compared first.
        #[test]
        fn every_prefix_of_a_name_is_found(
            stem in "[aé]{0,3}|[ab]{8,12}",
            ends in prop::collection::btree_set("[ab\0é]{0,10}", 0..20),
            asked in prop::collection::vec("[ab\0é]{0,14}", 1..20),
        ) {
            let names = ends.into_iter().map(|end| format!("{stem}{end}")).collect();
            let prefixes = of(&names);
            let asked = asked.iter().flat_map(|end| [end.clone(), format!("{stem}{end}")]);
            for name in asked.chain(names.iter().cloned()) {
                let mut expected: Vec<&str> = names.iter().map(|p| &**p).collect();
                expected.retain(|prefix| name.starts_with(prefix));
                expected.reverse();
                let longest = prefixes.longest(&name).map(String::as_str);
                prop_assert_eq!(longest, expected.first().copied());
                prop_assert_eq!(found(&prefixes, &name), expected, "{}", name);
            }
            let listed: Vec<&str> = prefixes.iter().map(|(name, _)| name).collect();
            prop_assert_eq!(listed, names.iter().map(|n| &**n).collect::<Vec<_>>());
        }
    }
}

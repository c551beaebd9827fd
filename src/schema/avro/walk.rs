//! One payload along one compiled schema: the hot part of the check. Allocates only to say what
//! is wrong.

use super::{Compiled, DEPTH_MAX, EMPTY_ITEMS_MAX, Node, NodeId, PATH_CHARS_MAX, Violation, slice};

/// What is wrong, and the way back to the root.
struct Fault {
    expected: &'static str,
    // innermost first
    trail: Vec<Step>,
}

#[derive(Clone, Copy)]
enum Step {
    /// Index in `Compiled::fields`.
    Field(u32),
    Item(u64),
    Entry(u64),
}

type Walk<T> = Result<T, Box<Fault>>;

#[cold]
fn fault<T>(expected: &'static str) -> Walk<T> {
    Err(Box::new(Fault {
        expected,
        trail: Vec::new(),
    }))
}

pub(super) fn walk(schema: &Compiled, payload: &[u8]) -> Result<(), Violation> {
    let mut cursor = Cursor {
        rest: payload,
        empty_items_left: EMPTY_ITEMS_MAX,
    };
    let walked = cursor
        .value(schema, schema.root, 0)
        .and_then(|()| match cursor.rest {
            [] => Ok(()),
            _ => fault("nothing after the last field"),
        });
    walked.map_err(|fault| Violation {
        path: path(schema, &fault.trail),
        expected: fault.expected,
    })
}

#[cold]
fn path(schema: &Compiled, trail: &[Step]) -> String {
    use std::fmt::Write as _;
    let mut path = String::from("$");
    for step in trail.iter().rev() {
        // writing to a String cannot fail
        let _ = match step {
            Step::Field(at) => {
                let name = schema.fields.get(*at as usize).map_or("?", |f| &f.name);
                write!(path, ".{name}")
            }
            Step::Item(at) => write!(path, "[{at}]"),
            Step::Entry(at) => write!(path, "{{{at}}}"),
        };
        if path.chars().count() > PATH_CHARS_MAX {
            path = path.chars().take(PATH_CHARS_MAX).collect();
            path.push('…');
            break;
        }
    }
    path
}

struct Cursor<'a> {
    rest: &'a [u8],
    empty_items_left: u32,
}

impl Cursor<'_> {
    fn value(&mut self, schema: &Compiled, id: NodeId, depth: u32) -> Walk<()> {
        match schema.nodes[id as usize] {
            Node::Nothing => Ok(()),
            Node::Boolean => match self.rest {
                [0 | 1, tail @ ..] => {
                    self.rest = tail;
                    Ok(())
                }
                _ => fault("boolean (0 or 1)"),
            },
            Node::Int => match self.int() {
                Some(_) => Ok(()),
                None => fault("int (32 bits)"),
            },
            Node::Long => match self.long() {
                Some(_) => Ok(()),
                None => fault("long (64 bits)"),
            },
            Node::Float => self.skip(4, "float (4 bytes)"),
            Node::Double => self.skip(8, "double (8 bytes)"),
            Node::Fixed(size) => self.skip(size as usize, "fixed with all of its bytes"),
            Node::Bytes => match self.sized() {
                Some(_) => Ok(()),
                None => fault("bytes"),
            },
            Node::String => self.string("string"),
            Node::Enum(symbols) => match self.int() {
                Some(symbol) if u32::try_from(symbol).is_ok_and(|s| s < symbols) => Ok(()),
                _ => fault("enum with one of its symbols"),
            },
            Node::Union(from, count) => {
                let branches = slice(&schema.branches, from, count);
                let branch = self
                    .long()
                    .and_then(|index| usize::try_from(index).ok())
                    .and_then(|index| branches.get(index));
                match branch {
                    Some(branch) if depth < DEPTH_MAX => self.value(schema, *branch, depth + 1),
                    Some(_) => fault(TOO_DEEP),
                    None => fault("union with one of its branches"),
                }
            }
            Node::Record(from, count) => {
                if depth >= DEPTH_MAX {
                    return fault(TOO_DEEP);
                }
                for (at, field) in slice(&schema.fields, from, count).iter().enumerate() {
                    self.value(schema, field.node, depth + 1)
                        .map_err(|f| step(f, Step::Field(from + at as u32)))?;
                }
                Ok(())
            }
            Node::Array(items) => self.blocks(schema, items, depth, false),
            Node::Map(values) => self.blocks(schema, values, depth, true),
        }
    }

    /// Blocks of items or entries up to the empty block. A negative count is followed by the
    /// block's size in bytes.
    fn blocks(&mut self, schema: &Compiled, node: NodeId, depth: u32, map: bool) -> Walk<()> {
        if depth >= DEPTH_MAX {
            return fault(TOO_DEEP);
        }
        // an entry's key takes a byte at least
        let least = schema.least_bytes[node as usize].saturating_add(u64::from(map));
        let mut at = 0u64;
        loop {
            let Some(count) = self.long() else {
                return fault("the count of a block");
            };
            if count == 0 {
                return Ok(());
            }
            let left_after = match count {
                1.. => None,
                _ => match self
                    .length()
                    .and_then(|size| self.rest.len().checked_sub(size))
                {
                    Some(left) => Some(left),
                    None => return fault("a block no longer than the payload"),
                },
            };
            let count = count.unsigned_abs();
            if least == 0 {
                self.empty_items(count)?;
                at += count;
            } else {
                if count.saturating_mul(least) > self.rest.len() as u64 {
                    return fault("a block no longer than the payload");
                }
                for _ in 0..count {
                    self.item(schema, node, depth, map)
                        .map_err(|f| step(f, if map { Step::Entry(at) } else { Step::Item(at) }))?;
                    at += 1;
                }
            }
            if left_after.is_some_and(|left| left != self.rest.len()) {
                return fault("a block as long as it says");
            }
        }
    }

    fn item(&mut self, schema: &Compiled, node: NodeId, depth: u32, map: bool) -> Walk<()> {
        if map {
            self.string("string as the key of a map")?;
        }
        self.value(schema, node, depth + 1)
    }

    fn empty_items(&mut self, count: u64) -> Walk<()> {
        match u64::from(self.empty_items_left).checked_sub(count) {
            Some(left) => {
                self.empty_items_left = left as u32;
                Ok(())
            }
            None => fault("fewer items that take no bytes"),
        }
    }

    fn skip(&mut self, bytes: usize, expected: &'static str) -> Walk<()> {
        match self.rest.get(bytes..) {
            Some(tail) => {
                self.rest = tail;
                Ok(())
            }
            None => fault(expected),
        }
    }

    fn string(&mut self, expected: &'static str) -> Walk<()> {
        match self.sized() {
            Some(text) if std::str::from_utf8(text).is_ok() => Ok(()),
            Some(_) => fault("string in UTF-8"),
            None => fault(expected),
        }
    }

    /// A length and as many bytes.
    fn sized(&mut self) -> Option<&[u8]> {
        let length = self.length()?;
        let (head, tail) = self.rest.split_at_checked(length)?;
        self.rest = tail;
        Some(head)
    }

    fn length(&mut self) -> Option<usize> {
        usize::try_from(self.long()?).ok()
    }

    #[inline]
    fn int(&mut self) -> Option<i32> {
        let n = u32::try_from(self.varint(5)?).ok()?;
        Some(((n >> 1) as i32) ^ -((n & 1) as i32))
    }

    #[inline]
    fn long(&mut self) -> Option<i64> {
        let n = self.varint(10)?;
        Some(((n >> 1) as i64) ^ -((n & 1) as i64))
    }

    #[inline]
    fn varint(&mut self, bytes_max: usize) -> Option<u64> {
        if let [first @ 0..=0x7f, tail @ ..] = self.rest {
            self.rest = tail;
            return Some(u64::from(*first));
        }
        let mut n = 0u64;
        for (i, byte) in self.rest.iter().take(bytes_max).enumerate() {
            // the tenth byte has room for one bit
            if i == 9 && *byte > 1 {
                return None;
            }
            n |= u64::from(byte & 0x7f) << (7 * i);
            if byte & 0x80 == 0 {
                self.rest = &self.rest[i + 1..];
                return Some(n);
            }
        }
        None
    }
}

const TOO_DEEP: &str = "values that nest less deeply";

#[cold]
fn step(mut fault: Box<Fault>, step: Step) -> Box<Fault> {
    fault.trail.push(step);
    fault
}

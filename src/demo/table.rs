//! The table the tour prints: fixed columns, long cells wrapped, colour only where it is seen.

use std::io::{self, Write};

/// Column heads and their widths in characters.
const COLUMNS: [(&str, usize); 4] = [
    ("who", 22),
    ("did what", 30),
    ("got what", 44),
    ("because of", 34),
];
const GAP: &str = "  ";

const GREEN: &str = "\u{1b}[32m";
const RED: &str = "\u{1b}[31m";
const BOLD: &str = "\u{1b}[1m";
const PLAIN: &str = "\u{1b}[0m";

/// Prints rows as they come.
pub struct Table<'a> {
    out: &'a mut dyn Write,
    colour: bool,
}

impl<'a> Table<'a> {
    /// A table on `out`.
    pub fn new(out: &'a mut dyn Write, colour: bool) -> Self {
        Self { out, colour }
    }

    /// The heads of the columns.
    pub fn head(&mut self) -> io::Result<()> {
        let names = COLUMNS.map(|(name, _)| name);
        self.lines(names, " ", BOLD)?;
        let rules = COLUMNS.map(|(_, width)| "─".repeat(width));
        let rules = [&rules[0], &rules[1], &rules[2], &rules[3]];
        self.lines(rules.map(String::as_str), "─", "")
    }

    /// One row; `good`: what happened is what should have happened.
    pub fn row(&mut self, cells: [&str; 4], good: bool) -> io::Result<()> {
        let (mark, colour) = if good { ("✓", GREEN) } else { ("✗", RED) };
        self.lines(cells, mark, colour)?;
        self.out.flush()
    }

    fn lines(&mut self, cells: [&str; 4], mark: &str, colour: &str) -> io::Result<()> {
        let wrapped: Vec<Vec<String>> = cells
            .iter()
            .zip(COLUMNS)
            .map(|(cell, (_, width))| wrap(cell, width))
            .collect();
        let height = wrapped.iter().map(Vec::len).max().unwrap_or(0);
        for at in 0..height {
            let mark = if at == 0 { mark } else { " " };
            let mut line = String::new();
            for (cell, (_, width)) in wrapped.iter().zip(COLUMNS) {
                let text = cell.get(at).map_or("", String::as_str);
                line.push_str(GAP);
                line.push_str(text);
                let used = text.chars().count();
                line.extend(std::iter::repeat_n(' ', width.saturating_sub(used)));
            }
            let line = line.trim_end();
            let (on, off) = if self.colour && !colour.is_empty() {
                (colour, PLAIN)
            } else {
                ("", "")
            };
            // Only the mark and the heads are coloured: the words stay readable on any ground.
            if colour == BOLD {
                writeln!(self.out, "{mark}{on}{line}{off}")?;
            } else {
                writeln!(self.out, "{on}{mark}{off}{line}")?;
            }
        }
        Ok(())
    }
}

/// Breaks at spaces; a word longer than the column is cut into pieces.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let mut word: Vec<char> = word.chars().collect();
        loop {
            let last = lines.len() - 1;
            let used = lines[last].chars().count();
            let room = width.saturating_sub(if used == 0 { 0 } else { used + 1 });
            if word.len() <= room {
                if used > 0 {
                    lines[last].push(' ');
                }
                lines[last].extend(&word);
                break;
            }
            if used == 0 {
                let rest = word.split_off(width);
                lines[last].extend(&word);
                word = rest;
            }
            lines.push(String::new());
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_wrap_at_words_and_columns_stay_aligned() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("abcdefghij", 4), ["abcd", "efgh", "ij"]);
        assert_eq!(wrap("", 4), [""]);
        let mut out = Vec::new();
        let mut table = Table::new(&mut out, false);
        table.head().unwrap();
        let long = "a sentence that does not fit into the column it stands in";
        table.row(["me", long, "got", "rule:1"], true).unwrap();
        let text = String::from_utf8(out).unwrap();
        let column = |line: &str, word: &str| {
            let at = line.find(word).unwrap();
            line[..at].chars().count()
        };
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(column(lines[0], "because"), column(lines[2], "rule:1"));
        assert_eq!(column(lines[0], "got"), column(lines[2], "got"));
        assert!(!text.contains('\u{1b}'));
        assert!(lines.len() > 3);
    }
}

//! Tables for people: columns as wide as their widest cell, two spaces between, numbers to the
//! right. Programs use `--json`. What is in a cell may come from outside, so it is escaped.

use std::fmt::Write as _;

use fleetloop_observe::text::visible;

/// How a column is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Align {
    /// Text.
    Left,
    /// Numbers.
    Right,
}

/// A table under way.
#[derive(Debug, Clone)]
pub struct Table {
    columns: Vec<(&'static str, Align)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with those columns; a name that begins with `#` is a number's and set right.
    pub fn new(columns: &[&'static str]) -> Self {
        let columns = columns
            .iter()
            .map(|name| match name.strip_prefix('#') {
                Some(name) => (name, Align::Right),
                None => (*name, Align::Left),
            })
            .collect();
        Self { columns, rows: Vec::new() }
    }

    /// Adds a row; cells beyond the columns are dropped, missing ones are empty.
    pub fn row<I: IntoIterator<Item = String>>(&mut self, cells: I) {
        let mut cells: Vec<String> =
            cells.into_iter().map(|cell| visible(&cell).into_owned()).collect();
        cells.resize(self.columns.len(), String::new());
        self.rows.push(cells);
    }

    /// The table as text, a line a row; `nothing` when there is no row.
    pub fn render(&self, nothing: &str) -> String {
        if self.rows.is_empty() {
            return format!("{nothing}\n");
        }
        let width = |i: usize| {
            let cells = self.rows.iter().map(|row| row[i].chars().count());
            cells.chain([self.columns[i].0.chars().count()]).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.columns.len()).map(width).collect();
        let mut out = String::new();
        let header: Vec<&str> = self.columns.iter().map(|(name, _)| *name).collect();
        self.line(&mut out, &header, &widths);
        for row in &self.rows {
            let cells: Vec<&str> = row.iter().map(String::as_str).collect();
            self.line(&mut out, &cells, &widths);
        }
        out
    }

    fn line(&self, out: &mut String, cells: &[&str], widths: &[usize]) {
        let mut line = String::new();
        for ((cell, (_, align)), width) in cells.iter().zip(&self.columns).zip(widths) {
            if !line.is_empty() {
                line.push_str("  ");
            }
            // Writing into a String cannot fail.
            let _ = match align {
                Align::Left => write!(line, "{cell:<width$}"),
                Align::Right => write!(line, "{cell:>width$}"),
            };
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
}

/// Names and values below each other, for one object.
pub fn facts(pairs: &[(&str, String)]) -> String {
    let width = pairs.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    pairs.iter().fold(String::new(), |mut out, (name, value)| {
        let _ = writeln!(out, "{name:<width$}  {}", visible(value));
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(&["name", "#rows"]);
        table.row(["press 7".to_owned(), "12".to_owned()]);
        table.row(["é".to_owned(), "1234567".to_owned()]);
        assert_eq!(table.render("none"), "name        rows\npress 7       12\né        1234567\n");
        assert_eq!(Table::new(&["name"]).render("no devices yet"), "no devices yet\n");
    }

    #[test]
    fn what_a_device_says_cannot_drive_the_terminal() {
        let mut table = Table::new(&["name"]);
        table.row(["a\u{1b}[31mred\nb\u{202e}c".to_owned()]);
        assert_eq!(table.render("none"), "name\na\\u{1b}[31mred\\nb\\u{202e}c\n");
        assert_eq!(facts(&[("name", "a\nb".to_owned())]), "name  a\\nb\n");
    }
}

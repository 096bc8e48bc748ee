//! The table that a bench prints.

use std::fmt;

/// What a row's numbers are.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Unit {
    Microseconds,
    Milliseconds,
    Mebibytes,
    /// Millions of instructions.
    Instructions,
    /// Instructions, one by one.
    Steps,
}

#[derive(Debug)]
struct Row {
    what: String,
    unit: Unit,
    values: Vec<f64>,
    /// Index of the row that this one is compared with.
    floor: Option<usize>,
    target: Option<&'static str>,
}

#[derive(Debug, Default)]
pub(crate) struct Table {
    rows: Vec<Row>,
    notes: Vec<String>,
}

impl Table {
    /// Adds a row; gives what a later row names as its floor.
    pub(crate) fn add(&mut self, what: impl Into<String>, unit: Unit, values: Vec<f64>) -> usize {
        self.rows.push(Row { what: what.into(), unit, values, floor: None, target: None });
        self.rows.len() - 1
    }

    /// Compares the row's least and median with those of `floor`.
    pub(crate) fn against(&mut self, row: usize, floor: usize, target: Option<&'static str>) {
        if let Some(row) = self.rows.get_mut(row) {
            (row.floor, row.target) = (Some(floor), target);
        }
    }

    /// A line below the table: above all, what could not be measured.
    pub(crate) fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }
}

/// Least, middle and largest; `None` for no values.
fn summary(values: &[f64]) -> Option<(f64, f64, f64)> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    Some((*sorted.first()?, *sorted.get(sorted.len() / 2)?, *sorted.last()?))
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.rows.iter().map(|row| row.what.chars().count()).max().unwrap_or(0);
        writeln!(
            f,
            "{:width$}  {:>10} {:>10} {:>10}        {:>11}  target",
            "what", "min", "median", "max", "× min × med"
        )?;
        for row in &self.rows {
            let Some((min, median, max)) = summary(&row.values) else {
                writeln!(f, "{:width$}  not measured", row.what)?;
                continue;
            };
            let unit = match row.unit {
                Unit::Microseconds => "µs",
                Unit::Milliseconds => "ms",
                Unit::Mebibytes => "MiB",
                Unit::Instructions => "M",
                Unit::Steps => "instr.",
            };
            let floor = row.floor.and_then(|index| summary(&self.rows.get(index)?.values));
            // The least of many is what the machine's noise spared.
            let ratio = floor
                .filter(|floor| floor.0 > 0.0 && floor.1 > 0.0)
                .map_or_else(String::new, |floor| format!("{:.2} {:.2}", min / floor.0, median / floor.1));
            let target = row.target.unwrap_or("");
            writeln!(f, "{:width$}  {min:>10.1} {median:>10.1} {max:>10.1} {unit:<6} {ratio:>11}  {target}", row.what)?;
        }
        for note in &self.notes {
            writeln!(f, "note: {note}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_shows_its_spread_and_its_ratio_to_the_floor() {
        let mut table = Table::default();
        let floor = table.add("floor", Unit::Microseconds, vec![2.0, 1.0, 3.0]);
        let row = table.add("row", Unit::Microseconds, vec![6.0, 3.0, 5.0]);
        table.against(row, floor, Some("≤ 2 ×"));
        table.add("nothing", Unit::Mebibytes, Vec::new());
        table.note("said");
        let text = table.to_string();
        let line = text.lines().find(|line| line.starts_with("row")).unwrap_or_default();
        assert_eq!(
            line.split_whitespace().collect::<Vec<_>>(),
            ["row", "3.0", "5.0", "6.0", "µs", "3.00", "2.50", "≤", "2", "×"]
        );
        assert!(text.contains("nothing") && text.contains("not measured") && text.ends_with("note: said\n"), "{text}");
    }
}

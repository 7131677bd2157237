//! Numbers and tables as people read them.

use std::fmt::Write;

/// Bytes to three digits or so: `1.50 GiB`.
pub fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut units = UNITS.iter();
    let mut unit = units.next().unwrap_or(&"");
    // What rounds to 1024.00 is one of the next unit.
    while value >= 1023.995
        && let Some(larger) = units.next()
    {
        value /= 1024.0;
        unit = larger;
    }
    format!("{value:.2} {unit}")
}

/// Nanoseconds as seconds.
pub fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

/// Rows in columns, two spaces apart, the last one as long as it likes.
pub fn columns(rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter(|row| row.len() > column + 1);
        cells.map(|row| row[column].chars().count()).max().unwrap_or(0)
    };
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let _infallible = write!(line, "{cell:width$}  ", width = width(column));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_told_in_the_unit_that_people_use() {
        let told = [0, 1023, 1024, (2 << 30) - 1, 2 << 30, 3 << 29, 5 << 50].map(bytes);
        assert_eq!(told, ["0 B", "1023 B", "1.00 KiB", "2.00 GiB", "2.00 GiB", "1.50 GiB", "5.00 PiB"]);
    }

    #[test]
    fn columns_line_up() {
        let rows = [vec!["a".into(), "long cell".into()], vec!["bbb".into(), "c".into(), "d".into()]];
        assert_eq!(columns(&rows), "a    long cell\nbbb  c  d\n");
    }
}

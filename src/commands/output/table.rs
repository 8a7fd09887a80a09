//! Rows as a table without borders, as wide as the terminal.

use std::fmt::Write as _;

use comfy_table::{CellAlignment, ContentArrangement, Table, presets::NOTHING};

use super::cell::Column;

/// A column is not cut below this.
const NARROWEST: usize = 8;

/// How wide a table may be, and whether its header is set off.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TableStyle {
    /// The width of the terminal; `None` where stdout is not one, then nothing is cut.
    pub width: Option<u16>,
    /// Whether there is a header.
    pub has_header: bool,
    /// Whether the header is bold.
    pub is_coloured: bool,
}

/// Returns the lines of a table, each ending with a line break.
pub(crate) fn render(columns: &[Column], rows: &[Vec<String>], style: TableStyle) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING);
    let names: Vec<String> = columns.iter().map(|column| column.name.to_owned()).collect();
    let widths = widths(&names, rows, style);
    table.set_content_arrangement(ContentArrangement::Disabled);
    if style.has_header {
        table.set_header(names);
    }
    for row in rows {
        table.add_row(row.iter().zip(&widths).map(|(cell, width)| cut(cell, *width)));
    }
    for (index, column) in columns.iter().enumerate() {
        if let Some(shown) = table.column_mut(index) {
            shown.set_padding((0, 2));
            if column.is_right_aligned() {
                shown.set_cell_alignment(CellAlignment::Right);
            }
        }
    }
    finish(&table.to_string(), style)
}

/// Cuts trailing padding and makes the header bold where colour is on.
fn finish(text: &str, style: TableStyle) -> String {
    let mut out = String::with_capacity(text.len());
    for (index, line) in text.lines().enumerate() {
        let line = line.trim_end_matches(' ');
        if index == 0 && style.has_header && style.is_coloured {
            let bold = anstyle::Style::new().bold();
            // Writing to a String cannot fail.
            let _ = write!(out, "{bold}{line}{bold:#}");
        } else {
            out.push_str(line);
        }
        out.push('\n');
    }
    out
}

/// Shares the width of the terminal: the widest columns give up what does not fit.
fn widths(names: &[String], rows: &[Vec<String>], style: TableStyle) -> Vec<usize> {
    let mut widths: Vec<usize> = names.iter().map(|name| name.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let Some(limit) = style.width.map(usize::from).filter(|width| *width > 0) else {
        return widths;
    };
    loop {
        let total: usize = widths.iter().map(|width| width + 2).sum::<usize>().saturating_sub(2);
        let Some(excess) = total.checked_sub(limit).filter(|excess| *excess > 0) else { break };
        let Some(widest) = widths.iter_mut().max() else { break };
        if *widest <= NARROWEST {
            break;
        }
        *widest = widest.saturating_sub(excess).max(NARROWEST).max(*widest / 2);
    }
    widths
}

fn cut(cell: &str, width: usize) -> String {
    if cell.chars().count() <= width {
        return cell.to_owned();
    }
    let mut text: String = cell.chars().take(width.saturating_sub(1)).collect();
    text.push('…');
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::output::Kind;

    const COLUMNS: &[Column] =
        &[Column::new("KEY", "key", Kind::Bytes), Column::new("VERSION", "version", Kind::Number)];

    fn rows() -> Vec<Vec<String>> {
        vec![vec!["a".repeat(30), "7".to_owned()], vec!["b".to_owned(), "1041".to_owned()]]
    }

    #[test]
    fn numbers_stand_on_the_right_and_nothing_trails() {
        let style = TableStyle { width: None, has_header: true, is_coloured: false };
        let text = render(COLUMNS, &rows(), style);
        let expected =
            format!("{:<30}  VERSION\n{}        7\nb{:>38}\n", "KEY", "a".repeat(30), "1041");
        assert_eq!(text, expected);
    }

    #[test]
    fn a_narrow_terminal_cuts_the_widest_column() {
        let style = TableStyle { width: Some(25), has_header: false, is_coloured: false };
        let text = render(COLUMNS, &rows(), style);
        assert!(text.lines().all(|line| line.chars().count() <= 25), "{text}");
        assert!(text.contains('…'));
    }

    #[test]
    fn width_zero_cuts_nothing() {
        let style = TableStyle { width: Some(0), has_header: false, is_coloured: false };
        assert!(!render(COLUMNS, &rows(), style).contains('…'));
    }
}

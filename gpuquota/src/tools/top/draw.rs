//! How it looks, from 60x10 on.

use super::history::History;
use super::rows::{self, Row};
use super::view::View;
use crate::regions::harmless;
use crate::tools::node::{Card, Node};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{Cell, Paragraph, Table, TableState};

/// The least columns and lines.
pub const LEAST: (u16, u16) = (60, 10);
/// From so many columns on there is room for longer bars.
const WIDE: u16 = 120;
/// Of the lines, what the cards may take.
const CARDS: usize = 4;

/// What is shown.
pub struct Picture {
    source: String,
    pub node: Node,
    /// Why there is no newer one.
    pub trouble: Option<String>,
    has_colours: bool,
}

impl Picture {
    pub fn new(source: String, node: Node) -> Self {
        let has_colours = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self { source, node, trouble: None, has_colours }
    }

    fn style(&self, colour: Color) -> Style {
        if self.has_colours { Style::new().fg(colour) } else { Style::new() }
    }
}

/// Draws everything.
pub fn draw(frame: &mut Frame<'_>, picture: &Picture, history: &History, view: &mut View) {
    let area = frame.area();
    if area.width < LEAST.0 || area.height < LEAST.1 {
        let says = format!("The terminal is too small:\n{}x{} is the least.\nq quits.", LEAST.0, LEAST.1);
        frame.render_widget(Paragraph::new(says), area);
        return;
    }
    if view.has_help {
        frame.render_widget(Paragraph::new(HELP), area);
        return;
    }
    let cards = picture.node.cards.len().clamp(1, usize::from(area.height) / CARDS) as u16;
    let parts = [Constraint::Length(1), Constraint::Length(cards), Constraint::Min(3), Constraint::Length(1)];
    let [head, top, list, foot] = Layout::vertical(parts).areas(area);
    draw_head(frame, head, picture);
    draw_cards(frame, top, picture, history);
    draw_list(frame, list, picture, history, view);
    draw_foot(frame, foot, picture, view);
}

const HELP: &str = "Keys

  q, Esc, Ctrl-C    quit
  arrows, PageUp, PageDown, Home, End    move
  s                 sort by the next column
  n m g w d         sort by name, memory, GPU time, waits, denials
  /                 filter by name; Enter keeps it, Esc drops it
  t                 pods with their containers below, or containers alone
  p                 processes
  ?                 this

! marks a container with a process that no limit holds.
Any key goes back.";

fn draw_head(frame: &mut Frame<'_>, area: Rect, picture: &Picture) {
    let node = &picture.node;
    let living = node.containers.iter().filter(|container| !container.ended).count();
    let text = format!(
        "gpuquota {}  {} cards  {living} containers  {}",
        picture.source,
        node.cards.len(),
        node.taken.replace('T', " ")
    );
    let style = Style::new().add_modifier(Modifier::REVERSED);
    frame.render_widget(Paragraph::new(harmless(&text)).style(style), area);
}

fn draw_cards(frame: &mut Frame<'_>, area: Rect, picture: &Picture, history: &History) {
    let is_wide = area.width >= WIDE;
    let lines: Vec<Line<'_>> =
        picture.node.cards.iter().map(|card| of_card(card, picture, history, is_wide)).collect();
    let none = "no card tells its own figures";
    let text = if lines.is_empty() { vec![Line::from(none)] } else { lines };
    frame.render_widget(Paragraph::new(text), area);
}

fn of_card<'p>(card: &Card, picture: &Picture, history: &History, is_wide: bool) -> Line<'p> {
    let model = harmless(card.model.as_deref().unwrap_or("?"));
    let model = model.strip_prefix("NVIDIA ").unwrap_or(&model);
    if card.lost == Some(true) {
        let text = format!("{:>2} {model}  LOST: it does not answer any more", card.index);
        return Line::styled(text, picture.style(Color::Red).add_modifier(Modifier::BOLD));
    }
    let (bar_of, spark_of, name_of) = if is_wide { (20, 30, 24) } else { (8, 8, 14) };
    let memory = (card.memory_used_bytes.unwrap_or(0), card.memory_total_bytes);
    let busy =
        card.utilization_ratio.map_or_else(|| "  -%".to_owned(), |ratio| format!("{:3.0}%", ratio * 100.0));
    let heat = card.temperature_celsius.map_or_else(String::new, |degrees| format!(" {degrees:.0}C"));
    let power = card.power_watts.map_or_else(String::new, |watts| format!(" {watts:.0}W"));
    let text = format!(
        "{:>2} {:name_of$.name_of$} {} {:>13} {} {busy}{heat}{power}",
        card.index,
        model,
        bar(part(memory), bar_of),
        sizes(memory),
        spark(&history.card(&card.uuid), spark_of),
    );
    Line::styled(text, picture.style(Color::Cyan))
}

fn draw_list(frame: &mut Frame<'_>, area: Rect, picture: &Picture, history: &History, view: &mut View) {
    let all = rows::all(&picture.node, history, view);
    view.rows = all.len();
    view.page = usize::from(area.height.saturating_sub(2)).max(1);
    view.selected = view.selected.min(view.rows.saturating_sub(1));
    if all.is_empty() {
        let none = if view.filter.is_empty() {
            "no container of this node has a quota"
        } else {
            "no name fits the filter"
        };
        frame.render_widget(Paragraph::new(format!("\n{none}")), area);
        return;
    }
    let is_wide = area.width >= WIDE;
    let (bar_of, spark_of) = if is_wide { (20, 30) } else { (6, 6) };
    let columns = [
        Constraint::Min(14),
        Constraint::Length(3),
        Constraint::Length(bar_of as u16 + 14),
        Constraint::Length(if is_wide { bar_of as u16 + 10 } else { 9 }),
        Constraint::Length(spark_of as u16),
        Constraint::Length(5),
        Constraint::Length(6),
    ];
    let header = ["CONTAINER", "DEV", "MEMORY", "GPU/SHARE", "", "WAIT", "DENIED"].map(Cell::from);
    let header = ratatui::widgets::Row::new(header).style(Style::new().add_modifier(Modifier::BOLD));
    let lines = all.iter().map(|row| line(row, picture, bar_of, spark_of, is_wide));
    let table = Table::new(lines, columns)
        .header(header)
        .column_spacing(1)
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED));
    let mut state = TableState::default().with_selected(Some(view.selected));
    frame.render_stateful_widget(table, area, &mut state);
}

fn line<'r>(
    row: &Row,
    picture: &Picture,
    bar_of: usize,
    spark_of: usize,
    is_wide: bool,
) -> ratatui::widgets::Row<'r> {
    let memory = row.memory.map_or_else(String::new, |memory| match memory.1 {
        Some(_) => format!("{} {:>13}", bar(part(memory), bar_of), sizes(memory)),
        None => format!("{} {:>13}", " ".repeat(bar_of), sizes(memory)),
    });
    let time = row.time.map_or_else(String::new, |(busy, share)| {
        let told = busy.map_or_else(|| "-".to_owned(), |busy| format!("{busy:.0}"));
        let of = share.map_or_else(|| "-".to_owned(), |share| format!("{share}%"));
        let bar = bar(busy.unwrap_or(0.0) / f64::from(share.unwrap_or(100).max(1)), bar_of);
        if is_wide { format!("{bar} {told:>4}/{of}") } else { format!("{told:>4}/{of}") }
    });
    let cells = [
        row.name.clone(),
        row.device.map_or_else(String::new, |device| device.to_string()),
        memory,
        time,
        spark(&row.spark, spark_of),
        row.waits.map_or_else(String::new, |waits| format!("{waits:4.0}%")),
        row.denied.map_or_else(String::new, |denied| format!("{denied:>6}")),
    ];
    let style = match row {
        Row { is_hot: true, .. } => picture.style(Color::Red).add_modifier(Modifier::BOLD),
        Row { is_pod: true, .. } => picture.style(Color::Yellow),
        Row { denied: Some(_), .. } => Style::new(),
        _ => Style::new().add_modifier(Modifier::DIM),
    };
    ratatui::widgets::Row::new(cells.map(Cell::from)).style(style)
}

fn draw_foot(frame: &mut Frame<'_>, area: Rect, picture: &Picture, view: &View) {
    let (text, style) = match (&picture.trouble, view.is_typing) {
        (_, true) => (format!("filter: {}_", view.filter), Style::new()),
        (Some(why), _) => {
            (format!("OLD FIGURES: {why}"), picture.style(Color::Red).add_modifier(Modifier::BOLD))
        }
        (None, false) => {
            let filter =
                if view.filter.is_empty() { String::new() } else { format!("  filter {}", view.filter) };
            (
                format!(
                    "q quit  / filter  t tree  p processes  ? help  s sort: {}{filter}",
                    view.sort.word()
                ),
                Style::new(),
            )
        }
    };
    frame.render_widget(Paragraph::new(harmless(&text)).style(style), area);
}

/// What part of the second the first is.
fn part((used, of): (u64, Option<u64>)) -> f64 {
    of.filter(|of| *of != 0).map_or(0.0, |of| used as f64 / of as f64)
}

/// A bar of so many characters.
fn bar(part: f64, length: usize) -> String {
    let full = ((part.clamp(0.0, 1.0) * length as f64).round() as usize).min(length);
    "█".repeat(full) + &"░".repeat(length - full)
}

/// `1.0/2.0G`.
fn sizes((used, of): (u64, Option<u64>)) -> String {
    let size = |bytes: u64| match bytes {
        0..1024 => format!("{bytes}B"),
        _ => {
            let text = crate::words::bytes(bytes);
            let (number, unit) = text.split_once(' ').unwrap_or((&text, ""));
            let number: f64 = number.parse().unwrap_or(0.0);
            let digits = usize::from(number < 100.0);
            format!("{number:.digits$}{}", unit.get(..1).unwrap_or(""))
        }
    };
    match of {
        Some(of) => format!("{}/{}", size(used), size(of)),
        None => size(used),
    }
}

/// The last figures, of 100 each, as small columns.
fn spark(figures: &[u64], length: usize) -> String {
    const STEPS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let last = &figures[figures.len().saturating_sub(length)..];
    let columns = last.iter().map(|figure| STEPS[((figure * 7).div_ceil(100) as usize).min(7)]);
    columns.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_sizes_and_columns_keep_their_length() {
        assert_eq!(
            (bar(0.5, 4), bar(-1.0, 2), bar(f64::NAN, 2), bar(9.0, 2)),
            ("██░░".into(), "░░".into(), "░░".into(), "██".into())
        );
        assert_eq!(sizes((1 << 30, Some(2 << 30))), "1.0G/2.0G");
        assert_eq!(sizes((80 << 30, Some(640 << 30))), "80.0G/640G");
        assert_eq!((sizes((512, None)), sizes((256 << 20, None))), ("512B".into(), "256M".into()));
        assert_eq!(spark(&[0, 50, 100, 900], 3), "▅██");
    }
}

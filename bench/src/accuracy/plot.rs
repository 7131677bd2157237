//! A picture: a container's use of each tenth of a second, in cells in which it should always have the same.

use std::fmt::Write as _;

use crate::Row;
use crate::run::Figures;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 110.0;
const LEFT: f64 = 40.0;
/// Panels of the picture: the first cells with one container and one share.
const PANELS: usize = 8;
/// The colours of the peers, in their order, and their names.
const COLOURS: [(&str, &str); 4] =
    [("#c33", "red"), ("#36c", "blue"), ("#c80", "orange"), ("#838", "purple")];

/// The first round of some cells, over time; ours in black, each peer in its colour, the share as a green line.
pub fn svg(rows: &[Row<'_>]) -> String {
    let plain = |row: &&Row<'_>| row.cell.shares == [30] && !row.ours.is_empty();
    let rows: Vec<_> = rows.iter().filter(plain).take(PANELS).collect();
    let height = rows.len() as f64 * (HEIGHT + 30.0) + 10.0;
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{}\" height=\"{height}\" font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n",
        WIDTH + LEFT + 20.0
    );
    for (at, row) in rows.iter().enumerate() {
        panel(&mut text, 20.0 + at as f64 * (HEIGHT + 30.0), row);
    }
    text + "</svg>\n"
}

fn panel(text: &mut String, top: f64, row: &Row<'_>) {
    let y = |percent: f64| top + HEIGHT * (1.0 - percent.clamp(0.0, 100.0) / 100.0);
    let share = y(row.cell.share(0));
    let right = LEFT + WIDTH;
    let sides: Vec<_> = row.peers.iter().zip(COLOURS.iter().cycle()).collect();
    let legend = sides.iter().map(|(side, (_, colour))| format!("; {colour}: {}", side.name));
    let ours = if sides.is_empty() { "" } else { "; black: gpuquota" };
    let legend = [ours.to_owned()].into_iter().chain(legend).collect::<String>();
    let lines = format!(
        "<text x=\"{LEFT}\" y=\"{}\">{}{legend}</text>\n\
         <rect x=\"{LEFT}\" y=\"{top}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"none\" stroke=\"#ccc\"/>\n\
         <line x1=\"{LEFT}\" x2=\"{right}\" y1=\"{share}\" y2=\"{share}\" stroke=\"#2a7\"/>\n\
         <text x=\"4\" y=\"{}\">100%</text><text x=\"4\" y=\"{}\">0%</text>\n",
        top - 5.0,
        row.cell.name(),
        top + 9.0,
        top + HEIGHT
    );
    text.push_str(&lines);
    let peers =
        sides.iter().filter_map(|(side, (colour, _))| Some((side.rounds.as_ref().ok()?.first()?, *colour)));
    let ours = row.ours.first().map(|figures| (figures, "#000"));
    for (figures, colour) in peers.chain(ours) {
        curve(text, figures, colour, y);
    }
}

fn curve(text: &mut String, figures: &Figures, colour: &str, y: impl Fn(f64) -> f64) {
    let step = WIDTH / figures.timeline.len().max(1) as f64;
    let points = figures.timeline.iter().enumerate().fold(String::new(), |mut points, (at, percent)| {
        write!(points, "{:.1},{:.1} ", LEFT + (at as f64 + 0.5) * step, y(*percent))
            .expect("a String takes all");
        points
    });
    let line = format!("<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\"/>\n", points.trim_end());
    text.push_str(&line);
}

//! A table as a chart: a row per world, a dot per strategy, p99 against p2c's on a logarithmic axis.

use std::fmt::Write;

/// So many strategies can be told apart.
const COLOURS: [&str; 6] = ["#0b6e4f", "#3a86c8", "#888888", "#c77dff", "#f4a261", "#d1495b"];
const LEFT: f64 = 150.0;
const WIDTH: f64 = 560.0;
const TOP: f64 = 50.0;
const ROW: f64 = 22.0;
/// The axis, in powers of two.
const AXIS: std::ops::RangeInclusive<i32> = -5..=5;

/// One SVG picture: the worlds, each with the ratios of all `strategies` in their order.
pub fn draw(strategies: &[String], worlds: &[(&str, Vec<f64>)]) -> String {
    let bottom = TOP + ROW * worlds.len() as f64;
    let mut svg = format!(
        "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {} {}' font-family='sans-serif' font-size='12'>\n\
         <rect width='100%' height='100%' fill='white'/>\n",
        LEFT + WIDTH + 20.0,
        bottom + 30.0
    );
    for power in AXIS {
        let (x, ratio) = (x_of(f64::from(power).exp2()), f64::from(power).exp2());
        let colour = if power == 0 { "#444" } else { "#ddd" };
        put(&mut svg, format_args!("<line x1='{x}' x2='{x}' y1='{TOP}' y2='{bottom}' stroke='{colour}'/>"));
        put(&mut svg, format_args!("<text x='{x}' y='{}' text-anchor='middle'>{ratio}</text>", bottom + 18.0));
    }
    for (index, (strategy, colour)) in strategies.iter().zip(COLOURS).enumerate() {
        let x = LEFT + 95.0 * index as f64;
        put(&mut svg, format_args!("<circle cx='{x}' cy='22' r='5' fill='{colour}'/>"));
        put(&mut svg, format_args!("<text x='{}' y='26'>{strategy}</text>", x + 9.0));
    }
    for (index, (world, ratios)) in worlds.iter().enumerate() {
        let y = TOP + ROW * (index as f64 + 0.5);
        put(&mut svg, format_args!("<text x='{}' y='{}' text-anchor='end'>{world}</text>", LEFT - 12.0, y + 4.0));
        for ((strategy, ratio), colour) in strategies.iter().zip(ratios).zip(COLOURS).rev() {
            let x = x_of(*ratio);
            let told = format!("{strategy}: {ratio:.2} of p2c's p99");
            put(
                &mut svg,
                format_args!("<circle cx='{x:.1}' cy='{y}' r='5' fill='{colour}'><title>{told}</title></circle>"),
            );
        }
    }
    svg.push_str("</svg>\n");
    svg
}

fn put(svg: &mut String, element: std::fmt::Arguments<'_>) {
    writeln!(svg, "{element}").expect("writing to memory");
}

/// Dots beyond the axis stay at its end.
fn x_of(ratio: f64) -> f64 {
    let (first, last) = (f64::from(*AXIS.start()), f64::from(*AXIS.end()));
    LEFT + WIDTH * ((ratio.log2() - first) / (last - first)).clamp(0.0, 1.0)
}

//! The colours of logs, as a style sheet: a class for each of a terminal's 256 colours.
//!
//! Logs stand on a dark ground in every theme, since programs choose their colours for one.
//! Text that would be hard to read there is made lighter, and on a ground of its own it is
//! black or white.

use std::fmt::Write as _;

/// The ground of logs.
const GROUND: Rgb = (0x10, 0x14, 0x1a);

/// What WCAG 2 asks of text.
const CONTRAST: f64 = 4.5;

/// The first 16, which every terminal has its own of.
const NAMED: [Rgb; 16] = [
    (0x48, 0x4f, 0x58),
    (0xff, 0x7b, 0x72),
    (0x56, 0xd3, 0x64),
    (0xe3, 0xb3, 0x41),
    (0x79, 0xb8, 0xff),
    (0xd2, 0xa8, 0xff),
    (0x56, 0xd4, 0xdd),
    (0xc9, 0xd1, 0xd9),
    (0x8b, 0x94, 0x9e),
    (0xff, 0xa1, 0x98),
    (0x7e, 0xe7, 0x87),
    (0xf2, 0xcc, 0x60),
    (0xa5, 0xd6, 0xff),
    (0xe2, 0xc5, 0xff),
    (0xb3, 0xf0, 0xff),
    (0xff, 0xff, 0xff),
];

type Rgb = (u8, u8, u8);

/// The style sheet.
pub(super) fn style_sheet() -> String {
    let mut sheet = format!(".log-lines{{background:{}}}\n", hex(GROUND));
    for number in 0..=255 {
        let colour = colour(number);
        let on_it = if contrast(colour, BLACK) > contrast(colour, WHITE) { BLACK } else { WHITE };
        let text = readable(colour);
        let (text, colour, on_it) = (hex(text), hex(colour), hex(on_it));
        let _ = writeln!(sheet, ".fg{number}{{color:{text}}}");
        let _ = writeln!(sheet, ".bg{number}{{background:{colour};color:{on_it}}}");
    }
    sheet
}

const BLACK: Rgb = (0, 0, 0);
const WHITE: Rgb = (255, 255, 255);

/// A colour by its number, as xterm has them.
fn colour(number: u8) -> Rgb {
    const LEVELS: [u8; 6] = [0, 95, 135, 175, 215, 255];
    match number {
        0..16 => NAMED[usize::from(number)],
        16..232 => {
            let place = usize::from(number - 16);
            (LEVELS[place / 36], LEVELS[place / 6 % 6], LEVELS[place % 6])
        }
        232.. => {
            let grey = 8 + 10 * (number - 232);
            (grey, grey, grey)
        }
    }
}

/// The colour, or the first lighter one that can be read on the ground of logs.
fn readable(colour: Rgb) -> Rgb {
    let lighter = |part: u8, step: u16| {
        let part = u16::from(part);
        u8::try_from(part + (255 - part) * step / 20).unwrap_or(u8::MAX)
    };
    let steps = (0..=20)
        .map(|step| (lighter(colour.0, step), lighter(colour.1, step), lighter(colour.2, step)));
    steps.into_iter().find(|colour| contrast(*colour, GROUND) >= CONTRAST).unwrap_or(WHITE)
}

/// The contrast of two colours, from 1 to 21, as WCAG 2 defines it.
fn contrast(one: Rgb, other: Rgb) -> f64 {
    let (one, other) = (luminance(one), luminance(other));
    (one.max(other) + 0.05) / (one.min(other) + 0.05)
}

fn luminance((red, green, blue): Rgb) -> f64 {
    let linear = |part: u8| {
        let part = f64::from(part) / 255.0;
        if part <= 0.04045 { part / 12.92 } else { ((part + 0.055) / 1.055).powf(2.4) }
    };
    0.2126 * linear(red) + 0.7152 * linear(green) + 0.0722 * linear(blue)
}

fn hex((red, green, blue): Rgb) -> String {
    format!("#{red:02x}{green:02x}{blue:02x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_colour_is_readable_on_the_ground_of_logs() {
        assert!((contrast(BLACK, WHITE) - 21.0).abs() < 0.01);
        for number in 0..=255 {
            assert!(contrast(readable(colour(number)), GROUND) >= CONTRAST, "{number}");
        }
        assert_eq!(readable(colour(2)), colour(2));
    }

    #[test]
    fn the_sheet_has_every_colour_once() {
        let sheet = style_sheet();
        assert_eq!(sheet.matches(".fg").count(), 256);
        assert!(sheet.contains(".fg196{color:#ff0000}") || sheet.contains(".fg196{color:#ff"));
        assert!(sheet.contains(".bg226{background:#ffff00;color:#000000}"));
    }
}

//! A line of a log as HTML, as a terminal shows it: colours become classes, a carriage return
//! writes over what is there, other control sequences are dropped.

use anstyle_parse::{Params, Parser, Perform};

/// How a character looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Style {
    /// A number in the palette of 256 colours.
    foreground: Option<u8>,
    background: Option<u8>,
    bold: bool,
    faint: bool,
    italic: bool,
    underline: bool,
    inverse: bool,
    strike: bool,
}

/// A line with the style that the one before it left.
pub(crate) struct Line {
    cells: Vec<(char, Style)>,
    cursor: usize,
    style: Style,
}

impl Line {
    /// Reads a line, which has no line feed. Invalid UTF-8 is replaced.
    pub(crate) fn read(bytes: &[u8], style: Style) -> Self {
        let mut line = Self { cells: Vec::with_capacity(bytes.len()), cursor: 0, style };
        let mut parser = Parser::<anstyle_parse::DefaultCharAccumulator>::default();
        for byte in String::from_utf8_lossy(bytes).bytes() {
            parser.advance(&mut line, byte);
        }
        line
    }

    /// The style that the next line begins with.
    pub(crate) fn end_style(&self) -> Style {
        self.style
    }

    /// What it says, without its looks.
    pub(crate) fn text(&self) -> String {
        self.cells.iter().map(|(c, _)| c).collect()
    }

    /// Adds it to `html`: escaped text, in spans with classes.
    pub(crate) fn write_html(&self, html: &mut String) {
        let plain = Style::default();
        let mut current = plain;
        for &(c, style) in &self.cells {
            if style != current {
                if current != plain {
                    html.push_str("</span>");
                }
                if style != plain {
                    html.push_str("<span class=\"");
                    style.write_classes(html);
                    html.push_str("\">");
                }
                current = style;
            }
            match c {
                '<' => html.push_str("&lt;"),
                '>' => html.push_str("&gt;"),
                '&' => html.push_str("&amp;"),
                '"' => html.push_str("&quot;"),
                '\'' => html.push_str("&#39;"),
                c => html.push(c),
            }
        }
        if current != plain {
            html.push_str("</span>");
        }
    }

    fn erase(&mut self, how: u16) {
        let blank = (' ', Style::default());
        match how {
            0 => self.cells.truncate(self.cursor),
            1 => {
                let end = self.cells.len().min(self.cursor + 1);
                self.cells[..end].fill(blank);
            }
            2 => self.cells.fill(blank),
            _ => {}
        }
    }
}

impl Perform for Line {
    fn print(&mut self, c: char) {
        // The parser knows the 7-bit control characters only.
        if c.is_control() {
            return;
        }
        let cell = (c, self.style);
        match self.cells.get_mut(self.cursor) {
            Some(there) => *there = cell,
            None => self.cells.push(cell),
        }
        self.cursor += 1;
    }

    fn execute(&mut self, byte: u8) {
        match byte {
            b'\r' => self.cursor = 0,
            0x08 => self.cursor = self.cursor.saturating_sub(1),
            b'\t' => {
                let cell = ('\t', self.style);
                if self.cursor == self.cells.len() {
                    self.cells.push(cell);
                }
                self.cursor += 1;
            }
            _ => {}
        }
    }

    fn csi_dispatch(&mut self, params: &Params, intermediates: &[u8], ignore: bool, action: u8) {
        if ignore || !intermediates.is_empty() {
            return;
        }
        match action {
            b'm' => self.style.change(params),
            b'K' => self.erase(params.iter().next().and_then(<[u16]>::first).copied().unwrap_or(0)),
            _ => {}
        }
    }
}

impl Style {
    /// The style after a line that begins with this one: [`Line::read`], without the text.
    pub(crate) fn after(self, bytes: &[u8]) -> Self {
        const ESCAPE: char = '\x1b';
        if memchr::memchr(b'\x1b', bytes).is_none() {
            return self;
        }
        let text = String::from_utf8_lossy(bytes);
        let mut rest = &*text;
        let mut tracked = Tracked { style: self, is_text: false };
        let mut parser = Parser::<anstyle_parse::DefaultCharAccumulator>::default();
        while let Some(at) = rest.find(ESCAPE) {
            rest = &rest[at..];
            tracked.is_text = false;
            let mut length = 0;
            for byte in rest.bytes() {
                // Text is a sequence's end, and most of a line: it need not be parsed. A
                // character has to be taken whole.
                if tracked.is_text && rest.is_char_boundary(length) {
                    break;
                }
                parser.advance(&mut tracked, byte);
                length += 1;
            }
            rest = &rest[length..];
        }
        tracked.style
    }

    /// Follows the parameters of a "select graphic rendition".
    fn change(&mut self, params: &Params) {
        let mut params = params.iter();
        while let Some(param) = params.next() {
            match param[0] {
                0 => *self = Self::default(),
                1 => self.bold = true,
                2 => self.faint = true,
                3 => self.italic = true,
                4 => self.underline = param.get(1) != Some(&0),
                7 => self.inverse = true,
                9 => self.strike = true,
                21 => self.underline = true,
                22 => (self.bold, self.faint) = (false, false),
                23 => self.italic = false,
                24 => self.underline = false,
                27 => self.inverse = false,
                29 => self.strike = false,
                code @ 30..=37 => self.foreground = colour(code - 30),
                code @ 40..=47 => self.background = colour(code - 40),
                code @ 90..=97 => self.foreground = colour(code - 90 + 8),
                code @ 100..=107 => self.background = colour(code - 100 + 8),
                39 => self.foreground = None,
                49 => self.background = None,
                38 => self.foreground = extended(param, &mut params).or(self.foreground),
                48 => self.background = extended(param, &mut params).or(self.background),
                _ => {}
            }
        }
    }

    fn write_classes(self, html: &mut String) {
        // What is readable on a background follows from it; see the palette.
        let background = match self.inverse {
            // The page's own text has the colour 7.
            true => Some(self.foreground.unwrap_or(7)),
            false => self.background,
        };
        let mut separator = "";
        let mut add = |class: &str| {
            html.push_str(separator);
            html.push_str(class);
            separator = " ";
        };
        match (background, self.foreground) {
            (Some(background), _) => add(&format!("bg{background}")),
            (None, Some(foreground)) => add(&format!("fg{foreground}")),
            (None, None) => {}
        }
        let classes = [
            (self.bold, "bold"),
            (self.faint, "faint"),
            (self.italic, "italic"),
            (self.underline, "underline"),
            (self.strike, "strike"),
        ];
        for (_, class) in classes.into_iter().filter(|(has, _)| *has) {
            add(class);
        }
    }
}

/// Follows the style only.
struct Tracked {
    style: Style,
    is_text: bool,
}

impl Perform for Tracked {
    fn print(&mut self, _: char) {
        self.is_text = true;
    }

    fn csi_dispatch(&mut self, params: &Params, intermediates: &[u8], ignore: bool, action: u8) {
        if !ignore && intermediates.is_empty() && action == b'm' {
            self.style.change(params);
        }
    }
}

fn colour(number: u16) -> Option<u8> {
    u8::try_from(number).ok()
}

/// The colour behind 38 or 48: `5;N` or `2;R;G;B`, also with colons.
fn extended<'a>(param: &[u16], rest: &mut impl Iterator<Item = &'a [u16]>) -> Option<u8> {
    let mut next = || rest.next().map(|param| param[0]);
    let (kind, colour): (u16, Vec<u16>) = match param {
        [_] => match next()? {
            5 => (5, vec![next()?]),
            2 => (2, vec![next()?, next()?, next()?]),
            _ => return None,
        },
        [_, 2, _, red, green, blue, ..] | [_, 2, red, green, blue] => {
            (2, vec![*red, *green, *blue])
        }
        [_, kind, colour @ ..] => (*kind, colour.to_vec()),
        [] => return None,
    };
    match (kind, &colour[..]) {
        (5, [number, ..]) => u8::try_from(*number).ok(),
        (2, [red, green, blue]) => Some(nearest(*red, *green, *blue)),
        _ => None,
    }
}

/// The place of a colour in the cube of 6 × 6 × 6.
fn nearest(red: u16, green: u16, blue: u16) -> u8 {
    // Its levels are 0, 95, 135, 175, 215, 255.
    let level = |value: u16| match value {
        0..48 => 0,
        48..115 => 1,
        115..155 => 2,
        155..195 => 3,
        195..235 => 4,
        _ => 5,
    };
    16 + 36 * level(red) + 6 * level(green) + level(blue)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn html(bytes: &[u8]) -> String {
        let mut html = String::new();
        Line::read(bytes, Style::default()).write_html(&mut html);
        html
    }

    #[test]
    fn colours_become_classes() {
        for (bytes, expected) in [
            ("plain", "plain"),
            ("\x1b[1m\x1b[32mok\x1b[0m.", "<span class=\"fg2 bold\">ok</span>."),
            ("\x1b[91ma\x1b[39mb", "<span class=\"fg9\">a</span>b"),
            ("\x1b[38;5;208ma", "<span class=\"fg208\">a</span>"),
            ("\x1b[38;2;255;0;0ma", "<span class=\"fg196\">a</span>"),
            ("\x1b[38:2::255:0:0ma", "<span class=\"fg196\">a</span>"),
            ("\x1b[38:5:9ma", "<span class=\"fg9\">a</span>"),
            ("\x1b[30;43ma", "<span class=\"bg3\">a</span>"),
            ("\x1b[7ma", "<span class=\"bg7\">a</span>"),
            ("\x1b[4;2ma\x1b[22;24mb", "<span class=\"faint underline\">a</span>b"),
            ("\x1b[38;5ma", "a"),
            ("\x1b[38;5;999ma", "a"),
        ] {
            assert_eq!(html(bytes.as_bytes()), expected, "{bytes:?}");
        }
    }

    #[test]
    fn carriage_returns_write_over_what_is_there() {
        assert_eq!(html(b"10%\r20%\r100%\r"), "100%");
        assert_eq!(html(b"longer\rab"), "abnger");
        assert_eq!(html(b"longer\rab\x1b[K"), "ab");
        assert_eq!(html(b"longer\r\x1b[2Kab"), "ab    ");
        assert_eq!(html(b"ab\x08c"), "ac");
    }

    #[test]
    fn other_control_sequences_and_invalid_text_do_no_harm() {
        assert_eq!(html(b"a\x1b]0;title\x07b\x1b[2Jc\x1b[5Ad\x07e\x00f"), "abcdef");
        assert_eq!(html(b"a\xffb\xc3"), "a\u{fffd}b\u{fffd}");
        assert_eq!(html(b"\xe2\x1b[31mred"), "\u{fffd}<span class=\"fg1\">red</span>");
        assert_eq!(html("a\u{9b}31mb".as_bytes()), "a31mb");
        assert_eq!(html(b"<script>&'\""), "&lt;script&gt;&amp;&#39;&quot;");
        assert_eq!(html(b"\x1b[31;\"><script>mx"), "cript&gt;mx");
    }

    #[test]
    fn the_style_goes_on_in_the_next_line() {
        let first = Line::read(b"\x1b[31mred", Style::default());
        let mut html = String::new();
        Line::read(b"still\x1b[0m not", first.end_style()).write_html(&mut html);
        assert_eq!(html, "<span class=\"fg1\">still</span> not");
    }

    fn logs() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..12),
            Just(b"<script>alert(1)</script>".to_vec()),
            (0..120_u16, 0..300_u16).prop_map(|(a, b)| format!("\x1b[{a};{b}m").into_bytes()),
            (0..300_u16).prop_map(|a| format!("\x1b[38;5;{a}m").into_bytes()),
            Just("é😀".as_bytes().to_vec()),
            Just(b"\x1b]8;;http://x\x1b\\\r\x1b[K".to_vec()),
        ];
        proptest::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn no_bytes_become_markup_but_spans_with_classes(bytes in logs()) {
            let html = html(&bytes);
            let mut open = 0;
            for part in html.split('<').skip(1) {
                let (tag, text) = part.split_once('>').unwrap();
                match tag.strip_prefix("span class=\"").and_then(|tag| tag.strip_suffix('"')) {
                    Some(classes) => {
                        prop_assert!(classes.chars().all(|c| c.is_ascii_alphanumeric() || c == ' '));
                        open += 1;
                    }
                    None => {
                        prop_assert_eq!(tag, "/span");
                        open -= 1;
                    }
                }
                prop_assert!(!text.contains(['>', '"', '\'']));
            }
            prop_assert_eq!(open, 0);
        }

        #[test]
        fn the_style_after_a_line_needs_no_text(bytes in logs()) {
            let line = Line::read(&bytes, Style::default());
            prop_assert_eq!(Style::default().after(&bytes), line.end_style());
        }
    }
}

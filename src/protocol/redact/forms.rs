//! The forms in which a secret turns up in a log.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// Shorter secrets are not masked: they would be found everywhere. In characters.
const SHORTEST: usize = 4;

/// How long the lines are that base64 is broken into: by `openssl base64`, and
/// by `base64`.
pub(super) const BASE64_LINES: [usize; 2] = [64, 76];

/// What RFC 3986 leaves as it is in a URL.
pub(super) const URL_UNRESERVED: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// All forms of `secret`: none if it is too short.
pub(super) fn forms(secret: &str) -> Vec<Vec<u8>> {
    let mut forms = Vec::new();
    let whole = secret.trim();
    if whole.chars().count() < SHORTEST {
        return forms;
    }
    // Terraform indents the lines of a text, so each counts by itself.
    let lines = whole.lines().map(str::trim).filter(|line| line.len() >= 2 * SHORTEST);
    for text in std::iter::once(whole).chain(lines) {
        forms.push(text.as_bytes().to_vec());
        forms.extend(escaped(text));
        forms.extend(url_encoded(text));
        forms.extend(base64(text));
    }
    forms.extend(base64(secret));
    forms.retain(|form| is_long(form));
    forms
}

/// Whether a form is long enough to be looked for.
pub(super) fn is_long(form: &[u8]) -> bool {
    form.len() >= SHORTEST
}

/// As JSON has it, as Go writes JSON (it also escapes `<`, `>` and `&`), and as
/// HCL has it.
fn escaped(text: &str) -> Vec<Vec<u8>> {
    let quoted = serde_json::to_string(text).expect("a text has a form in JSON");
    let json = &quoted[1..quoted.len() - 1];
    let go = json.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026");
    let hcl = json.replace("${", "$${").replace("%{", "%%{");
    vec![json.into(), go.into(), hcl.into()]
}

/// With upper and lower case digits, and with `+` for a blank as in forms.
fn url_encoded(text: &str) -> Vec<Vec<u8>> {
    let upper = utf8_percent_encode(text, URL_UNRESERVED).to_string();
    let mut lower = upper.clone().into_bytes();
    for at in 0..lower.len() {
        if lower[at] == b'%' {
            lower[at + 1..at + 3].make_ascii_lowercase();
        }
    }
    vec![upper.replace("%20", "+").into_bytes(), upper.into_bytes(), lower]
}

/// By itself, and as part of a longer text that was encoded (`user:password`):
/// there the three ways in which it may lie across base64's groups, without the
/// characters at the ends, which depend on its neighbours too.
fn base64(text: &str) -> Vec<Vec<u8>> {
    let mut forms = Vec::new();
    for engine in [&STANDARD, &URL_SAFE] {
        let alone = engine.encode(text);
        let lines = BASE64_LINES.into_iter().flat_map(|length| alone.as_bytes().chunks(length));
        forms.extend(lines.filter(|line| line.len() >= 2 * SHORTEST).map(<[u8]>::to_vec));
        forms.push(alone.trim_end_matches('=').into());
        for before in 0..3 {
            let padded = [&b"\0\0"[..before], text.as_bytes()].concat();
            let code = engine.encode(&padded);
            let first = [0, 2, 3][before];
            let last = padded.len() * 8 / 6;
            forms.push(code.as_bytes()[first..last].to_vec());
        }
    }
    forms
}

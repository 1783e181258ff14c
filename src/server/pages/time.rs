//! Times, as pages show them.

use jiff::Timestamp;
use tera::{Filter, Kwargs, State};

use crate::clock::{Millis, rfc3339};

/// The filter `time`: milliseconds become `<time>` with how long ago it was. A script shows the
/// time in the reader's zone when they point at it, and keeps the distance up to date.
pub(super) struct Relative;

impl Filter<Millis, String> for Relative {
    fn call(&self, at: Millis, _: Kwargs, _: &State<'_>) -> String {
        let iso = rfc3339(at / 1000 * 1000);
        let said = iso.replace('T', " ").replace('Z', " UTC");
        let distance = distance(at, Timestamp::now().as_millisecond());
        format!(r#"<time datetime="{iso}" title="{said}">{distance}</time>"#)
    }

    fn is_safe(&self) -> bool {
        true
    }
}

/// The filter `clock`: milliseconds become the time of the day in UTC, to the second.
pub(super) struct TimeOfDay;

impl Filter<Millis, String> for TimeOfDay {
    fn call(&self, at: Millis, _: Kwargs, _: &State<'_>) -> String {
        clock(at)
    }
}

/// The time of the day in UTC, to the second.
pub(super) fn clock(at: Millis) -> String {
    let time = Timestamp::from_millisecond(at).unwrap_or_default();
    time.strftime("%H:%M:%S").to_string()
}

/// How far `at` is from `now`. The script `time.js` says the same.
fn distance(at: Millis, now: Millis) -> String {
    let seconds = (now - at).abs() / 1000;
    if seconds < 5 {
        return "now".to_owned();
    }
    let (count, unit) = match seconds {
        0..60 => (seconds, "second"),
        60..3_600 => (seconds / 60, "minute"),
        3_600..86_400 => (seconds / 3_600, "hour"),
        86_400..2_592_000 => (seconds / 86_400, "day"),
        2_592_000..31_536_000 => (seconds / 2_592_000, "month"),
        _ => (seconds / 31_536_000, "year"),
    };
    let plural = if count == 1 { "" } else { "s" };
    match at < now {
        true => format!("{count} {unit}{plural} ago"),
        false => format!("in {count} {unit}{plural}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_of_the_day_has_two_digits_each() {
        assert_eq!(clock(1_700_000_000_999), "22:13:20");
        assert_eq!(clock(86_400_000 + 61_000), "00:01:01");
    }

    #[test]
    fn a_distance_has_the_largest_unit_that_fits() {
        let now = 100_000_000_000;
        for (ago, expected) in [
            (4, "now"),
            (59, "59 seconds ago"),
            (60, "1 minute ago"),
            (7_200, "2 hours ago"),
            (-86_400, "in 1 day"),
            (86_400 * 400, "1 year ago"),
        ] {
            assert_eq!(distance(now - ago * 1000, now), expected);
        }
    }
}

//! The filter `duration`: milliseconds as people say them.

use tera::{Filter, Kwargs, State};

use crate::clock::Millis;

pub(super) struct Duration;

impl Filter<Millis, String> for Duration {
    fn call(&self, milliseconds: Millis, _: Kwargs, _: &State<'_>) -> String {
        text(milliseconds)
    }
}

/// Two units at most: what is smaller says nothing beside them.
pub(super) fn text(milliseconds: Millis) -> String {
    let seconds = milliseconds.max(0) / 1000;
    match seconds {
        0 => "under 1 s".to_owned(),
        1..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_two_units_at_most() {
        for (milliseconds, expected) in [
            (999, "under 1 s"),
            (59_999, "59 s"),
            (61_000, "1 min 1 s"),
            (3_720_000, "1 h 2 min"),
            (90_000_000, "1 d 1 h"),
            (-5, "under 1 s"),
        ] {
            assert_eq!(text(milliseconds), expected);
        }
    }
}

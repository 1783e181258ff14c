//! The pictures of a pool's page: its queue and its slots over time.

use serde::{Deserialize, Serialize};

use crate::clock::{Millis, rfc3339};
use crate::store::Connection;
use crate::store::pool_sample::{self, Load, MINUTES, QUARTERS, Sample, Step, TWO_HOURS};

/// How far back a picture goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Span {
    #[default]
    Hour,
    Day,
    Week,
}

impl Span {
    /// The intervals of the picture, and how many it has.
    fn intervals(self) -> (Step, i64) {
        match self {
            Self::Hour => (MINUTES, 60),
            Self::Day => (QUARTERS, 96),
            Self::Week => (TWO_HOURS, 84),
        }
    }
}

/// Two pictures, of the queue and of the slots; all places are in a picture's own units.
#[derive(Debug, Serialize)]
pub(super) struct Chart {
    span: Span,
    width: i64,
    from: Millis,
    most_queued: i64,
    most_slots: i64,
    bars: Vec<Bar>,
}

/// One interval. An interval without a sample, while the server was down, has none.
#[derive(Debug, PartialEq, Serialize)]
struct Bar {
    x: i64,
    at: Millis,
    queued: i64,
    busy: i64,
    slots: i64,
    queued_height: i64,
    busy_height: i64,
    slots_height: i64,
    /// What it says when somebody points at it.
    text: String,
}

/// How wide the place of a bar is, and how high a picture.
const WIDTH: i64 = 10;
const HEIGHT: i64 = 100;

pub(super) async fn read(
    db: &mut Connection,
    pool_id: &str,
    span: Span,
    now: Millis,
) -> sqlx::Result<Chart> {
    let (step, count) = span.intervals();
    let from = (now / step.length - count + 1) * step.length;
    let samples = pool_sample::of_pool(db, pool_id, step, from).await?;
    Ok(draw(&samples, span, from))
}

fn draw(samples: &[Sample], span: Span, from: Millis) -> Chart {
    let (step, count) = span.intervals();
    let most = |value: fn(&Load) -> i64| {
        samples.iter().map(|sample| value(&sample.load)).max().unwrap_or_default()
    };
    let most_queued = most(|load| load.queued);
    // A busy slot of an agent that has just left is none of the slots.
    let most_slots = most(|load| load.slots.max(load.busy));
    let height = |value: i64, most: i64| value * HEIGHT / most.max(1);
    let bar = |Sample { at, load: Load { queued, busy, slots } }: &Sample| Bar {
        x: (at - from) / step.length * WIDTH,
        at: *at,
        queued: *queued,
        busy: *busy,
        slots: *slots,
        queued_height: height(*queued, most_queued),
        busy_height: height(*busy, most_slots),
        slots_height: height(*slots, most_slots),
        text: format!(
            "{}: {queued} queued, {busy} of {slots} slots busy",
            rfc3339(*at).replace('T', " ").replace(":00Z", " UTC")
        ),
    };
    let bars = samples.iter().map(bar).collect();
    Chart { span, width: count * WIDTH, from, most_queued, most_slots, bars }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_has_a_bar_for_each_sample_and_gaps_where_there_is_none() {
        let from = 1_700_000_040_000;
        let sample = |minute: i64, queued, busy, slots| Sample {
            at: from + minute * MINUTES.length,
            load: Load { queued, busy, slots },
        };
        let samples = [sample(0, 0, 1, 4), sample(1, 8, 4, 4), sample(5, 4, 0, 2)];
        let chart = draw(&samples, Span::Hour, from);
        assert_eq!((chart.width, chart.most_queued, chart.most_slots), (600, 8, 4));
        let places: Vec<_> = chart
            .bars
            .iter()
            .map(|bar| (bar.x, bar.queued_height, bar.busy_height, bar.slots_height))
            .collect();
        assert_eq!(places, [(0, 0, 25, 100), (10, 100, 100, 100), (50, 50, 0, 50)]);
        assert_eq!(chart.bars[1].text, "2023-11-14 22:15 UTC: 8 queued, 4 of 4 slots busy");
    }

    #[test]
    fn a_pool_that_was_never_used_has_a_picture_without_heights() {
        let sample = Sample { at: 0, load: Load { queued: 0, busy: 0, slots: 0 } };
        let chart = draw(&[sample], Span::Week, 0);
        assert_eq!(chart.bars[0].slots_height, 0);
    }
}

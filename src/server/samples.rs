//! Samples the queue and the slots of each pool once a minute.

use std::time::Duration;

use anyhow::Result;
use tokio::time::MissedTickBehavior;
use tracing::error;

use crate::app::App;
use crate::pages;
use crate::store::pool_sample;

const PERIOD: Duration = Duration::from_secs(60);

/// Samples until the server stops.
pub(crate) async fn sample_pools(app: App) {
    let mut interval = tokio::time::interval(PERIOD);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = interval.tick() => {}
            () = app.scheduler.wake.stopped() => return,
        }
        if let Err(error) = sample(&app).await {
            error!("cannot sample the pools: {error:#}");
        }
    }
}

/// Takes one sample of each pool, and deletes old ones.
pub(crate) async fn sample(app: &App) -> Result<()> {
    let mut db = app.scheduler.store.read().await?;
    let loads = pages::pool_loads(app, &mut db).await?;
    drop(db);
    let now = app.scheduler.clock.now();
    let mut tx = app.scheduler.store.write().await?;
    for (pool_id, load) in loads {
        pool_sample::add(&mut tx, &pool_id, now, load).await?;
    }
    pool_sample::delete_old(&mut tx, now).await?;
    Ok(tx.commit().await?)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::clock::{Clock, Millis};
    use crate::in_process::InProcess;
    use crate::store::pool_sample::{Load, MINUTES, QUARTERS, Sample, TWO_HOURS, add, of_pool};

    async fn pool(server: &InProcess) -> String {
        let pools = server.api(axum::http::Method::GET, "/agent-pools", json!(null)).await;
        pools["data"][0]["id"].as_str().unwrap().to_owned()
    }

    #[tokio::test]
    async fn each_pool_is_sampled_with_its_queue_and_its_busy_slots() {
        let server = InProcess::with_clock(Clock::standing()).await;
        server.working().await;
        server.run().await;
        let pool = pool(&server).await;
        sample(&server.app).await.unwrap();
        let mut db = server.app.scheduler.store.read().await.unwrap();
        for step in [MINUTES, QUARTERS, TWO_HOURS] {
            let samples = of_pool(&mut db, &pool, step, 0).await.unwrap();
            let loads: Vec<Load> = samples.iter().map(|sample| sample.load).collect();
            assert_eq!(loads, [Load { queued: 1, busy: 1, slots: 5 }]);
        }
    }

    #[tokio::test]
    async fn samples_keep_the_greatest_value_of_an_interval_and_a_bounded_number_of_them() {
        let server = InProcess::with_clock(Clock::standing()).await;
        let pool = pool(&server).await;
        let begin: Millis = 1_700_006_400_000;
        let mut tx = server.app.scheduler.store.write().await.unwrap();
        for minute in 0..20 * 24 * 60 {
            let load = Load { queued: minute % 15, busy: 1, slots: 2 };
            // Each twentieth minute is enough for the longer intervals.
            if minute % 20 == 14 || minute > 20 * 24 * 60 - 200 {
                add(&mut tx, &pool, begin + minute * MINUTES.length, load).await.unwrap();
            }
        }
        let end = begin + 20 * 24 * 60 * MINUTES.length;
        crate::store::pool_sample::delete_old(&mut tx, end).await.unwrap();
        let mut counts = Vec::new();
        for step in [MINUTES, QUARTERS, TWO_HOURS] {
            counts.push(of_pool(&mut tx, &pool, step, 0).await.unwrap().len());
        }
        let [minutes, quarters, two_hours] = counts[..] else { panic!() };
        assert!((115..=120).contains(&minutes), "{counts:?}");
        assert!((140..=192).contains(&quarters), "{counts:?}");
        assert_eq!(two_hours, 96);
        let last = of_pool(&mut tx, &pool, QUARTERS, end - QUARTERS.length).await.unwrap();
        let load = Load { queued: 14, busy: 1, slots: 2 };
        assert_eq!(last, [Sample { at: end - QUARTERS.length, load }]);
    }
}

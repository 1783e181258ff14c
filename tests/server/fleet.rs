//! Many agents at once, simulated.

use std::path::Path;
use std::time::{Duration, Instant};

use load::fleet::{Fleet, Work};
use load::site::Site;

/// How long anything may take before a test gives up on it.
const PATIENCE: Duration = Duration::from_secs(120);

async fn site(options: &[&str]) -> Site {
    Site::start(Path::new(env!("CARGO_BIN_EXE_scalr-server-under-test")), options).await.unwrap()
}

async fn ended(fleet: &Fleet, runs: usize) {
    let ended = async {
        while fleet.ended() < runs {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let waited = tokio::time::timeout(PATIENCE, ended).await;
    waited.unwrap_or_else(|_| panic!("{} runs ended: {:?}", fleet.ended(), fleet.failures()));
}

#[tokio::test]
async fn runs_of_many_workspaces_end_on_the_agents_that_are_free() {
    let site = site(&[]).await;
    let work = Work { think: Duration::from_millis(100), log: 100_000 };
    let fleet = Fleet::start(&site, 20, work).unwrap();
    fleet.registered(PATIENCE).await.unwrap();
    for number in 0..40 {
        let workspace = site.workspace(&format!("workspace-{number}")).await.unwrap();
        let run = site.run(&workspace).await.unwrap();
        fleet.queued(&run, Instant::now());
    }
    ended(&fleet, 40).await;
    assert_eq!(fleet.failures(), [] as [&str; 0]);
    assert_eq!(fleet.pick_ups().len(), 40);
}

#[tokio::test]
async fn a_restart_of_the_server_loses_none_of_500_agents_and_no_task() {
    let mut site = site(&[]).await;
    let work = Work { think: Duration::from_secs(12), log: 1000 };
    let fleet = Fleet::start(&site, 500, work).unwrap();
    fleet.registered(PATIENCE).await.unwrap();
    for number in 0..10 {
        let workspace = site.workspace(&format!("workspace-{number}")).await.unwrap();
        let run = site.run(&workspace).await.unwrap();
        fleet.queued(&run, Instant::now());
    }
    let claimed = async {
        while fleet.pick_ups().len() < 10 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, claimed).await.unwrap();
    fleet.restarting();
    site.crash_and_restart().unwrap();
    let statuses = site.agents("status").await.unwrap();
    assert_eq!(statuses.len(), 500);
    assert!(!statuses.iter().any(|status| status == "offline"), "before they are back");
    fleet.back(PATIENCE).await.unwrap();
    let statuses = site.agents("status").await.unwrap();
    assert!(!statuses.iter().any(|status| status == "offline"));
    ended(&fleet, 10).await;
    let log = site.log().unwrap();
    assert!(!log.contains("taken back") && !log.contains("replaced"), "{log}");
}

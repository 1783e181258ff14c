//! The state machine, with a clock that the tests set.

use std::io::Write as _;
use std::time::Duration;

use futures_util::FutureExt as _;
use serde_json::{Value, json};
use sqlx::Connection as _;

use super::LARGE_FLEET;
use super::wake::Held;
use super::{
    Decision, Denied, Error, NewRun, NewState, Presence, Saved, Scheduler, Terms, Wake, millis,
};
use crate::clock::Clock;
use crate::disk::Reserve;
use crate::objects::{MAX_OBJECT, Objects};
use crate::store::access_token::AccessToken;
use crate::store::account::Account;
use crate::store::account_hook::AccountHook;
use crate::store::agent_pool::AgentPool;
use crate::store::configuration_version::ConfigurationVersion;
use crate::store::environment::Environment;
use crate::store::hook_link::{HookEvents, HookLink};
use crate::store::run::{Run, Source, Status};
use crate::store::run_event::Actor;
use crate::store::run_trigger::RunTrigger;
use crate::store::session::Session;
use crate::store::task::{Phase, State, Task};
use crate::store::variable::Variable;
use crate::store::workspace::Workspace;
use crate::store::{
    Page, Store, access_token, account, account_hook, agent, agent_pool, configuration_version,
    environment, hook_link, run, run_event, run_trigger, task, variable, workspace,
};
use crate::token::NewToken;
use crate::usage::Usage;
use protocol::{
    Event, Finish, Heartbeat, Hook, Identity, Intervals, LEVEL, Outcome, Poll, Refresh, Register,
    Resume, RunOptions, TaskState, TaskStatus,
};

const LEASE: Duration = Duration::from_secs(40);
const PLAN_TIMEOUT: Duration = Duration::from_secs(100);
const APPLY_TIMEOUT: Duration = Duration::from_secs(200);

#[tokio::test]
async fn a_run_goes_from_plan_to_apply() {
    let world = World::new().await;
    let agent = world.agent("one").await;
    let run = world.run().await;
    assert_eq!(run.status, Status::PlanQueued);

    let plan = world.take(&agent).await;
    assert_eq!(world.status(&run).await, Status::Planning);
    world.finish(&plan, Outcome::Finished, Some(true)).await.unwrap();
    assert_eq!(world.status(&run).await, Status::Planned);

    world.scheduler.confirm(&run.id, Decision::default()).await.unwrap();
    let apply = world.take(&agent).await;
    assert_eq!((apply.phase, world.status(&run).await), (Phase::Apply, Status::Applying));
    world.finish(&apply, Outcome::Finished, None).await.unwrap();
    assert_eq!(world.status(&run).await, Status::Applied);
}

#[tokio::test]
async fn statements_select_tasks_as_their_states_say() {
    let world = World::new().await;
    let agent = world.agent("one").await;
    let mut task = world.task(&world.run().await, Phase::Plan).await;
    let mut tx = world.scheduler.store.write().await.unwrap();
    let now = world.scheduler.clock.now();
    world.scheduler.presence.seen(&agent.agent_id, now, &[has(&task)], now + 1);
    for state in [
        State::Queued,
        State::Offered,
        State::Claimed,
        State::Running,
        State::Unreachable,
        State::Finished,
        State::Errored,
        State::Canceled,
    ] {
        let is_held = state.is_with_agent() || state == State::Offered;
        task.state = state;
        task.lease_expires_at = state.holds_lease().then_some(now);
        task.ended_at = state.is_ended().then_some(now);
        // An ended task keeps the agent that ended it.
        task.agent_id = (is_held || state.is_ended()).then(|| agent.agent_id.clone());
        task::update(&mut tx, &task).await.unwrap();

        let of_agent = task::of_agent(&mut tx, &agent.agent_id).await.unwrap();
        assert_eq!(!of_agent.is_empty(), is_held, "{state:?}");
        let expired = task::expired(&mut tx, now).await.unwrap();
        assert_eq!(!expired.is_empty(), state.holds_lease(), "{state:?}");
        let renewed = world.scheduler.presence.renewed_until(&task);
        assert_eq!(
            renewed.is_some(),
            is_held && state != State::Offered || state.is_ended(),
            "{state:?}"
        );
        let leases = task::extend_all(&mut tx, now).await.unwrap();
        assert_eq!(leases, u64::from(state.holds_lease()), "{state:?}");
        let mut silent = tx.begin().await.unwrap();
        let deleted = agent::delete_silent(&mut silent, now + 1).await.unwrap();
        assert_eq!(deleted, u64::from(!is_held), "{state:?}");
        silent.rollback().await.unwrap();
    }
}

#[tokio::test]
async fn a_run_is_current_from_its_queued_plan_to_its_end() {
    let world = World::new().await;
    let mut run = world.run().await;
    let mut tx = world.scheduler.store.write().await.unwrap();
    for (status, is_current) in [
        (Status::Pending, false),
        (Status::PlanQueued, true),
        (Status::Planning, true),
        (Status::Planned, true),
        (Status::PlannedAndSaved, false),
        (Status::Confirmed, true),
        (Status::ApplyQueued, true),
        (Status::Applying, true),
        (Status::Canceling, true),
        (Status::Applied, false),
        (Status::PlannedAndFinished, false),
        (Status::Errored, false),
        (Status::Discarded, false),
        (Status::Canceled, false),
    ] {
        run.status = status;
        run::update(&mut tx, &run).await.unwrap();
        let current = run::current(&mut tx, &run.workspace_id).await.unwrap();
        assert_eq!(current.is_some(), is_current, "{status:?}");
        let of_sql: String = sqlx::query_scalar("SELECT status FROM runs WHERE id = $1")
            .bind(&run.id)
            .fetch_one(&mut *tx)
            .await
            .unwrap();
        assert_eq!(status.name(), of_sql);
        assert_eq!(serde_json::to_value(status).unwrap(), of_sql);
    }
}

#[tokio::test]
async fn a_plan_only_run_neither_waits_nor_is_waited_for_and_is_never_applied() {
    let world = World::new().await;
    let agent = world.agent("one").await;
    let (applying, apply) = world.applying(&agent).await;
    let plan_only = world.create(NewRun { is_plan_only: true, ..world.new_run() }).await;
    assert_eq!(plan_only.status, Status::PlanQueued, "it starts beside an apply");
    let plan = world.take(&agent).await;
    assert_eq!(plan.run_id, plan_only.id);
    world.finish(&apply, Outcome::Finished, None).await.unwrap();
    assert_eq!(world.status(&applying).await, Status::Applied);

    let next = world.run().await;
    assert_eq!(next.status, Status::PlanQueued, "it does not wait for a plan-only run");
    world.finish(&plan, Outcome::Finished, Some(true)).await.unwrap();
    assert_eq!(world.status(&plan_only).await, Status::PlannedAndFinished);
    assert_eq!(world.task(&plan_only, Phase::Apply).await.state, State::Canceled);
    let confirmed = world.scheduler.confirm(&plan_only.id, Decision::default()).await;
    assert!(is_conflict(confirmed));
}

#[tokio::test]
async fn a_plan_only_run_starts_while_its_workspace_is_locked() {
    let world = World::new().await;
    let mut tx = world.scheduler.store.write().await.unwrap();
    workspace::set_lock(&mut tx, "ws-main", Some("Not now."), None).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(world.run().await.status, Status::Pending);
    let plan_only = world.create(NewRun { is_plan_only: true, ..world.new_run() }).await;
    assert_eq!(plan_only.status, Status::PlanQueued);
}

#[tokio::test]
async fn a_run_of_a_speculative_configuration_is_plan_only() {
    let world = World::new().await;
    let mut tx = world.scheduler.store.write().await.unwrap();
    let version = configuration_version::find(&mut tx, "cv-main").await.unwrap().unwrap();
    let version = ConfigurationVersion { id: "cv-2".into(), is_speculative: true, ..version };
    configuration_version::insert(&mut tx, &version).await.unwrap();
    tx.commit().await.unwrap();
    let new = || NewRun { configuration_version_id: "cv-2".into(), ..world.new_run() };
    assert!(world.create(new()).await.is_plan_only);
    let saved = NewRun { save_plan: true, ..new() };
    assert_eq!(world.refused(saved).await, "save-plan");
}

#[tokio::test]
async fn a_saved_plan_waits_beside_the_queue_until_it_is_confirmed() {
    let world = World::new().await;
    let agent = world.agent("one").await;
    let saved = world.saved(&agent).await;
    assert_eq!(world.status(&saved).await, Status::PlannedAndSaved);
    let other = world.planned(&agent).await;
    let confirm = || world.scheduler.confirm(&saved.id, Decision::default());
    assert!(is_conflict(confirm().await), "another run is under way");
    world.scheduler.discard(&other.id, Decision::default()).await.unwrap();
    let confirmed = confirm().await.unwrap();
    assert_eq!(confirmed.status, Status::ApplyQueued);
    assert_eq!(world.run().await.status, Status::Pending, "the confirmed plan has its turn");
    let apply = world.take(&agent).await;
    world.finish(&apply, Outcome::Finished, None).await.unwrap();
    assert_eq!(world.status(&saved).await, Status::Applied);
}

#[tokio::test]
async fn a_saved_plan_without_changes_is_finished() {
    let world = World::new().await;
    let agent = world.agent("one").await;
    let run = world.create(NewRun { save_plan: true, ..world.new_run() }).await;
    let plan = world.take(&agent).await;
    world.finish(&plan, Outcome::Finished, Some(false)).await.unwrap();
    assert_eq!(world.status(&run).await, Status::PlannedAndFinished);
}

#[tokio::test]
async fn a_saved_plan_is_discarded_when_the_state_moves_on() {
    let world = World::new().await;
    let agent = world.agent("one").await;
    let saved = world.saved(&agent).await;
    // It began before the apply wrote its state, and ends after that.
    let late = world.create(NewRun { save_plan: true, ..world.new_run() }).await;
    let late_plan = world.take(&agent).await;
    let (_, apply) = world.applying(&agent).await;
    world.save_state(&apply, 1, "a").await.unwrap();
    for run in [&saved, &late] {
        let is_late = run.id == late.id;
        if is_late {
            assert_eq!(world.status(run).await, Status::Planning);
            world.finish(&late_plan, Outcome::Finished, Some(true)).await.unwrap();
        }
        let run = world.reload(run).await;
        assert_eq!(run.status, Status::Discarded, "late: {is_late}");
        assert!(run.error_message.unwrap().contains("state has changed"));
    }
    world.finish(&apply, Outcome::Finished, None).await.unwrap();
    let fresh = world.saved(&agent).await;
    assert_eq!(world.status(&fresh).await, Status::PlannedAndSaved);
}

#[tokio::test]
async fn a_plan_without_changes_is_applied_when_the_run_allows_it() {
    let world = World::new().await;
    let agent = world.agent("one").await;
    let new = NewRun { allow_empty_apply: true, auto_apply: Some(true), ..world.new_run() };
    let run = world.create(new).await;
    let plan = world.take(&agent).await;
    world.finish(&plan, Outcome::Finished, Some(false)).await.unwrap();
    assert_eq!(world.status(&run).await, Status::ApplyQueued);
    let old = Session { level: 1, ..world.agent("old").await };
    assert!(world.events(&old, 1).await.is_empty(), "it would miss a change of the state");
    let (id, attempt) = offer(&world.events(&agent, 1).await);
    let (apply, _) = world.scheduler.claim(&agent, &id, attempt).await.unwrap();
    assert!(apply.changes_nothing);
}

#[tokio::test]
async fn an_environments_hooks_go_to_agents_that_execute_them_and_to_the_apply_as_planned() {
    let world = World::new().await;
    let agent = world.agent("one").await;
    let old = Session { level: 2, ..world.agent("old").await };
    let first = world.run().await;
    let (id, attempt) = offer(&world.events(&old, 1).await);
    // It was offered before the environment had a hook.
    world.link_hook("policy", "exit 0").await;
    world.link_hook("cost", "exit 1").await;
    let refused = world.scheduler.claim(&old, &id, attempt).await.unwrap_err();
    assert!(refused.to_string().contains("upgrade the agent"), "{refused}");
    assert!(world.events(&old, 1).await.is_empty(), "it would skip the hooks");

    let (id, attempt) = offer(&world.events(&agent, 1).await);
    let (plan, _) = world.scheduler.claim(&agent, &id, attempt).await.unwrap();
    let names = |task: &protocol::Task| -> Vec<(String, String)> {
        let hooks = task.environment_hooks.iter();
        hooks.map(|hook| (hook.name.clone(), hook.script.clone())).collect()
    };
    let expected = [("cost", "exit 1"), ("policy", "exit 0")]
        .map(|(name, script)| (name.to_owned(), script.to_owned()));
    assert_eq!(names(&plan), expected);
    world.scheduler.start(&id, attempt).await.unwrap();
    let task = world.task_with_id(&id).await;
    world.finish(&task, Outcome::Finished, Some(true)).await.unwrap();

    world.link_hook("late", "exit 2").await;
    world.scheduler.confirm(&first.id, Decision::default()).await.unwrap();
    assert!(world.events(&old, 1).await.is_empty(), "it would skip the hooks");
    let (id, attempt) = offer(&world.events(&agent, 1).await);
    let (apply, _) = world.scheduler.claim(&agent, &id, attempt).await.unwrap();
    assert_eq!(names(&apply), expected, "an apply does what was planned");
}

#[tokio::test]
async fn a_pool_executes_no_more_runs_at_once_than_its_limit() {
    let world = World::new().await;
    let limit = async |max_concurrency| {
        let mut tx = world.scheduler.store.write().await.unwrap();
        let pool = agent_pool::find(&mut tx, "apool-1").await.unwrap().unwrap();
        agent_pool::update(&mut tx, &AgentPool { max_concurrency, ..pool }).await.unwrap();
        tx.commit().await.unwrap();
    };
    for _ in 0..3 {
        world.create(NewRun { is_plan_only: true, ..world.new_run() }).await;
    }
    limit(Some(1)).await;
    let (one, other) = (world.agent("one").await, world.agent("other").await);
    let first = world.take(&one).await;
    assert!(world.events(&one, 3).await.is_empty());
    assert!(world.events(&other, 3).await.is_empty());

    limit(Some(2)).await;
    let offers = world.events(&other, 3).await;
    let (id, _) = offer(&offers);
    assert_eq!(offers.len(), 1, "an offer has a place, too");
    world.scheduler.clock.advance(world.scheduler.terms.repeat());
    let again = world.events(&other, 3).await;
    assert_eq!((offer(&again).0, again.len()), (id, 1), "its answer may have been lost");

    world.finish(&first, Outcome::Finished, Some(false)).await.unwrap();
    let third = world.events(&one, 3).await;
    assert_eq!(third.len(), 1);
    world.create(NewRun { is_plan_only: true, ..world.new_run() }).await;
    assert!(world.events(&one, 3).await.is_empty());
    limit(None).await;
    assert_eq!(world.events(&one, 3).await.len(), 1);
}

#[tokio::test]
async fn options_that_do_not_go_together_are_refused_by_name() {
    let world = World::new().await;
    let options = |refresh, targets: &[&str], replace: &[&str]| RunOptions {
        refresh,
        targets: targets.iter().map(|&one| one.to_owned()).collect(),
        replace: replace.iter().map(|&one| one.to_owned()).collect(),
    };
    let variables = |pairs: &[(&str, &str)]| {
        pairs.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect()
    };
    let new = || world.new_run();
    let only = || options(Refresh::Only, &[], &[]);
    let long = "x".repeat(65);
    for (name, run) in [
        ("refresh-only", NewRun { options: only(), is_destroy: true, ..new() }),
        ("replace-addrs", NewRun { options: options(Refresh::Only, &[], &["a.b"]), ..new() }),
        (
            "replace-addrs",
            NewRun { options: options(Refresh::First, &[], &["a.b"]), is_destroy: true, ..new() },
        ),
        ("target-addrs", NewRun { options: options(Refresh::First, &["-destroy"], &[]), ..new() }),
        ("save-plan", NewRun { is_plan_only: true, save_plan: true, ..new() }),
        ("allow-empty-apply", NewRun { is_plan_only: true, allow_empty_apply: true, ..new() }),
        ("auto-apply", NewRun { is_plan_only: true, auto_apply: Some(true), ..new() }),
        ("auto-apply", NewRun { save_plan: true, auto_apply: Some(true), ..new() }),
        ("terraform-version", NewRun { terraform_version: Some("1.9.8".into()), ..new() }),
        (
            "terraform-version",
            NewRun { terraform_version: Some(long), is_plan_only: true, ..new() },
        ),
        ("variables", NewRun { variables: variables(&[("a b", "1")]), ..new() }),
        ("variables", NewRun { variables: variables(&[("a", " ")]), ..new() }),
        ("variables", NewRun { variables: variables(&[("a", "1"), ("a", "2")]), ..new() }),
        (
            "variables",
            NewRun { variables: variables(&[("a", &"1".repeat(5 * 1024 * 1024))]), ..new() },
        ),
    ] {
        assert_eq!(world.refused(run).await, name);
    }
    assert!(world.events(&world.agent("one").await, 1).await.is_empty(), "none was made");
}

#[tokio::test]
async fn a_runs_own_inputs_take_precedence_over_its_workspaces() {
    let world = World::new().await;
    let mut tx = world.scheduler.store.write().await.unwrap();
    let workspace = workspace::find(&mut tx, "ws-main").await.unwrap().unwrap();
    let terraform_version = Some("1.5.0".to_owned());
    workspace::update(&mut tx, &Workspace { terraform_version, ..workspace }).await.unwrap();
    for (key, sensitive) in [("size", false), ("password", true), ("other", false)] {
        let variable = Variable {
            id: format!("var-{key}"),
            account_id: "acc-1".into(),
            environment_id: Some("env-1".into()),
            workspace_id: Some("ws-main".into()),
            tag_id: None,
            tag: None,
            key: key.into(),
            value: "of the workspace".to_owned().into(),
            category: variable::Category::Terraform,
            hcl: false,
            sensitive,
            is_final: false,
            description: None,
            created_at: 0,
            updated_at: 0,
        };
        variable::insert(&mut tx, &variable).await.unwrap();
    }
    tx.commit().await.unwrap();
    let agent = world.agent("one").await;
    let options = RunOptions { targets: vec!["a.b".into()], ..RunOptions::default() };
    world
        .create(NewRun {
            is_plan_only: true,
            terraform_version: Some("1.9.8".into()),
            options: options.clone(),
            variables: vec![("size".into(), "2".into()), ("password".into(), "\"x\"".into())],
            source: Source::Cli,
            ..world.new_run()
        })
        .await;
    let (id, attempt) = offer(&world.events(&agent, 1).await);
    let (task, _) = world.scheduler.claim(&agent, &id, attempt).await.unwrap();
    assert_eq!((task.options, task.run_source.as_str()), (options, "cli"));
    assert_eq!(task.terraform_version.as_deref(), Some("1.9.8"));
    let mut variables: Vec<_> = task
        .variables
        .iter()
        .map(|one| (one.key.as_str(), one.value.expose(), one.hcl, one.sensitive))
        .collect();
    variables.sort_unstable();
    let expected = [
        ("other", "of the workspace", false, false),
        ("password", "\"x\"", true, true),
        ("size", "2", true, false),
    ];
    assert_eq!(variables, expected);
}

#[tokio::test]
async fn a_task_with_options_is_offered_to_no_agent_that_would_run_without_them() {
    let world = World::new().await;
    let (old, new) = (world.agent("old").await, world.agent("new").await);
    let old = Session { level: 1, ..old };
    let options = RunOptions { refresh: Refresh::Skip, ..RunOptions::default() };
    let run = world.create(NewRun { options, ..world.new_run() }).await;
    assert!(world.events(&old, 1).await.is_empty());
    let plan = world.take(&new).await;
    assert_eq!(plan.run_id, run.id);
    world.finish(&plan, Outcome::Finished, Some(true)).await.unwrap();
    world.scheduler.confirm(&run.id, Decision::default()).await.unwrap();
    assert_eq!(world.events(&old, 1).await.len(), 1, "an apply does what was planned");
}

#[tokio::test]
async fn every_change_of_a_run_is_remembered_with_who_made_it() {
    let world = World::new().await;
    let agent = world.agent("one").await;
    let ann = || Actor::access_token("at-ann", Some("ann"));
    let says = |text: &str| Decision { actor: ann(), comment: Some(text.to_owned()) };
    let run = world.create(NewRun { by: says("please"), ..world.new_run() }).await;
    let plan = world.take(&agent).await;
    world.finish(&plan, Outcome::Finished, Some(true)).await.unwrap();
    world.scheduler.comment(&run.id, says("looks good")).await.unwrap();
    world.scheduler.confirm(&run.id, says("go")).await.unwrap();
    let apply = world.take(&agent).await;
    world.scheduler.cancel(&run.id, says("stop")).await.unwrap();
    world.finish(&apply, Outcome::Canceled, None).await.unwrap();
    let by_agent = Actor::agent(&agent.agent_id, Some("one"));
    let expected = [
        ("pending", ann(), Some("please")),
        ("plan_queued", Actor::SERVER, None),
        ("planning", by_agent.clone(), None),
        ("planned", by_agent.clone(), None),
        ("commented", ann(), Some("looks good")),
        ("confirmed", ann(), Some("go")),
        ("apply_queued", ann(), None),
        ("applying", by_agent.clone(), None),
        ("canceling", ann(), Some("stop")),
        ("canceled", by_agent, None),
    ];
    let mut db = world.scheduler.store.read().await.unwrap();
    let events =
        run_event::list(&mut db, &run.id, None, Page { number: 1, size: 100 }.into()).await;
    let events = events.unwrap().rows;
    let events: Vec<_> = events
        .iter()
        .map(|event| (event.action.as_str(), event.actor.clone(), event.comment.as_deref()))
        .collect();
    assert_eq!(events, expected);
    drop(db);

    let long = "x".repeat(64 * 1024 + 1);
    let refused = world.scheduler.comment(&run.id, says(&long)).await;
    assert!(matches!(refused, Err(Error::InvalidAttribute { name: "body", .. })));
    let refused = world.scheduler.comment(&run.id, says(" ")).await;
    assert!(matches!(refused, Err(Error::InvalidAttribute { name: "body", .. })));
}

#[tokio::test]
async fn a_run_that_goes_on_after_its_cancel_can_be_given_up_after_a_while() {
    let world = World::new().await;
    let agent = world.agent("one").await;
    let give_up =
        async |run: &Run| world.scheduler.force_cancel(&run.id, Decision::default()).await;
    let (run, apply) = world.applying(&agent).await;
    assert!(is_conflict(give_up(&run).await), "it was not canceled");
    world.scheduler.cancel(&run.id, Decision::default()).await.unwrap();
    assert!(is_conflict(give_up(&run).await), "its agent has some time");
    world.scheduler.clock.advance(Duration::from_secs(120));
    let ended = give_up(&run).await.unwrap();
    assert_eq!(ended.status, Status::Canceled);
    assert!(is_conflict(world.finish(&apply, Outcome::Finished, None).await));
    assert_eq!(world.run().await.status, Status::Pending, "the apply may go on");

    let poll = Poll { free_slots: 0, tasks: vec![has(&apply)] };
    let events = world.scheduler.events(&agent, &poll).await.unwrap();
    assert_eq!(events, [Event::Cancel { task_id: apply.id, attempt: 1 }]);

    let plan_only = world.create(NewRun { is_plan_only: true, ..world.new_run() }).await;
    world.take(&agent).await;
    world.scheduler.cancel(&plan_only.id, Decision::default()).await.unwrap();
    world.scheduler.clock.advance(Duration::from_secs(120));
    assert_eq!(give_up(&plan_only).await.unwrap().status, Status::Canceled);
}

#[tokio::test]
async fn a_plan_without_changes_ends_its_run() {
    let world = World::new().await;
    let agent = world.agent("one").await;
    let run = world.run().await;
    let plan = world.take(&agent).await;
    world.finish(&plan, Outcome::Finished, Some(false)).await.unwrap();
    assert_eq!(world.status(&run).await, Status::PlannedAndFinished);
    assert_eq!(world.task(&run, Phase::Apply).await.state, State::Canceled);
}

#[tokio::test]
async fn runs_of_a_workspace_go_one_after_the_other() {
    let world = World::new().await;
    let agent = world.agent("one").await;
    let first = world.run().await;
    world.scheduler.clock.advance(Duration::from_millis(1));
    let second = world.run().await;
    assert_eq!(second.status, Status::Pending);
    let plan = world.take(&agent).await;
    assert!(world.events(&agent, 5).await.is_empty(), "the second run waits");
    world.finish(&plan, Outcome::Errored, None).await.unwrap();
    assert_eq!(world.status(&first).await, Status::Errored);
    assert_eq!(world.status(&second).await, Status::PlanQueued);
}

#[tokio::test]
async fn no_more_is_offered_than_there_are_free_slots() {
    let world = World::new().await;
    let (one, two) = (world.agent("one").await, world.agent("two").await);
    world.run().await;
    world.run_in("other").await;
    assert!(world.events(&one, 0).await.is_empty());
    assert_eq!(world.events(&one, 1).await.len(), 1);
    assert!(world.events(&one, 1).await.is_empty(), "the offer is about to be claimed");
    assert_eq!(world.events(&two, 2).await.len(), 1, "what was offered to one is not two's");
    world.scheduler.clock.advance(LEASE / 8);
    assert_eq!(world.events(&one, 1).await.len(), 1, "the answer may have been lost");
}

#[tokio::test]
async fn what_an_agent_does_not_claim_within_a_second_is_another_ones_too() {
    let world = World::new().await;
    let (one, two) = (world.agent("one").await, world.agent("two").await);
    let three = world.agent("three").await;
    for first_claims in [true, false] {
        let run = world.run_in(if first_claims { "main" } else { "other" }).await;
        let (id, attempt) = offer(&world.events(&one, 1).await);
        world.scheduler.clock.advance(Duration::from_millis(999));
        assert!(world.events(&two, 1).await.is_empty());
        world.scheduler.clock.advance(Duration::from_millis(1));
        assert_eq!(offer(&world.events(&two, 1).await), (id.clone(), attempt));
        assert!(is_conflict(world.scheduler.claim(&three, &id, attempt).await), "not offered");
        let (first, second) = if first_claims { (&one, &two) } else { (&two, &one) };
        world.scheduler.claim(first, &id, attempt).await.unwrap();
        assert!(is_conflict(world.scheduler.claim(second, &id, attempt).await));
        world.scheduler.claim(first, &id, attempt).await.unwrap();
        let task = world.task(&run, Phase::Plan).await;
        assert_eq!((task.agent_id, task.attempt), (Some(first.agent_id.clone()), 1));
    }
}

#[tokio::test]
async fn the_next_poll_is_woken_when_the_first_does_not_claim() {
    let world = World::new().await;
    let (one, two) = (world.agent("one").await, world.agent("two").await);
    let poll = Poll { free_slots: 1, tasks: Vec::new() };
    let polls = [&one, &two].map(|agent| world.scheduler.hold(agent, &poll));
    polls.iter().for_each(Held::ready);
    let woken = || polls.iter().filter(|poll| poll.woken().now_or_never().is_some()).count();
    world.run().await;
    assert_eq!(woken(), 1, "a task wakes one");
    world.scheduler.wake_for_unclaimed().await.unwrap();
    assert_eq!(woken(), 0, "the first one has time");
    world.scheduler.clock.advance(Duration::from_secs(1));
    world.scheduler.wake_for_unclaimed().await.unwrap();
    assert_eq!(woken(), 1, "then it is the other one's turn");

    // The same goes for an offer that nobody claims.
    assert_eq!(world.events(&one, 1).await.len(), 1);
    polls.iter().for_each(Held::ready);
    world.scheduler.wake_for_unclaimed().await.unwrap();
    assert_eq!(woken(), 0);
    world.scheduler.clock.advance(Duration::from_secs(1));
    world.scheduler.wake_for_unclaimed().await.unwrap();
    assert_eq!(woken(), 1);
}

#[tokio::test]
async fn a_registration_wakes_no_poll_of_another_agent() {
    let world = World::new().await;
    let (one, two) = (world.agent("one").await, world.agent("two").await);
    let poll = Poll { free_slots: 1, tasks: Vec::new() };
    let polls = [&one, &two].map(|agent| world.scheduler.hold(agent, &poll));
    polls.iter().for_each(Held::ready);
    world.agent("three").await;
    world.agent("two").await;
    let woken = polls.map(|poll| poll.woken().now_or_never().is_some());
    assert_eq!(woken, [false, true], "only the poll of a session that has ended");
}

#[tokio::test]
async fn idle_agents_and_renewed_leases_cost_no_write() {
    let world = World::new().await;
    let agent = world.agent("one").await;
    world.run().await;
    let plan = world.take(&agent).await;
    // Another writer holds the database for as long as this lasts.
    let writing = world.scheduler.store.write().await.unwrap();
    let beat =
        Heartbeat { status: protocol::Status::Busy, error_message: None, tasks: vec![has(&plan)] };
    for _ in 0..3 {
        world.scheduler.clock.advance(LEASE / 4);
        world.scheduler.heartbeat(&agent, &beat).await.unwrap();
        world.scheduler.renew(&agent, &poll_with(&plan)).await.unwrap();
        assert!(world.scheduler.events(&agent, &poll_with(&plan)).await.unwrap().is_empty());
        world.scheduler.expire().await.unwrap();
    }
    drop(writing);
    world.expire_after(LEASE / 4).await;
    let task = world.task_with_id(&plan.id).await;
    let ends = world.scheduler.clock.now() + millis(LEASE * 3 / 4);
    assert_eq!((task.state, task.lease_expires_at), (State::Running, Some(ends)));
}

#[tokio::test]
async fn a_large_fleet_calls_half_as_often_and_its_leases_last_twice_as_long() {
    let world = World::new().await;
    let agent = world.agent("one").await;
    let run = world.run().await;
    let plan = world.take(&agent).await;
    assert_eq!(world.scheduler.new_intervals(&agent), None);
    let now = world.scheduler.clock.now();
    for number in 1..LARGE_FLEET {
        world.scheduler.presence.seen(&format!("agent-{number}"), now, &[], now);
    }
    let slower = world.scheduler.new_intervals(&agent).unwrap();
    assert_eq!((slower.heartbeat_seconds, slower.poll_seconds), (20, 40));
    assert_eq!(world.scheduler.new_intervals(&agent), None, "once");
    world.scheduler.renew(&agent, &poll_with(&plan)).await.unwrap();
    world.expire_after(LEASE * 2 - Duration::from_millis(1)).await;
    assert_eq!(world.task(&run, Phase::Plan).await.state, State::Running);
    world.expire_after(Duration::from_millis(1)).await;
    assert_eq!(world.task(&run, Phase::Plan).await.state, State::Queued);

    world.scheduler.renew(&agent, &poll_with(&plan)).await.unwrap();
    world.scheduler.presence.forget(now + 1);
    assert_eq!(world.scheduler.new_intervals(&agent), Some(world.scheduler.terms.intervals()));
}

#[test]
fn an_agent_that_only_polls_is_never_offline() {
    for lease in [4, 40, 80, 600] {
        let terms = Terms {
            lease: Duration::from_secs(lease),
            plan_timeout: PLAN_TIMEOUT,
            apply_timeout: APPLY_TIMEOUT,
        };
        let Intervals { heartbeat_seconds, poll_seconds, .. } = terms.intervals();
        // Else agents send heartbeats while they are idle.
        assert!(poll_seconds <= 2 * heartbeat_seconds, "{lease} s");
        assert!(terms.online_since(0) <= -millis(terms.poll() * 3 / 2), "{lease} s");
    }
}

#[tokio::test]
async fn after_a_restart_each_agent_gets_the_intervals_of_the_fleet_once() {
    let mut world = World::new().await;
    let (here, left) = (world.agent("here").await, world.agent("left").await);
    assert_eq!(world.scheduler.new_intervals(&here), None, "its registration had them");
    world.scheduler.deregister(&left).await.unwrap();
    world.scheduler.presence = Presence::default();
    world.scheduler.restart_presence().await.unwrap();
    assert_eq!(world.scheduler.presence.count(), 1, "who has left is not of the fleet");
    // They may be those of a fleet of another size, whose polls end earlier.
    assert_eq!(world.scheduler.new_intervals(&here), Some(world.scheduler.terms.intervals()));
    assert_eq!(world.scheduler.new_intervals(&here), None);
}

#[tokio::test]
async fn agents_that_were_there_before_a_restart_have_a_full_term_to_come_back() {
    let mut world = World::new().await;
    let (here, gone) = (world.agent("here").await, world.agent("gone").await);
    world.scheduler.clock.advance(LEASE * 10);
    let poll = Poll { free_slots: 1, tasks: Vec::new() };
    world.scheduler.renew(&here, &poll).await.unwrap();
    world.scheduler.save_presence().await.unwrap();
    // The server is away for longer than any term.
    world.scheduler.clock.advance(LEASE * 10);
    world.scheduler.presence = Presence::default();
    world.scheduler.restart_presence().await.unwrap();
    let online = async || {
        let mut db = world.scheduler.store.read().await.unwrap();
        let here = agent::find(&mut db, &here.agent_id).await.unwrap().unwrap();
        let gone = agent::find(&mut db, &gone.agent_id).await.unwrap().unwrap();
        (world.scheduler.is_online(&here), world.scheduler.is_online(&gone))
    };
    assert_eq!(online().await, (true, false));
    world.scheduler.clock.advance(LEASE);
    assert_eq!(online().await, (false, false));
}

#[tokio::test]
async fn a_task_that_its_agent_cannot_start_is_offered_again_at_once() {
    let world = World::new().await;
    let (one, two) = (world.agent("one").await, world.agent("two").await);
    let run = world.run().await;
    let (id, attempt) = offer(&world.events(&one, 1).await);
    world.scheduler.claim(&one, &id, attempt).await.unwrap();
    world.scheduler.give_back(&id, attempt).await.unwrap();
    assert_eq!(world.status(&run).await, Status::PlanQueued);
    assert_eq!(offer(&world.events(&two, 1).await), (id.clone(), attempt + 1));
    let over = world.scheduler.give_back(&id, attempt).await;
    assert!(matches!(over, Err(Error::AttemptOver(_))), "{over:?}");
    world.scheduler.claim(&two, &id, attempt + 1).await.unwrap();
    world.scheduler.start(&id, attempt + 1).await.unwrap();
    let started = world.scheduler.give_back(&id, attempt + 1).await;
    assert!(matches!(started, Err(Error::AttemptOver(_))), "{started:?}");
}

#[tokio::test]
async fn a_pool_tells_what_waits_and_what_is_free() {
    let world = World::new().await;
    let one = world.agent("one").await;
    world.run().await;
    world.run_in("other").await;
    assert_eq!(world.demand().await, (2, 0), "an agent tells what it can take when it polls");
    let poll = async |free_slots| {
        let poll = Poll { free_slots, tasks: Vec::new() };
        world.scheduler.renew(&one, &poll).await.unwrap();
        world.scheduler.events(&one, &poll).await.unwrap()
    };
    let (id, attempt) = offer(&poll(1).await);
    assert_eq!(world.demand().await, (1, 0), "what was offered is as good as taken");
    assert!(poll(1).await.is_empty());
    assert_eq!(world.demand().await, (1, 0), "the answer may have been lost");
    world.scheduler.clock.advance(LEASE / 8);
    assert_eq!(poll(3).await.len(), 2, "the lost offer and another one");
    assert_eq!(world.demand().await, (0, 1));
    world.scheduler.claim(&one, &id, attempt).await.unwrap();
    assert_eq!(world.demand().await, (0, 1));

    let two = world.agent("two").await;
    world.scheduler.renew(&two, &Poll { free_slots: 2, tasks: Vec::new() }).await.unwrap();
    assert_eq!(world.demand().await, (0, 3));
    world.scheduler.deregister(&two).await.unwrap();
    assert_eq!(world.demand().await, (0, 1));
    world.scheduler.clock.advance(LEASE);
    assert_eq!(world.demand().await, (0, 0), "every heartbeat is overdue");
}

#[tokio::test]
async fn a_task_is_claimed_by_one_agent() {
    let world = World::new().await;
    let (one, two) = (world.agent("one").await, world.agent("two").await);
    world.run().await;
    let (id, attempt) = offer(&world.events(&one, 1).await);
    assert!(is_conflict(world.scheduler.claim(&two, &id, attempt).await));
    let (_, first) = world.scheduler.claim(&one, &id, attempt).await.unwrap();
    // Its answer was lost.
    let (_, second) = world.scheduler.claim(&one, &id, attempt).await.unwrap();
    assert!(world.scheduler.task_of_token(&id, first.of_agent.expose()).await.is_err());
    assert!(world.scheduler.task_of_token(&id, second.of_agent.expose()).await.is_ok());
    assert!(world.scheduler.task_of_token("task-x", second.of_agent.expose()).await.is_err());
}

#[tokio::test]
async fn an_unclaimed_offer_goes_to_somebody_else() {
    let world = World::new().await;
    let (one, two) = (world.agent("one").await, world.agent("two").await);
    world.run().await;
    let (id, _) = offer(&world.events(&one, 1).await);
    world.expire_after(LEASE).await;
    let (again, attempt) = offer(&world.events(&two, 1).await);
    assert_eq!((again, attempt), (id.clone(), 2));
    assert!(is_conflict(world.scheduler.claim(&one, &id, 1).await));
}

#[tokio::test]
async fn a_lease_lasts_while_its_agent_sends_heartbeats() {
    let world = World::new().await;
    let agent = world.agent("one").await;
    let run = world.run().await;
    let plan = world.take(&agent).await;
    for _ in 0..5 {
        world.expire_after(LEASE / 2).await;
        world.scheduler.renew(&agent, &poll_with(&plan)).await.unwrap();
    }
    assert_eq!(world.task(&run, Phase::Plan).await.state, State::Running);
}

#[tokio::test]
async fn a_lost_plan_is_run_again_and_its_late_writes_are_refused() {
    let world = World::new().await;
    let (one, two) = (world.agent("one").await, world.agent("two").await);
    let run = world.run().await;
    let lost = world.take(&one).await;
    world.expire_after(LEASE).await;
    assert_eq!(world.status(&run).await, Status::PlanQueued);
    assert!(is_conflict(world.finish(&lost, Outcome::Finished, Some(true)).await));
    let again = world.take(&two).await;
    assert_eq!((again.id.clone(), again.attempt), (lost.id.clone(), 2));
    assert!(is_conflict(world.scheduler.start(&lost.id, lost.attempt).await));
    assert!(is_conflict(world.finish(&lost, Outcome::Errored, None).await));
    assert_eq!(world.status(&run).await, Status::Planning);

    // The first agent is back: what it has does not renew the other's lease,
    // and it is told to stop.
    let poll = Poll { free_slots: 0, tasks: vec![has(&lost)] };
    world.scheduler.renew(&one, &poll).await.unwrap();
    let events = world.scheduler.events(&one, &poll).await.unwrap();
    assert_eq!(events, [Event::Cancel { task_id: lost.id, attempt: 1 }]);
    assert!(world.scheduler.events(&one, &poll).await.unwrap().is_empty(), "told a moment ago");
    world.finish(&again, Outcome::Finished, Some(true)).await.unwrap();
    assert_eq!(world.status(&run).await, Status::Planned);
}

#[tokio::test]
async fn a_task_that_three_agents_have_lost_fails_with_what_became_of_each() {
    let world = World::new().await;
    let run = world.run().await;
    for (name, leaves) in [("one", false), ("two", true), ("three", false)] {
        assert_eq!(world.status(&run).await, Status::PlanQueued, "{name}");
        let agent = world.agent(name).await;
        // An offer that nobody takes is no attempt.
        offer(&world.events(&agent, 1).await);
        world.expire_after(LEASE).await;
        world.take(&agent).await;
        match leaves {
            true => world.scheduler.deregister(&agent).await.unwrap(),
            false => world.expire_after(LEASE).await,
        }
    }
    let failed = world.reload(&run).await;
    assert_eq!(failed.status, Status::Errored);
    assert_eq!(world.task(&run, Phase::Plan).await.state, State::Errored);
    let message = failed.error_message.unwrap();
    assert!(message.contains("was given to an agent 3 times"), "{message}");
    for (name, because) in [
        ("one", "has not reported it since 2023-11-14T22:14:00Z"),
        ("two", "gave it back at 2023-11-14T22:15:20Z"),
        ("three", "has not reported it since 2023-11-14T22:16:00Z"),
    ] {
        let attempt = message.lines().find(|line| line.starts_with(&format!("Agent {name} took")));
        assert!(attempt.is_some_and(|line| line.contains(because)), "{name}: {message}");
    }

    // An apply that is not started neither.
    let agent = world.agent("four").await;
    let run = world.planned(&agent).await;
    world.scheduler.confirm(&run.id, Decision::default()).await.unwrap();
    for _ in 0..3 {
        assert_eq!(world.status(&run).await, Status::ApplyQueued);
        let (id, attempt) = offer(&world.events(&agent, 1).await);
        world.scheduler.claim(&agent, &id, attempt).await.unwrap();
        world.expire_after(LEASE).await;
    }
    assert_eq!(world.status(&run).await, Status::Errored);
}

#[tokio::test]
async fn an_agent_has_no_say_in_the_tasks_of_others() {
    let world = World::new().await;
    let (one, two) = (world.agent("one").await, world.agent("two").await);
    let run = world.run().await;
    let plan = world.take(&one).await;
    world.scheduler.cancel(&run.id, Decision::default()).await.unwrap();
    let poll = poll_with(&plan);
    world.scheduler.renew(&two, &poll).await.unwrap();
    assert!(world.scheduler.events(&two, &poll).await.unwrap().is_empty());
    let cancel = Event::Cancel { task_id: plan.id.clone(), attempt: 1 };
    assert_eq!(world.scheduler.events(&one, &poll).await.unwrap(), [cancel]);
    assert!(is_conflict(world.scheduler.claim(&two, &plan.id, 1).await));

    // Nor does its word keep the other's lease.
    world.scheduler.clock.advance(LEASE);
    world.scheduler.renew(&two, &poll).await.unwrap();
    world.scheduler.deregister(&two).await.unwrap();
    assert_eq!(world.status(&run).await, Status::Canceling);
    world.scheduler.expire().await.unwrap();
    assert_eq!(world.status(&run).await, Status::Canceled);
}

#[tokio::test]
async fn an_apply_that_was_not_started_is_offered_again() {
    let world = World::new().await;
    let (one, two) = (world.agent("one").await, world.agent("two").await);
    let run = world.planned(&one).await;
    world.scheduler.confirm(&run.id, Decision::default()).await.unwrap();
    let (id, attempt) = offer(&world.events(&one, 1).await);
    world.scheduler.claim(&one, &id, attempt).await.unwrap();
    world.expire_after(LEASE).await;
    assert!(is_conflict(world.scheduler.start(&id, attempt).await));
    assert_eq!(offer(&world.events(&two, 1).await), (id, 2));
}

#[tokio::test]
async fn a_started_apply_is_never_run_twice() {
    let world = World::new().await;
    let (one, two) = (world.agent("one").await, world.agent("two").await);
    let (run, apply) = world.applying(&one).await;
    world.expire_after(LEASE * 10).await;
    assert_eq!(world.task(&run, Phase::Apply).await.state, State::Unreachable);
    let lost = world.reload(&run).await;
    assert_eq!(lost.status, Status::Applying);
    assert!(lost.error_message.unwrap().contains("Agent one stopped sending heartbeats"));
    assert!(world.events(&two, 5).await.is_empty());
    world.run().await;
    assert!(world.events(&two, 5).await.is_empty(), "the workspace stays locked");

    // The outcome of that attempt counts.
    world.finish(&apply, Outcome::Finished, None).await.unwrap();
    let applied = world.reload(&run).await;
    assert_eq!((applied.status, applied.error_message), (Status::Applied, None));
    assert_eq!(world.events(&two, 5).await.len(), 1, "the next run starts");
}

#[tokio::test]
async fn an_agent_that_is_back_goes_on_with_its_apply() {
    let world = World::new().await;
    let agent = world.agent("one").await;
    let (run, apply) = world.applying(&agent).await;
    world.expire_after(LEASE).await;
    world.scheduler.renew(&agent, &poll_with(&apply)).await.unwrap();
    assert_eq!(world.task(&run, Phase::Apply).await.state, State::Running);
    assert_eq!(world.reload(&run).await.error_message, None);
    world.expire_after(LEASE).await;
    assert_eq!(world.task(&run, Phase::Apply).await.state, State::Unreachable, "leased again");
}

#[tokio::test]
async fn an_operator_ends_an_unreachable_apply() {
    let world = World::new().await;
    let agent = world.agent("one").await;
    let (run, apply) = world.applying(&agent).await;
    world.expire_after(LEASE).await;
    world.scheduler.cancel(&run.id, Decision::default()).await.unwrap();
    let canceled = world.reload(&run).await;
    assert_eq!(canceled.status, Status::Canceled);
    assert!(canceled.error_message.unwrap().contains("compare the workspace's state"));
    assert!(is_conflict(world.finish(&apply, Outcome::Finished, None).await));
    assert!(is_conflict(world.save_state(&apply, 1, "x").await));

    // Nobody knows whether its state is saved.
    let next = world.run().await;
    assert_eq!(next.status, Status::Pending);
    world.scheduler.unlock("ws-main").await.unwrap();
    assert_eq!(world.status(&next).await, Status::PlanQueued);
}

#[tokio::test]
async fn a_workspace_stays_locked_after_an_apply_whose_state_is_not_saved() {
    for outcome in [Outcome::Finished, Outcome::Errored, Outcome::Canceled] {
        let world = World::new().await;
        let agent = world.agent("one").await;
        let (run, apply) = world.applying(&agent).await;
        let waiting = world.run().await;
        assert!(is_conflict(world.scheduler.unlock("ws-main").await), "a run applies");
        let finish = Finish {
            message: Some("It failed. It is kept there.".to_owned()),
            unsaved_state: Some("It is kept there.".to_owned()),
            ..ended(&apply, outcome, None)
        };
        world.scheduler.finish(&apply.id, &finish).await.unwrap();
        let message = world.reload(&run).await.error_message.unwrap();
        assert!(message.starts_with("It failed. It is kept there.\nThe workspace stays locked."));
        assert!(message.contains("/workspaces/ws-main/actions/unlock"), "{message}");
        assert_eq!(world.status(&waiting).await, Status::Pending);
        world.scheduler.clock.advance(Duration::from_millis(1));
        let later = world.run().await;
        assert_eq!(later.status, Status::Pending);
        assert!(world.events(&agent, 1).await.is_empty());
        assert_eq!(world.run_in("other").await.status, Status::PlanQueued);

        let state = world.state(json!({ "version": 4, "serial": 9, "lineage": "x" })).await;
        world.scheduler.save_uploaded_state("ws-main", state.unwrap(), false).await.unwrap();
        assert_eq!(world.status(&waiting).await, Status::Pending);
        world.scheduler.unlock("ws-main").await.unwrap();
        assert_eq!(world.status(&waiting).await, Status::PlanQueued);
        assert_eq!(world.status(&later).await, Status::Pending, "one after the other");
        assert!(is_conflict(world.scheduler.unlock("ws-main").await), "it is not locked");
    }
}

#[tokio::test]
async fn a_state_is_on_the_disk_before_the_database_is_locked() {
    let world = World::new().await;
    let agent = world.agent("one").await;
    let state = json!({ "version": 4, "serial": 1, "lineage": "x" });
    let uploaded = world.state(state.clone()).await.unwrap();
    let another_writer = world.scheduler.store.write().await.unwrap();
    let save = world.scheduler.save_uploaded_state("ws-main", uploaded, false);
    assert_stored_beside(&world, another_writer, save).await;

    let (_, apply) = world.applying(&agent).await;
    let written = world.state(json!({ "version": 4, "serial": 2, "lineage": "x" })).await.unwrap();
    let another_writer = world.scheduler.store.write().await.unwrap();
    let save = world.scheduler.save_apply_state(&apply.id, apply.attempt, written);
    assert_stored_beside(&world, another_writer, save).await;

    // What is refused, or there already, leaves nothing.
    assert!(is_conflict(world.save_state(&apply, 1, "x").await));
    assert!(matches!(world.save_state(&apply, 2, "x").await, Ok(Saved::Same(_))));
    assert_eq!(world.stored_states(), 2);
}

/// Checks that a state is stored while another writer has the database.
async fn assert_stored_beside(
    world: &World,
    another_writer: crate::store::WriteTransaction,
    save: impl Future<Output = Result<Saved, Error>>,
) {
    let before = world.stored_states();
    let stored = async {
        while world.stored_states() == before {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        drop(another_writer);
    };
    let stored = tokio::time::timeout(Duration::from_secs(20), stored);
    let (saved, stored) = tokio::join!(save, stored);
    stored.expect("the state waits for the other writer");
    assert!(matches!(saved, Ok(Saved::New(_))));
}

#[tokio::test]
async fn a_failed_apply_whose_state_is_saved_locks_nothing() {
    let world = World::new().await;
    let agent = world.agent("one").await;
    let (_, apply) = world.applying(&agent).await;
    let waiting = world.run().await;
    world.finish(&apply, Outcome::Errored, None).await.unwrap();
    assert_eq!(world.status(&waiting).await, Status::PlanQueued);
}

#[tokio::test]
async fn a_restarted_server_gives_every_lease_a_full_term() {
    let world = World::new().await;
    let agent = world.agent("one").await;
    let run = world.run().await;
    world.take(&agent).await;
    world.scheduler.clock.advance(LEASE * 100);
    world.scheduler.restart_leases().await.unwrap();
    world.expire_after(LEASE / 2).await;
    assert_eq!(world.task(&run, Phase::Plan).await.state, State::Running);
    world.expire_after(LEASE / 2).await;
    assert_eq!(world.task(&run, Phase::Plan).await.state, State::Queued);
}

#[tokio::test]
async fn a_clock_that_is_set_back_makes_no_lease_longer() {
    let world = World::new().await;
    let session = world.agent("one").await;
    let run = world.run().await;
    world.take(&session).await;
    world.scheduler.clock.set_back(LEASE * 100);
    world.scheduler.restart_leases().await.unwrap();
    let mut db = world.scheduler.store.read().await.unwrap();
    let seen = agent::find(&mut db, &session.agent_id).await.unwrap().unwrap().last_seen_at;
    assert_eq!(seen, world.scheduler.clock.now());
    drop(db);
    world.expire_after(LEASE).await;
    assert_eq!(world.task(&run, Phase::Plan).await.state, State::Queued);
}

#[tokio::test]
async fn what_is_not_started_is_canceled_at_once() {
    let world = World::new().await;
    let agent = world.agent("one").await;
    let queued = world.run().await;
    world.scheduler.cancel(&queued.id, Decision::default()).await.unwrap();
    assert_eq!(world.status(&queued).await, Status::Canceled);
    assert!(world.events(&agent, 1).await.is_empty());

    let claimed = world.run().await;
    let (id, attempt) = offer(&world.events(&agent, 1).await);
    world.scheduler.claim(&agent, &id, attempt).await.unwrap();
    world.scheduler.cancel(&claimed.id, Decision::default()).await.unwrap();
    assert!(is_conflict(world.scheduler.start(&id, attempt).await));
    assert_eq!(world.status(&claimed).await, Status::Canceled);
    assert!(is_conflict(world.scheduler.cancel(&claimed.id, Decision::default()).await));
}

#[tokio::test]
async fn a_second_cancel_and_a_late_answer_change_nothing_however_far_the_task_is() {
    let world = World::new().await;
    let agent = world.agent("one").await;
    for phase in [Phase::Plan, Phase::Apply] {
        for reached in [State::Queued, State::Offered, State::Claimed, State::Running] {
            let run = match phase {
                Phase::Plan => world.run().await,
                Phase::Apply => world.planned(&agent).await,
            };
            if phase == Phase::Apply {
                world.scheduler.confirm(&run.id, Decision::default()).await.unwrap();
            }
            if reached != State::Queued {
                let (id, attempt) = offer(&world.events(&agent, 1).await);
                if reached != State::Offered {
                    world.scheduler.claim(&agent, &id, attempt).await.unwrap();
                }
                if reached == State::Running {
                    world.scheduler.start(&id, attempt).await.unwrap();
                }
            }
            let task = world.task(&run, phase).await;
            assert_eq!(task.state, reached, "{phase:?}");
            world.scheduler.cancel(&run.id, Decision::default()).await.unwrap();
            let again = world.scheduler.cancel(&run.id, Decision::default()).await;
            let is_running = reached == State::Running;
            assert_eq!(is_conflict(again), !is_running, "{phase:?} {reached:?}");
            assert!(is_conflict(world.scheduler.discard(&run.id, Decision::default()).await));
            assert!(is_conflict(world.scheduler.confirm(&run.id, Decision::default()).await));
            if is_running {
                assert_eq!(world.status(&run).await, Status::Canceling);
                world.finish(&task, Outcome::Canceled, None).await.unwrap();
            }
            assert_eq!(world.status(&run).await, Status::Canceled);
            assert!(is_conflict(world.scheduler.cancel(&run.id, Decision::default()).await));
            assert!(is_conflict(world.scheduler.discard(&run.id, Decision::default()).await));
        }
    }
}

#[tokio::test]
async fn the_agent_is_asked_to_interrupt_what_runs() {
    let world = World::new().await;
    let agent = world.agent("one").await;
    let run = world.run().await;
    let plan = world.take(&agent).await;
    world.scheduler.cancel(&run.id, Decision::default()).await.unwrap();
    assert_eq!(world.status(&run).await, Status::Canceling);
    world.scheduler.cancel(&run.id, Decision::default()).await.unwrap();
    let cancel = Event::Cancel { task_id: plan.id.clone(), attempt: 1 };
    assert_eq!(world.events(&agent, 1).await, std::slice::from_ref(&cancel));
    assert!(world.events(&agent, 1).await.is_empty());
    world.scheduler.clock.advance(LEASE / 8);
    assert_eq!(world.events(&agent, 1).await, [cancel], "the answer may have been lost");
    // It ended just before it could be interrupted: it is canceled all the same.
    world.finish(&plan, Outcome::Finished, Some(true)).await.unwrap();
    assert_eq!(world.status(&run).await, Status::Canceled);
}

#[tokio::test]
async fn an_applied_run_and_no_other_fires_the_triggers_of_its_workspace() {
    let world = World::new().await;
    let agent = world.agent("one").await;
    let mut tx = world.scheduler.store.write().await.unwrap();
    let upstream = workspace::find(&mut tx, "ws-main").await.unwrap().unwrap();
    let downstream = Workspace { id: "ws-down".into(), name: "down".into(), ..upstream };
    workspace::insert(&mut tx, &downstream).await.unwrap();
    let trigger = RunTrigger {
        id: "rt-1".into(),
        upstream_id: "ws-main".into(),
        downstream_id: "ws-down".into(),
        created_at: 0,
    };
    run_trigger::insert(&mut tx, &trigger).await.unwrap();
    tx.commit().await.unwrap();
    for (outcome, fired) in [(Outcome::Errored, 0), (Outcome::Finished, 1)] {
        let (run, apply) = world.applying(&agent).await;
        world.finish(&apply, outcome, None).await.unwrap();
        let mut db = world.scheduler.store.read().await.unwrap();
        let due = run_trigger::due(&mut db).await.unwrap();
        assert_eq!(due.len(), fired, "{outcome:?}");
        assert!(due.iter().all(|triggered| triggered.upstream_run_id == run.id));
    }
}

#[tokio::test]
async fn a_run_is_canceling_until_its_apply_has_ended_and_keeps_its_workspace_locked() {
    let world = World::new().await;
    let agent = world.agent("one").await;
    for (outcome, end) in
        [(Outcome::Canceled, Status::Canceled), (Outcome::Finished, Status::Applied)]
    {
        let (run, apply) = world.applying(&agent).await;
        let waiting = world.run().await;
        world.scheduler.cancel(&run.id, Decision::default()).await.unwrap();
        assert_eq!(world.status(&run).await, Status::Canceling);
        assert!(world.reload(&run).await.locks_workspace());
        assert!(is_conflict(world.scheduler.confirm(&run.id, Decision::default()).await));
        assert!(is_conflict(world.scheduler.unlock("ws-main").await), "a run applies");
        assert_eq!(world.status(&waiting).await, Status::Pending);
        world.finish(&apply, outcome, None).await.unwrap();
        assert_eq!(world.status(&run).await, end);
        world.scheduler.cancel(&waiting.id, Decision::default()).await.unwrap();
    }

    // The agent is lost before it has interrupted the apply.
    let (run, _) = world.applying(&agent).await;
    world.scheduler.cancel(&run.id, Decision::default()).await.unwrap();
    world.expire_after(LEASE).await;
    let lost = world.reload(&run).await;
    assert_eq!(lost.status, Status::Canceling);
    assert!(lost.error_message.unwrap().contains("cancel the run"));
    world.scheduler.cancel(&run.id, Decision::default()).await.unwrap();
    assert_eq!(world.status(&run).await, Status::Canceled);
}

#[tokio::test]
async fn a_task_that_its_agent_does_not_end_is_ended_an_hour_after_its_limit() {
    let world = World::new().await;
    let agent = world.agent("one").await;
    let hour = Duration::from_secs(60 * 60);
    let keep_alive = async |task: &Task, time: Duration| {
        world.scheduler.clock.advance(time);
        world.scheduler.renew(&agent, &poll_with(task)).await.unwrap();
        world.scheduler.expire().await.unwrap();
    };

    let run = world.run().await;
    let plan = world.take(&agent).await;
    keep_alive(&plan, PLAN_TIMEOUT + hour - LEASE / 2).await;
    assert_eq!(world.status(&run).await, Status::Planning);
    keep_alive(&plan, LEASE / 2).await;
    let ended = world.reload(&run).await;
    assert_eq!(ended.status, Status::Errored);
    let message = ended.error_message.unwrap();
    assert!(message.contains("Agent one did not end the plan at its time limit of 100 s"));
    assert!(is_conflict(world.finish(&plan, Outcome::Finished, Some(true)).await));
    let poll = poll_with(&plan);
    let events = world.scheduler.events(&agent, &poll).await.unwrap();
    assert_eq!(events, [Event::Cancel { task_id: plan.id, attempt: 1 }]);

    // An apply of a workspace with a limit of its own may go on, so nothing else begins.
    let mut tx = world.scheduler.store.write().await.unwrap();
    let mut workspace = workspace::find(&mut tx, "ws-main").await.unwrap().unwrap();
    workspace.apply_timeout = Some(1000);
    workspace::update(&mut tx, &workspace).await.unwrap();
    tx.commit().await.unwrap();
    let (run, apply) = world.applying(&agent).await;
    keep_alive(&apply, APPLY_TIMEOUT + hour).await;
    assert_eq!(world.status(&run).await, Status::Applying);
    keep_alive(&apply, Duration::from_secs(800)).await;
    let ended = world.reload(&run).await;
    assert_eq!(ended.status, Status::Errored);
    assert!(ended.error_message.unwrap().contains("The workspace stays locked."));
    assert_eq!(world.run().await.status, Status::Pending);
}

#[tokio::test]
async fn an_apply_is_not_overdue_when_agent_or_server_were_away() {
    let world = World::new().await;
    let agent = world.agent("one").await;
    let (run, apply) = world.applying(&agent).await;
    let long = APPLY_TIMEOUT + Duration::from_secs(2 * 60 * 60);
    world.expire_after(long).await;
    assert_eq!(world.task(&run, Phase::Apply).await.state, State::Unreachable);
    world.scheduler.renew(&agent, &poll_with(&apply)).await.unwrap();
    world.scheduler.expire().await.unwrap();
    assert_eq!(world.status(&run).await, Status::Applying, "its outcome counts");

    world.scheduler.clock.advance(long);
    world.scheduler.restart_leases().await.unwrap();
    world.scheduler.expire().await.unwrap();
    assert_eq!(world.status(&run).await, Status::Applying);
    world.finish(&apply, Outcome::Finished, None).await.unwrap();
    assert_eq!(world.status(&run).await, Status::Applied);
}

#[tokio::test]
async fn a_canceled_plan_whose_agent_is_gone_is_not_run_again() {
    let world = World::new().await;
    let agent = world.agent("one").await;
    let run = world.run().await;
    world.take(&agent).await;
    world.scheduler.cancel(&run.id, Decision::default()).await.unwrap();
    world.expire_after(LEASE).await;
    assert_eq!(world.status(&run).await, Status::Canceled);
}

#[tokio::test]
async fn only_what_waits_for_an_answer_gets_one() {
    let world = World::new().await;
    let agent = world.agent("one").await;
    let run = world.run().await;
    assert!(is_conflict(world.scheduler.confirm(&run.id, Decision::default()).await));
    assert!(is_conflict(world.scheduler.discard(&run.id, Decision::default()).await));
    let plan = world.take(&agent).await;
    world.finish(&plan, Outcome::Finished, Some(true)).await.unwrap();
    assert!(is_conflict(world.scheduler.cancel(&run.id, Decision::default()).await));
    world.scheduler.discard(&run.id, Decision::default()).await.unwrap();
    assert_eq!(world.status(&run).await, Status::Discarded);
    assert!(is_conflict(world.scheduler.confirm(&run.id, Decision::default()).await));
}

#[tokio::test]
async fn start_and_finish_can_be_said_twice() {
    let world = World::new().await;
    let agent = world.agent("one").await;
    let run = world.run().await;
    let plan = world.take(&agent).await;
    world.scheduler.start(&plan.id, plan.attempt).await.unwrap();
    world.finish(&plan, Outcome::Finished, Some(true)).await.unwrap();
    world.finish(&plan, Outcome::Errored, None).await.unwrap();
    assert_eq!(world.status(&run).await, Status::Planned, "the first one counted");
    assert!(is_conflict(world.scheduler.start(&plan.id, plan.attempt).await));
}

#[tokio::test]
async fn of_two_old_agents_with_one_name_the_later_wins() {
    let world = World::new().await;
    let (first, first_token) = world.register("one").await;
    world.run().await;
    let (id, _) = offer(&world.events(&first, 1).await);
    let (second, second_token) = world.register("one").await;
    assert_eq!(first.agent_id, second.agent_id);
    let denied = world.scheduler.session(&first_token).await.unwrap_err();
    assert!(matches!(&denied, Denied::Replaced(why) if why.contains("name one")), "{denied}");
    assert!(world.scheduler.session(&second_token).await.is_ok());
    assert_eq!(offer(&world.events(&second, 1).await), (id, 2), "the offer is not lost");
}

#[tokio::test]
async fn a_name_is_the_first_machines_while_its_agent_is_alive() {
    let world = World::new().await;
    let here = Some(("machine-1", "boot-1"));
    let (first, first_token) = world.register_from("one", here).await.unwrap();
    let run = world.run().await;
    let plan = world.take(&first).await;
    let clones = [
        Some(("machine-2", "boot-2")),
        // With the data folder of the first one.
        Some(("machine-1", "boot-2")),
        Some(("machine-2", "boot-1")),
        // Of an older version.
        None,
    ];
    for clone in clones {
        let refused = world.register_from("one", clone).await.unwrap_err();
        let Error::NameTaken(why) = refused else { panic!("{clone:?}: {refused}") };
        let free = format!("free, {} s after", LEASE.as_secs() * 3 / 4);
        let last_seen = "last seen 0 s ago";
        for part in ["the name one", "0.1.0", "debian_12", last_seen, "--agent-name", &free] {
            assert!(why.contains(part), "{why}");
        }
        assert!(world.scheduler.session(&first_token).await.is_ok());
    }
    world.register_from("two", clones[0]).await.unwrap();

    // The first one starts again.
    let (again, _) = world.register_from("one", here).await.unwrap();
    assert_eq!(again.agent_id, first.agent_id);
    world.finish(&plan, Outcome::Finished, Some(true)).await.unwrap();
    assert_eq!(world.status(&run).await, Status::Planned);

    // Three heartbeats are missing.
    world.scheduler.clock.advance(LEASE * 3 / 4);
    assert!(world.register_from("one", clones[0]).await.is_err());
    world.scheduler.clock.advance(Duration::from_millis(1));
    world.register_from("one", clones[0]).await.unwrap();
}

#[tokio::test]
async fn a_machine_that_lost_its_name_is_asked_to_register_and_its_apply_counts() {
    let world = World::new().await;
    let (first, token) = world.register_from("one", Some(("machine-1", "boot-1"))).await.unwrap();
    let (run, apply) = world.applying(&first).await;
    world.scheduler.clock.advance(LEASE);
    world.register_from("one", Some(("machine-2", "boot-2"))).await.unwrap();
    assert!(matches!(world.scheduler.session(&token).await, Err(Denied::RegisterAgain(_))));
    let refused = world.register_from("one", Some(("machine-1", "boot-1"))).await;
    assert!(matches!(refused, Err(Error::NameTaken(_))));
    world.finish(&apply, Outcome::Finished, None).await.unwrap();
    assert_eq!(world.status(&run).await, Status::Applied);
}

#[tokio::test]
async fn a_name_that_was_given_back_is_free_at_once() {
    let world = World::new().await;
    let (first, _) = world.register_from("one", Some(("machine-1", "boot-1"))).await.unwrap();
    world.scheduler.deregister(&first).await.unwrap();
    world.register_from("one", Some(("machine-1", "boot-2"))).await.unwrap();
    // Upgraded from a version that does not say where it is.
    world.register("two").await;
    world.register_from("two", Some(("machine-2", "boot-1"))).await.unwrap();
}

#[tokio::test]
async fn a_clone_that_waits_for_a_name_does_not_get_it_while_its_holder_restarts() {
    let world = World::new().await;
    let (holder, clone) = (Some(("machine-1", "boot-1")), Some(("machine-1", "boot-2")));
    let (mut first, _) = world.register_from("one", holder).await.unwrap();
    for _ in 0..3 {
        assert!(world.register_from("one", clone).await.is_err());
        world.scheduler.clock.advance(LEASE / 2);
        let idle = Poll { free_slots: 1, tasks: Vec::new() };
        world.scheduler.renew(&first, &idle).await.unwrap();
        assert!(world.register_from("one", clone).await.is_err());
        world.scheduler.deregister(&first).await.unwrap();
        world.scheduler.clock.advance(LEASE / 2);
        let refused = world.register_from("one", clone).await.unwrap_err();
        let Error::NameTaken(why) = refused else { panic!("{refused}") };
        assert!(why.contains("which may be restarting (version 0.1.0"), "{why}");
        (first, _) = world.register_from("one", holder).await.unwrap();
    }
    world.scheduler.deregister(&first).await.unwrap();
    // Not for ever, and a machine that was not there meanwhile waits for nothing.
    world.scheduler.clock.advance(LEASE * 3 / 4);
    assert!(world.register_from("one", clone).await.is_err());
    world.scheduler.clock.advance(Duration::from_millis(1));
    let (second, _) = world.register_from("one", clone).await.unwrap();
    world.scheduler.deregister(&second).await.unwrap();
    world.register_from("one", Some(("machine-2", "boot-1"))).await.unwrap();
}

#[tokio::test]
async fn a_restarted_agent_keeps_its_tasks() {
    let world = World::new().await;
    let agent = world.agent("one").await;
    let run = world.run().await;
    let plan = world.take(&agent).await;
    let again = world.agent("one").await;
    world.scheduler.clock.advance(LEASE / 2);
    world.scheduler.renew(&again, &poll_with(&plan)).await.unwrap();
    world.expire_after(LEASE / 2).await;
    assert_eq!(world.task(&run, Phase::Plan).await.state, State::Running);
    world.finish(&plan, Outcome::Finished, Some(true)).await.unwrap();
    assert_eq!(world.status(&run).await, Status::Planned);
}

#[tokio::test]
async fn a_machine_that_was_booted_again_goes_on_with_its_tasks_and_the_earlier_token_is_refused() {
    let world = World::new().await;
    let (first, _) = world.register_from("one", Some(("machine-1", "boot-1"))).await.unwrap();
    let run = world.planned(&first).await;
    world.scheduler.confirm(&run.id, Decision::default()).await.unwrap();
    let (id, attempt) = offer(&world.events(&first, 1).await);
    let (_, tokens) = world.scheduler.claim(&first, &id, attempt).await.unwrap();
    world.scheduler.start(&id, attempt).await.unwrap();
    world.expire_after(LEASE).await;
    assert_eq!(world.task(&run, Phase::Apply).await.state, State::Unreachable);

    let (again, _) = world.register_from("one", Some(("machine-1", "boot-2"))).await.unwrap();
    let resume = Resume { attempt: attempt.try_into().unwrap(), started: true };
    let token = world.scheduler.resume(&again, &id, resume).await.unwrap();
    assert_eq!(world.task(&run, Phase::Apply).await.state, State::Running, "leased again");
    assert!(world.scheduler.task_of_token(&id, token.expose()).await.is_ok());
    let earlier = world.scheduler.task_of_token(&id, tokens.of_agent.expose()).await;
    assert!(matches!(earlier, Err(Error::NotFound(_))), "a clone may have it: {earlier:?}");
}

#[tokio::test]
async fn a_task_of_another_agent_or_attempt_or_one_that_ended_is_not_resumed() {
    let world = World::new().await;
    let (one, two) = (world.agent("one").await, world.agent("two").await);
    let (_, apply) = world.applying(&one).await;
    let attempt = apply.attempt.try_into().unwrap();
    let resume = Resume { attempt, started: true };
    let over = async |agent: &Session, id: &str, resume: Resume| {
        let resumed = world.scheduler.resume(agent, id, resume).await;
        assert!(matches!(resumed, Err(Error::AttemptOver(_))), "{resumed:?}");
    };
    // A clone with another name.
    over(&two, &apply.id, resume).await;
    over(&one, "task-none", resume).await;
    over(&one, &apply.id, Resume { attempt: attempt + 1, ..resume }).await;
    // It was started on the machine that this one is a copy of.
    over(&one, &apply.id, Resume { started: false, ..resume }).await;
    world.scheduler.resume(&one, &apply.id, resume).await.unwrap();
    world.finish(&apply, Outcome::Finished, None).await.unwrap();
    over(&one, &apply.id, resume).await;
}

#[tokio::test]
async fn a_revoked_token_ends_its_sessions() {
    let world = World::new().await;
    let (_, token) = world.register("one").await;
    let mut tx = world.scheduler.store.write().await.unwrap();
    access_token::delete(&mut tx, "at-1").await.unwrap();
    tx.commit().await.unwrap();
    let denied = world.scheduler.session(&token).await.unwrap_err();
    assert!(matches!(&denied, Denied::Unauthorized(why) if why.contains("revoked")), "{denied}");
}

#[tokio::test]
async fn an_agent_that_leaves_gives_back_what_it_has() {
    let world = World::new().await;
    let (agent, token) = world.register("one").await;
    let run = world.run().await;
    world.take(&agent).await;
    world.scheduler.deregister(&agent).await.unwrap();
    let plan = world.task(&run, Phase::Plan).await;
    assert_eq!((plan.state, plan.attempt), (State::Queued, 2));
    assert!(matches!(world.scheduler.session(&token).await, Err(Denied::RegisterAgain(_))));
}

#[tokio::test]
async fn every_state_of_an_apply_is_kept_if_it_follows() {
    let world = World::new().await;
    let agent = world.agent("one").await;
    let (_, apply) = world.applying(&agent).await;
    let new = async |serial, lineage| world.save_state(&apply, serial, lineage).await;
    assert!(matches!(new(1, "x").await, Ok(Saved::New(version)) if version.number == 1));
    assert!(matches!(new(1, "x").await, Ok(Saved::Same(_))));
    assert!(matches!(new(3, "x").await, Ok(Saved::New(version)) if version.number == 2));
    assert!(is_conflict(new(2, "x").await), "an older serial");
    assert!(is_conflict(new(4, "y").await), "another lineage");
    for force in [false, true] {
        let state = world.state(json!({ "version": 4, "serial": 9, "lineage": "x" })).await;
        let locked = world.scheduler.save_uploaded_state("ws-main", state.unwrap(), force).await;
        assert!(is_conflict(locked), "the workspace is locked");
    }
}

#[tokio::test]
async fn only_states_of_format_4_are_read() {
    let world = World::new().await;
    let whole = json!({ "version": 4, "serial": 1, "lineage": "x", "resources": [
        { "mode": "managed", "instances": [{}, {}] }, { "mode": "data" }, {},
    ] });
    assert_eq!(world.state(whole).await.unwrap().resources, 1);
    for (state, why) in [
        (json!({ "version": 3, "serial": 1, "lineage": "x" }), "format 3"),
        (json!({ "version": 1 }), "format 1"),
        (json!({ "version": 4, "lineage": "x" }), "no serial"),
        (json!({ "version": 4, "serial": 1 }), "no lineage"),
        (json!({ "version": 4, "serial": 1, "lineage": "x", "resources": {} }), "resources"),
        (json!({ "version": 4, "serial": 1, "lineage": "x".repeat(256) }), "255 characters"),
        (json!("{"), "not a Terraform state"),
        (json!([]), "not a Terraform state"),
    ] {
        let invalid = world.state(state.clone()).await.unwrap_err();
        assert!(
            matches!(&invalid, Error::Invalid(text) if text.contains(why)),
            "{state} {invalid}"
        );
    }
}

#[tokio::test]
async fn force_takes_a_state_whatever_its_serial_and_lineage_are() {
    let world = World::new().await;
    let upload = async |serial, lineage, force| {
        let state = json!({ "version": 4, "serial": serial, "lineage": lineage });
        let state = world.state(state).await.unwrap();
        world.scheduler.save_uploaded_state("ws-main", state, force).await
    };
    assert!(matches!(upload(5, "x", false).await, Ok(Saved::New(_))));
    for (number, (serial, lineage)) in (2..).zip([(3, "x"), (3, "y"), (1, "x")]) {
        assert!(is_conflict(upload(serial, lineage, false).await));
        let forced = upload(serial, lineage, true).await;
        assert!(matches!(forced, Ok(Saved::New(version)) if version.number == number));
        let again = upload(serial, lineage, true).await;
        assert!(matches!(again, Ok(Saved::Same(version)) if version.number == number));
    }
}

#[tokio::test]
async fn an_apply_may_write_the_serial_that_it_began_with_again() {
    let world = World::new().await;
    let state = async |by: &str| {
        let state = json!({ "version": 4, "serial": 1, "lineage": "x", "by": by });
        world.state(state).await.unwrap()
    };
    let upload =
        async |by| world.scheduler.save_uploaded_state("ws-main", state(by).await, false).await;
    assert!(matches!(upload("an operator").await, Ok(Saved::New(_))));
    assert!(matches!(upload("an operator").await, Ok(Saved::Same(_))));
    assert!(is_conflict(upload("somebody else").await));

    let agent = world.agent("one").await;
    let (_, apply) = world.applying(&agent).await;
    for (by, number) in [("an apply", 2), ("the same apply", 3)] {
        let saved = world.scheduler.save_apply_state(&apply.id, 1, state(by).await).await;
        assert!(matches!(saved, Ok(Saved::New(version)) if version.number == number), "{by}");
    }
    world.finish(&apply, Outcome::Finished, None).await.unwrap();
    let late = world.scheduler.save_apply_state(&apply.id, 1, state("a late one").await).await;
    assert!(matches!(late, Err(Error::AttemptOver(_))), "{late:?}");
}

#[tokio::test]
async fn a_run_gets_the_nearest_pool() {
    let world = World::new().await;
    let mut tx = world.scheduler.store.write().await.unwrap();
    let mut workspace = workspace::find(&mut tx, "ws-main").await.unwrap().unwrap();
    workspace.pool_id = None;
    assert!(super::pool_of(&mut tx, &workspace).await.unwrap().is_none());

    let mut account_default = pool("apool-account");
    (account_default.is_default, account_default.is_shared) = (true, false);
    agent_pool::insert(&mut tx, &account_default).await.unwrap();
    assert!(super::pool_of(&mut tx, &workspace).await.unwrap().is_none(), "it may not use it");
    agent_pool::set_environments(&mut tx, "apool-account", &["env-1".into()]).await.unwrap();
    assert_eq!(super::pool_of(&mut tx, &workspace).await.unwrap().unwrap().id, "apool-account");

    agent_pool::insert(&mut tx, &pool("apool-environment")).await.unwrap();
    let mut environment = environment::find(&mut tx, "env-1").await.unwrap().unwrap();
    environment.default_pool_id = Some("apool-environment".to_owned());
    environment::update(&mut tx, &environment).await.unwrap();
    assert_eq!(super::pool_of(&mut tx, &workspace).await.unwrap().unwrap().id, "apool-environment");

    workspace.pool_id = Some("apool-1".to_owned());
    assert_eq!(super::pool_of(&mut tx, &workspace).await.unwrap().unwrap().id, "apool-1");
}

/// A scheduler with a pool and a workspace that is linked to it.
struct World {
    scheduler: Scheduler,
    token: AccessToken,
    folder: tempfile::TempDir,
}

impl World {
    async fn new() -> Self {
        let (store, folder) = Store::temporary().await;
        let clock = Clock::standing();
        let now = clock.now();
        let mut tx = store.write().await.unwrap();
        let account = Account { id: "acc-1".into(), name: "default".into(), created_at: now };
        account::insert(&mut tx, &account).await.unwrap();
        let environment = Environment {
            id: "env-1".into(),
            account_id: "acc-1".into(),
            name: "default".into(),
            default_pool_id: None,
            created_at: now,
        };
        environment::insert(&mut tx, &environment).await.unwrap();
        agent_pool::insert(&mut tx, &pool("apool-1")).await.unwrap();
        let token = AccessToken {
            id: "at-1".into(),
            account_id: "acc-1".into(),
            pool_id: Some("apool-1".into()),
            name: None,
            description: None,
            secret_hash: NewToken::new("at-1").secret_hash,
            created_at: now,
            expires_at: None,
            last_used_at: None,
            for_one_agent: false,
            agent_id: None,
        };
        access_token::insert(&mut tx, &token).await.unwrap();
        for name in ["main", "other"] {
            let workspace = Workspace {
                id: format!("ws-{name}"),
                environment_id: "env-1".into(),
                pool_id: Some("apool-1".into()),
                name: name.into(),
                terraform_version: None,
                allow_other_terraform_version: false,
                working_directory: None,
                image: None,
                hooks: workspace::Hooks::default(),
                auto_apply: false,
                deletion_protection: true,
                plan_timeout: None,
                apply_timeout: None,
                lock_reason: None,
                locked_by: None,
                execution_mode: workspace::ExecutionMode::default(),
                iac_platform: None,
                remote_state_sharing: true,
                created_at: now,
                updated_at: now,
            };
            workspace::insert(&mut tx, &workspace).await.unwrap();
            let configuration = ConfigurationVersion {
                id: format!("cv-{name}"),
                workspace_id: workspace.id,
                uploaded: true,
                is_speculative: false,
                upload_hash: String::new(),
                archive_sha256: None,
                removed_at: None,
                created_at: now,
            };
            configuration_version::insert(&mut tx, &configuration).await.unwrap();
        }
        tx.commit().await.unwrap();
        let objects = Objects::open(
            &folder.path().join("objects"),
            Reserve::new(folder.path(), 0),
            Usage::default(),
            MAX_OBJECT,
        )
        .unwrap();
        let (wake, terms) = (
            Wake::default(),
            Terms { lease: LEASE, plan_timeout: PLAN_TIMEOUT, apply_timeout: APPLY_TIMEOUT },
        );
        let presence = Presence::default();
        let scheduler = Scheduler { store, objects, clock, wake, presence, terms };
        Self { scheduler, token, folder }
    }

    async fn run(&self) -> Run {
        self.run_in("main").await
    }

    async fn run_in(&self, workspace: &str) -> Run {
        self.create(NewRun {
            workspace_id: format!("ws-{workspace}"),
            configuration_version_id: format!("cv-{workspace}"),
            ..NewRun::default()
        })
        .await
    }

    fn new_run(&self) -> NewRun {
        NewRun {
            workspace_id: "ws-main".into(),
            configuration_version_id: "cv-main".into(),
            ..NewRun::default()
        }
    }

    async fn create(&self, new: NewRun) -> Run {
        self.scheduler.create_run(new).await.unwrap()
    }

    /// Links a new hook to the environment.
    async fn link_hook(&self, name: &str, script: &str) {
        let mut tx = self.scheduler.store.write().await.unwrap();
        let hook = AccountHook {
            id: format!("hook-{name}"),
            account_id: "acc-1".into(),
            name: name.into(),
            description: None,
            interpreter: "sh".into(),
            script: script.into(),
            created_at: 0,
        };
        account_hook::insert(&mut tx, &hook).await.unwrap();
        let link = HookLink {
            id: format!("hel-{name}"),
            hook_id: hook.id,
            environment_id: "env-1".into(),
            events: HookEvents(vec![Hook::PrePlan]),
            created_at: 0,
        };
        hook_link::insert(&mut tx, &link).await.unwrap();
        tx.commit().await.unwrap();
    }

    /// The attribute for which a run is refused.
    async fn refused(&self, new: NewRun) -> &'static str {
        let refused = self.scheduler.create_run(new).await;
        let Err(Error::InvalidAttribute { name, .. }) = refused else { panic!("{refused:?}") };
        name
    }

    /// A run whose plan is kept for later.
    async fn saved(&self, agent: &Session) -> Run {
        let run = self.create(NewRun { save_plan: true, ..self.new_run() }).await;
        let plan = self.take(agent).await;
        self.finish(&plan, Outcome::Finished, Some(true)).await.unwrap();
        run
    }

    /// A run whose plan waits for a yes.
    async fn planned(&self, agent: &Session) -> Run {
        let run = self.run().await;
        let plan = self.take(agent).await;
        self.finish(&plan, Outcome::Finished, Some(true)).await.unwrap();
        run
    }

    /// A run whose apply was started by the agent.
    async fn applying(&self, agent: &Session) -> (Run, Task) {
        let run = self.planned(agent).await;
        self.scheduler.confirm(&run.id, Decision::default()).await.unwrap();
        let apply = self.take(agent).await;
        (run, apply)
    }

    /// How many tasks wait in the pool, and how many its agents can take.
    async fn demand(&self) -> (i64, i64) {
        let mut db = self.scheduler.store.read().await.unwrap();
        let free = agent::of_pools(&mut db, &["apool-1"]).await.unwrap();
        let free: i64 = free.iter().map(|agent| self.scheduler.usable_slots(agent)).sum();
        let waiting = task::waiting(&mut db, &["apool-1"]).await.unwrap();
        (waiting.first().map_or(0, |(_, depth, _)| *depth), free)
    }

    async fn register(&self, name: &str) -> (Session, String) {
        self.register_from(name, None).await.unwrap()
    }

    /// From a machine and a boot of it.
    async fn register_from(
        &self,
        name: &str,
        from: Option<(&str, &str)>,
    ) -> Result<(Session, String), Error> {
        let register = Register {
            name: name.to_owned(),
            version: "0.1.0".to_owned(),
            os: "debian_12".to_owned(),
            driver: "docker".to_owned(),
            runtime: "vm".to_owned(),
            platform: "linux_amd64".to_owned(),
            concurrency: 5,
            level: LEVEL,
            memory: None,
            identity: from.map(|(machine_id, boot_id)| Identity {
                machine_id: machine_id.to_owned(),
                boot_id: boot_id.to_owned(),
            }),
        };
        let (_, token) = self.scheduler.register(&self.token, &register).await?;
        let session = self.scheduler.session(token.expose()).await.unwrap();
        Ok((session, token.expose().to_owned()))
    }

    async fn agent(&self, name: &str) -> Session {
        self.register(name).await.0
    }

    async fn events(&self, agent: &Session, free_slots: u32) -> Vec<Event> {
        let poll = Poll { free_slots, tasks: Vec::new() };
        self.scheduler.events(agent, &poll).await.unwrap()
    }

    /// Has the agent claim and start what it is offered.
    async fn take(&self, agent: &Session) -> Task {
        let (id, attempt) = offer(&self.events(agent, 1).await);
        self.scheduler.claim(agent, &id, attempt).await.unwrap();
        self.scheduler.start(&id, attempt).await.unwrap();
        self.task_with_id(&id).await
    }

    async fn finish(
        &self,
        task: &Task,
        outcome: Outcome,
        has_changes: Option<bool>,
    ) -> Result<(), Error> {
        self.scheduler.finish(&task.id, &ended(task, outcome, has_changes)).await
    }

    async fn save_state(&self, apply: &Task, serial: u32, lineage: &str) -> Result<Saved, Error> {
        let state = json!({ "version": 4, "serial": serial, "lineage": lineage });
        let state = self.state(state).await?;
        self.scheduler.save_apply_state(&apply.id, apply.attempt, state).await
    }

    /// A state that has come.
    async fn state(&self, content: Value) -> Result<NewState, Error> {
        let mut draft = self.scheduler.objects.draft(MAX_OBJECT)?;
        write!(draft, "{content}")?;
        NewState::read(draft).await
    }

    /// How many states of the workspace are on the disk.
    fn stored_states(&self) -> usize {
        let folder = self.folder.path().join("objects/ws-main/states");
        std::fs::read_dir(folder).map_or(0, Iterator::count)
    }

    async fn expire_after(&self, time: Duration) {
        self.scheduler.clock.advance(time);
        self.scheduler.expire().await.unwrap();
    }

    async fn reload(&self, run: &Run) -> Run {
        let mut db = self.scheduler.store.read().await.unwrap();
        run::find(&mut db, &run.id).await.unwrap().unwrap()
    }

    async fn status(&self, run: &Run) -> Status {
        self.reload(run).await.status
    }

    async fn task_with_id(&self, id: &str) -> Task {
        let mut db = self.scheduler.store.read().await.unwrap();
        task::find(&mut db, id).await.unwrap().unwrap()
    }

    async fn task(&self, run: &Run, phase: Phase) -> Task {
        let mut db = self.scheduler.store.read().await.unwrap();
        task::of_run(&mut db, &run.id, phase).await.unwrap()
    }
}

fn pool(id: &str) -> AgentPool {
    AgentPool {
        id: id.to_owned(),
        account_id: "acc-1".into(),
        name: id.to_owned(),
        is_default: false,
        is_shared: true,
        image: None,
        max_concurrency: None,
        webhook_enabled: false,
        webhook: Default::default(),
        created_at: 0,
    }
}

/// How an agent says that a task ended.
fn ended(task: &Task, outcome: Outcome, has_changes: Option<bool>) -> Finish {
    Finish {
        attempt: u32::try_from(task.attempt).unwrap(),
        outcome,
        message: None,
        exit_code: None,
        oom_killed: false,
        has_changes,
        log_bytes: 0,
        log_sha256: String::new(),
        unsaved_state: None,
        image: None,
        summary: None,
    }
}

/// The only event, which is an offer.
fn offer(events: &[Event]) -> (String, i64) {
    match events {
        [Event::Offer { task_id, attempt, .. }] => (task_id.clone(), i64::from(*attempt)),
        other => panic!("no offer: {other:?}"),
    }
}

/// The task as its agent lists it.
fn has(task: &Task) -> TaskStatus {
    let attempt = u32::try_from(task.attempt).unwrap();
    TaskStatus { task_id: task.id.clone(), attempt, state: TaskState::Running }
}

/// The poll of an agent that has no more than this task.
fn poll_with(task: &Task) -> Poll {
    Poll { free_slots: 0, tasks: vec![has(task)] }
}

fn is_conflict<T>(result: Result<T, Error>) -> bool {
    matches!(result, Err(Error::Conflict(_) | Error::AttemptOver(_)))
}

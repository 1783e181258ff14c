//! Which webhooks are called when a run gets its status, or an agent another health.

use super::Change;
use crate::store::run::Run;
use crate::store::webhook_delivery::{self, AgentThen, Subject, WebhookDelivery};
use crate::store::webhook_integration::{self, Event, WebhookIntegration};
use crate::token::new_id;

impl Change {
    /// Has the webhooks called that are for what has just happened to a run.
    pub(super) async fn call_webhooks(&mut self, run: &Run) -> sqlx::Result<()> {
        let Some(event) = Event::of(run) else { return Ok(()) };
        let webhooks = webhook_integration::of_workspace(&mut self.tx, &run.workspace_id).await?;
        let subject = Subject::Run { id: run.id.clone(), status: run.status.name().to_owned() };
        self.call(&webhooks, event, &subject).await
    }

    /// Has the webhooks called that are for what has just happened to an agent.
    pub(super) async fn call_webhooks_for(&mut self, agent: AgentThen) -> sqlx::Result<()> {
        let webhooks = webhook_integration::of_pool(&mut self.tx, &agent.pool_id).await?;
        let event = Event::of_agent(agent.health);
        self.call(&webhooks, event, &Subject::Agent(agent)).await
    }

    async fn call(
        &mut self,
        webhooks: &[WebhookIntegration],
        event: Event,
        subject: &Subject,
    ) -> sqlx::Result<()> {
        for webhook in webhooks.iter().filter(|webhook| webhook.events.0.contains(&event)) {
            let (id, subject) = (new_id("wd"), subject.clone());
            let delivery = WebhookDelivery::new(id, &webhook.id, subject, event.name(), self.now);
            webhook_delivery::insert(&mut self.tx, &delivery).await?;
        }
        Ok(())
    }
}

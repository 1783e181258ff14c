//! Which webhooks are called when a run gets its status.

use super::Change;
use crate::store::run::Run;
use crate::store::webhook_delivery::{self, WebhookDelivery};
use crate::store::webhook_integration::{self, Event};
use crate::token::new_id;

impl Change {
    /// Has the webhooks called that are for what has just happened to a run.
    pub(super) async fn call_webhooks(&mut self, run: &Run) -> sqlx::Result<()> {
        let Some(event) = Event::of(run) else { return Ok(()) };
        let webhooks = webhook_integration::of_workspace(&mut self.tx, &run.workspace_id).await?;
        for webhook in webhooks.iter().filter(|webhook| webhook.events.0.contains(&event)) {
            let (id, status) = (new_id("wd"), run.status.name());
            let delivery =
                WebhookDelivery::new(id, &webhook.id, &run.id, event.name(), status, self.now);
            webhook_delivery::insert(&mut self.tx, &delivery).await?;
        }
        Ok(())
    }
}

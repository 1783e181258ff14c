//! Whether an image can be had, before a run needs it: `scalr-agent configure --image`
//! asks, and `scalr-agent-setup install` by the hidden command `check-image`.

use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::engine::{self, Engine};
use crate::registry;
use cli::Failure;
use config::{ENGINE, Settings};

/// How long engine and registry may take together.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Checks the image of the settings: it is on the engine, or the engine finds it in its
/// registry. One with `{version}` in its name is as many images as there are versions, and
/// none of them is checked.
///
/// # Errors
/// There is none of that name, or the registry refuses it; where the engine or the registry
/// does not answer, one of [`Failure::Warnings`].
pub(crate) fn run(settings: &Settings) -> Result<()> {
    let Some(image) = settings.image.as_deref().filter(|image| !image.contains("{version}")) else {
        return Ok(());
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let found = runtime.block_on(async {
        tokio::time::timeout(TIMEOUT, find(image, settings))
            .await
            .with_context(|| format!("no answer within {} s", TIMEOUT.as_secs()))?
    });
    let Err(error) = found else { return Ok(()) };
    let why = format!("{:#}", error.root_cause());
    // A socket that we may not use is "denied" as well.
    if engine::is_answer(&error) && registry::is_refusal(&why) {
        let advice = registry::advice(image, &why);
        return Err(
            Failure::Failed.because(format!("cannot use the image {image}: {why}\n{advice}"))
        );
    }
    Err(Failure::Warnings.because(format!(
        "cannot check whether the image {image} exists: {error:#}\n\
         A run fails if it does not; `scalr-agent configure --image {image}` checks it again."
    )))
}

async fn find(image: &str, settings: &Settings) -> Result<()> {
    let engine = Engine::connect(settings.engine.as_deref().unwrap_or(ENGINE)).await?;
    if engine.image_id(image).await?.is_some() {
        return Ok(());
    }
    let credentials = match &settings.registry_auth {
        Some(file) => registry::credentials(file, image)?,
        None => None,
    };
    engine.look_up(image, credentials).await
}

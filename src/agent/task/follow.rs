//! What a container writes, until its end: as it is written, or once more from the
//! engine's file.

use std::time::Duration;

use anyhow::Result;
use futures_util::StreamExt as _;
use sha2::{Digest as _, Sha256};
use tracing::warn;

use crate::agent::engine::{Condition, Engine};
use crate::agent::journal::Container;
use crate::agent::log::Filter;
use crate::agent::log::spool::Spool;

/// How long after the end of its output a container has ended, unless its
/// engine went away.
const END_AFTER_OUTPUT: Duration = Duration::from_millis(1500);

/// Writes what the container says to the log until it has ended, through
/// restarts of the engine. A replay begins with the container's first byte.
///
/// # Errors
/// The engine doesn't answer, or the log can't be written.
pub async fn follow(
    engine: &Engine,
    container: &Container,
    spool: &mut Spool,
    filter: impl Fn() -> Filter,
    mut replay: bool,
) -> Result<Condition> {
    loop {
        let mut filter = filter();
        let mut output = if replay {
            spool.truncate(container.log_start)?;
            // It may have been recorded, and not started any more.
            if engine.condition(&container.id).await? == Condition::Created {
                engine.start(&container.id).await?;
            }
            engine.output_from_start(&container.id)
        } else {
            let output = engine.attach(&container.id).await?;
            engine.start(&container.id).await?;
            output
        };
        let mut whole = true;
        let mut seen = Seen::default();
        while let Some(chunk) = output.next().await {
            match chunk {
                Ok(bytes) => {
                    seen.add(&bytes);
                    spool.write_patiently(&filter.push(&bytes)).await?;
                }
                Err(error) => {
                    warn!(container = container.id, "{error:#}");
                    whole = false;
                    break;
                }
            }
        }
        // An engine that goes away ends the stream as the container's end does.
        match tokio::time::timeout(END_AFTER_OUTPUT, engine.ended(&container.id)).await {
            Ok(condition) if whole => {
                let condition = condition?;
                write_rest(engine, &container.id, seen, &mut filter, spool).await?;
                spool.write_patiently(&filter.finish()).await?;
                return Ok(condition);
            }
            _ => replay = true,
        }
    }
}

/// Writes what the engine has in its file and did not give out before it ended the
/// stream. It waits no longer than 2 s for whoever reads one of a container that has
/// ended (moby's `handleContainerExit`), and less for one that reads its file.
async fn write_rest(
    engine: &Engine,
    container: &str,
    seen: Seen,
    filter: &mut Filter,
    spool: &mut Spool,
) -> Result<()> {
    let mut output = engine.whole_output(container);
    let mut again = Seen::default();
    let mut is_same = false;
    while let Some(chunk) = output.next().await {
        let chunk = chunk?;
        let left = usize::try_from(seen.bytes - again.bytes).unwrap_or(usize::MAX);
        let (known, rest) = chunk.split_at(left.min(chunk.len()));
        again.add(known);
        if rest.is_empty() {
            continue;
        }
        if !is_same {
            // The file has no bytes that are no UTF-8: then it can't be told where the
            // rest begins, and what was given out is the better log.
            if again.sum.clone().finalize() != seen.sum.clone().finalize() {
                return Ok(());
            }
            is_same = true;
            warn!(container, "the engine ended the run's output early; the rest is in its file");
        }
        spool.write_patiently(&filter.push(rest)).await?;
    }
    Ok(())
}

/// How much of an output was given out, and what that adds up to.
#[derive(Default)]
struct Seen {
    bytes: u64,
    sum: Sha256,
}

impl Seen {
    fn add(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        self.sum.update(bytes);
    }
}

//! What a container writes, until its end: as it is written, or once more from the
//! engine's file.

use std::time::Duration;

use anyhow::Result;
use futures_util::StreamExt as _;
use sha2::{Digest as _, Sha256};
use tracing::warn;

use super::ahead::Held;
use super::disk;
use crate::engine::{Condition, Engine, Output};
use crate::journal::Container;
use crate::log::Filter;
use crate::log::spool::Spool;
use crate::progress::Progress;

/// How long after the end of its output a container has ended, unless its
/// engine went away.
const END_AFTER_OUTPUT: Duration = Duration::from_millis(1500);

/// How long a container that has ended may say nothing more until the rest is read from
/// the engine's file: something else may hold its output open.
const OUTPUT_AFTER_END: Duration = Duration::from_secs(3);

/// Where a container's output comes from at first.
pub(super) enum OutputFrom {
    /// It is to be started.
    Start,
    /// It waits for its run to begin.
    Waiting(Held),
    /// The engine's file: it may have been started before.
    File,
}

/// Writes what the container says to the log until it has ended, through
/// restarts of the engine.
///
/// # Errors
/// The engine doesn't answer, or the log can't be written.
pub(super) async fn follow(
    engine: &Engine,
    container: &Container,
    spool: &mut Spool,
    filter: impl Fn() -> Filter,
    mut from: OutputFrom,
    written: &disk::Output,
    progress: &Progress,
) -> Result<Condition> {
    loop {
        let mut filter = filter();
        written.begin();
        let mut output = match std::mem::replace(&mut from, OutputFrom::File) {
            OutputFrom::File => {
                spool.truncate(container.log_start)?;
                // It may have been recorded, and not started any more.
                if engine.condition(&container.id).await? == Condition::Created {
                    engine.start(&container.id).await?;
                }
                engine.output_from_start(&container.id)
            }
            OutputFrom::Start => {
                let attaching = engine.attach(&container.id);
                let output = progress.step("attach to container", attaching).await?;
                progress.step("start container", engine.start(&container.id)).await?;
                output
            }
            OutputFrom::Waiting(waiting) => progress.step("begin", waiting.begin()).await?,
        };
        let mut whole = true;
        let mut seen = Seen::default();
        let mut ended = std::pin::pin!(engine.ended(&container.id));
        let mut has_ended = false;
        loop {
            let chunk = tokio::select! {
                biased;
                chunk = output.next() => chunk,
                // The stream's end tells how.
                _ = &mut ended, if !has_ended => {
                    has_ended = true;
                    continue;
                }
                () = tokio::time::sleep(OUTPUT_AFTER_END), if has_ended => {
                    warn!(container = container.id, "the output goes on after the container's end");
                    None
                }
            };
            let Some(chunk) = chunk else { break };
            match chunk {
                Ok(bytes) => {
                    seen.add(&bytes);
                    written.add(&bytes);
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
                if !filter.is_whole() {
                    write_rest(engine, &container.id, seen, &mut filter, spool).await?;
                }
                spool.write_patiently(&filter.finish()).await?;
                return Ok(condition);
            }
            // From the file, then.
            _ => {}
        }
    }
}

/// Writes what the engine has in its file and did not give out before it ended the
/// stream. It waits no longer than 2 s for whoever reads one of a container that has
/// ended (moby's `handleContainerExit`), and less for one that reads its file. The last
/// line of a container that was killed is missing, too: then there is no rest.
///
/// A file that can't be read, since a full disk has cut it off for example, has none.
async fn write_rest(
    engine: &Engine,
    container: &str,
    mut seen: Seen,
    filter: &mut Filter,
    spool: &mut Spool,
) -> Result<()> {
    // It may have been the engine's restart.
    for _ in 0..2 {
        let read = read_rest(engine.whole_output(container), &mut seen, filter, spool).await?;
        match read {
            Ok(()) => return Ok(()),
            Err(error) => warn!(container, "cannot read the end of the run's output: {error:#}"),
        }
        engine.settled(container).await?;
    }
    Ok(())
}

/// Writes what `output` has beyond what was `seen`; the inner error is the engine's.
async fn read_rest(
    mut output: Output,
    seen: &mut Seen,
    filter: &mut Filter,
    spool: &mut Spool,
) -> Result<Result<()>> {
    let (known, sum) = (seen.bytes, seen.sum.clone().finalize());
    let mut again = Seen::default();
    while let Some(chunk) = output.next().await {
        let chunk = match chunk {
            Ok(chunk) => chunk,
            Err(error) => return Ok(Err(error)),
        };
        let left = usize::try_from(known.saturating_sub(again.bytes)).unwrap_or(usize::MAX);
        let (same, rest) = chunk.split_at(left.min(chunk.len()));
        again.add(same);
        if rest.is_empty() {
            continue;
        }
        // The file has no bytes that are no UTF-8: then it can't be told where the rest
        // begins, and what was given out is the better log.
        if again.bytes == known && again.sum.clone().finalize() != sum {
            return Ok(Ok(()));
        }
        again.add(rest);
        seen.add(rest);
        spool.write_patiently(&filter.push(rest)).await?;
    }
    Ok(Ok(()))
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

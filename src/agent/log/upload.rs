//! Sends a task's log to the server while it grows.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::agent::client::{CallError, TaskClient};

/// The most that one call carries, in bytes.
const PIECE: usize = 1024 * 1024;

/// Sends the log at `path` from `offset` on, in pieces, `interval` apart while
/// it grows, until it is `complete` and the server has all of it. Where the
/// server says that it has more or less, it is believed.
///
/// # Errors
/// The task is no longer ours. While the server is away, this waits.
pub async fn upload(
    client: &TaskClient,
    path: &Path,
    mut offset: u64,
    mut length: watch::Receiver<u64>,
    complete: &CancellationToken,
    interval: Duration,
) -> Result<(), CallError> {
    let file = File::open(path).context("cannot read the log's file")?;
    let mut piece = vec![0; PIECE];
    loop {
        // Asked before the length: what is complete grows no more.
        let is_complete = complete.is_cancelled();
        let available = *length.borrow_and_update();
        if offset < available {
            let read = file.read_at(&mut piece, offset).context("cannot read the log's file")?;
            offset = client.log(offset, &piece[..read]).await?;
            if read == PIECE || is_complete {
                continue;
            }
        } else if is_complete {
            return Ok(());
        }
        tokio::select! {
            () = complete.cancelled(), if !is_complete => {}
            grown = length.changed() => {
                if grown.is_ok() {
                    // Many small writes go up as one.
                    tokio::select! {
                        () = tokio::time::sleep(interval) => {}
                        () = complete.cancelled() => {}
                    }
                }
            }
        }
    }
}

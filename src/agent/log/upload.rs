//! Sends a task's log to the server while it grows.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::client::{CallError, TaskClient};

/// The most that one call carries, in bytes.
const PIECE: usize = 1024 * 1024;

/// Sends the log at `path` in pieces, at least `interval` apart or as the server says, until it
/// is `complete` and the server has all of it. What comes after a longer pause goes up at once.
///
/// The server's count of bytes decides: it is asked for first, and a count that it
/// sends later replaces ours. `on_acknowledged` gets it.
///
/// # Errors
/// The task is no longer ours. While the server is away, this waits.
pub async fn upload(
    client: &TaskClient,
    path: &Path,
    mut length: watch::Receiver<u64>,
    complete: &CancellationToken,
    mut interval: Duration,
    on_acknowledged: impl Fn(u64),
) -> Result<(), CallError> {
    let file = File::open(path).context("cannot read the log's file")?;
    let mut piece = vec![0; PIECE];
    let mut acknowledged = client.log(0, &[]).await?.offset;
    on_acknowledged(acknowledged);
    let mut sent = None;
    loop {
        // Asked before the length: what is complete grows no more.
        let is_complete = complete.is_cancelled();
        let available = *length.borrow_and_update();
        if acknowledged < available {
            let read =
                file.read_at(&mut piece, acknowledged).context("cannot read the log's file")?;
            let end = if is_complete { read } else { whole_characters(&piece[..read]) };
            if end > 0 {
                let answer = client.log(acknowledged, &piece[..end]).await?;
                acknowledged = answer.offset;
                on_acknowledged(acknowledged);
                sent = Some(Instant::now());
                if let Some(milliseconds) = answer.interval_milliseconds {
                    interval = Duration::from_millis(milliseconds.into());
                }
            }
            if read == PIECE || is_complete {
                continue;
            }
        } else if is_complete {
            return Ok(());
        }
        tokio::select! {
            () = complete.cancelled(), if !is_complete => {}
            grown = length.changed() => {
                if let (Ok(()), Some(sent)) = (grown, sent) {
                    // Many small writes go up as one.
                    tokio::select! {
                        () = tokio::time::sleep_until(sent + interval) => {}
                        () = complete.cancelled() => {}
                    }
                }
            }
        }
    }
}

/// How much of a piece ends with a whole character: whoever reads the log while
/// it grows never gets half of one.
fn whole_characters(piece: &[u8]) -> usize {
    let tail = piece.len().saturating_sub(3);
    for at in (tail..piece.len()).rev() {
        let needs = match piece[at] {
            0x80..=0xbf => continue,
            0xc0..=0xdf => 2,
            0xe0..=0xef => 3,
            0xf0.. => 4,
            _ => 1,
        };
        return if at + needs > piece.len() { at } else { piece.len() };
    }
    piece.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_ends_with_a_whole_character() {
        let text = "aé€😀".as_bytes();
        let ends: Vec<usize> = (0..=text.len()).map(|end| whole_characters(&text[..end])).collect();
        assert_eq!(ends, [0, 1, 1, 3, 3, 3, 6, 6, 6, 6, 10]);
        // What is no text at all is not held back for ever.
        assert_eq!(whole_characters(&[0x80; 9]), 9);
        assert_eq!(whole_characters(&[0xff; 9]), 8);
    }
}

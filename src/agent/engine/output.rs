//! What a container writes: as it comes, or from the engine's file of it.

use std::pin::Pin;

use anyhow::{Context as _, Result};
use bollard::query_parameters::{AttachContainerOptionsBuilder, LogsOptionsBuilder};
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use tokio::io::AsyncWrite;

use super::Engine;

/// What a container writes, in order, until it ends.
pub(crate) type Output = Pin<Box<dyn Stream<Item = Result<Bytes>> + Send>>;

/// What a container reads.
pub(crate) type Input = Pin<Box<dyn AsyncWrite + Send>>;

impl Engine {
    /// What a container writes from now on; to be asked for before it is
    /// started, so that nothing is missed.
    ///
    /// # Errors
    /// The engine refuses.
    pub(crate) async fn attach(&self, id: &str) -> Result<Output> {
        self.attach_with(id, false).await.map(|(output, _)| output)
    }

    /// The same, and its input, which ends with the output's stream.
    ///
    /// # Errors
    /// As [`Engine::attach`].
    pub(crate) async fn attach_with_input(&self, id: &str) -> Result<(Output, Input)> {
        self.attach_with(id, true).await
    }

    async fn attach_with(&self, id: &str, input: bool) -> Result<(Output, Input)> {
        let options = AttachContainerOptionsBuilder::default()
            .stream(true)
            .stdin(input)
            .stdout(true)
            .stderr(true)
            .build();
        let attached = self
            .docker
            .attach_container(id, Some(options))
            .await
            .context("cannot attach to the container")?;
        let output = attached.output.map(|output| {
            output
                .map(bollard::container::LogOutput::into_bytes)
                .context("lost the container's output")
        });
        Ok((Box::pin(output), attached.input))
    }

    /// All that a container has written since its start, and goes on to write. The
    /// engine ends it with the container, be it at the end of what that wrote or not.
    pub(crate) fn output_from_start(&self, id: &str) -> Output {
        self.kept_output(id, true)
    }

    /// All that a container which has ended wrote.
    pub(crate) fn whole_output(&self, id: &str) -> Output {
        self.kept_output(id, false)
    }

    fn kept_output(&self, id: &str, follow: bool) -> Output {
        let options = LogsOptionsBuilder::default()
            .follow(follow)
            .stdout(true)
            .stderr(true)
            .tail("all")
            .build();
        // The stream borrows the client, and outlives this call.
        let docker = self.docker.clone();
        let id = id.to_owned();
        let (send, receive) = tokio::sync::mpsc::channel(16);
        tokio::spawn(async move {
            let mut output = std::pin::pin!(docker.logs(&id, Some(options)));
            while let Some(chunk) = output.next().await {
                let chunk = chunk
                    .map(bollard::container::LogOutput::into_bytes)
                    .context("lost the container's output");
                if send.send(chunk).await.is_err() {
                    break;
                }
            }
        });
        Box::pin(futures_util::stream::unfold(receive, |mut receive| async move {
            receive.recv().await.map(|chunk| (chunk, receive))
        }))
    }
}

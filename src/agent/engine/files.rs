//! Files that go into a container and come out of it, by the engine's archive calls.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use anyhow::{Context as _, Result};
use bollard::models::ChangeType;
use bollard::query_parameters::{
    ContainerArchiveInfoOptionsBuilder, DownloadFromContainerOptionsBuilder,
    UploadToContainerOptionsBuilder,
};
use futures_util::{StreamExt as _, TryStreamExt as _};
use tokio_util::io::{ReaderStream, StreamReader, SyncIoBridge};
use tracing::warn;

use super::{Engine, is_missing};

/// How much is read of a file that is small, in bytes, unless the run has made it
/// large: what it did is then not understood, and the agent stays small.
const SMALL_FILE: u64 = 1024 * 1024;

impl Engine {
    /// Unpacks a tar archive below `folder` of a container, one that can be written
    /// to; owners and modes are the archive's.
    ///
    /// # Errors
    /// The engine refuses, its disk being full for example.
    pub(crate) async fn upload(&self, id: &str, folder: &str, archive: File) -> Result<()> {
        let options = UploadToContainerOptionsBuilder::default().path(folder).build();
        let archive = ReaderStream::new(tokio::fs::File::from_std(archive));
        self.docker
            .upload_to_container(id, Some(options), bollard::body_try_stream(archive))
            .await
            .context("cannot put files into the container")
    }

    /// Whether a container has the folder `path` and every user can write there.
    ///
    /// # Errors
    /// The engine doesn't answer.
    pub(crate) async fn is_open_folder(&self, id: &str, path: &str) -> Result<bool> {
        let options = ContainerArchiveInfoOptionsBuilder::default().path(path).build();
        match self.docker.get_container_archive_info(id, Some(options)).await {
            Ok(info) => Ok(is_open_folder(info.file_mode)),
            Err(error) if is_missing(&error) => Ok(false),
            Err(error) => {
                Err(error).with_context(|| format!("cannot look at {path} in the container"))
            }
        }
    }

    /// A small regular file of a container, at most its first 1 MiB; none when there is no
    /// such file.
    ///
    /// # Errors
    /// The engine doesn't answer.
    pub(crate) async fn read(&self, id: &str, path: &str) -> Result<Option<Vec<u8>>> {
        self.unpack(id, path, |file| {
            let mut content = Vec::new();
            file.take(SMALL_FILE).read_to_end(&mut content)?;
            Ok(content)
        })
        .await
    }

    /// Copies a regular file of a container, however large, into an empty one here;
    /// returns whether it exists.
    ///
    /// # Errors
    /// The engine doesn't answer, or `to` can't be written.
    pub(crate) async fn copy_out(&self, id: &str, path: &str, mut to: File) -> Result<bool> {
        let copied = self.unpack(id, path, move |file| io::copy(file, &mut to)).await?;
        Ok(copied.is_some())
    }

    /// Gives `see` every regular file below `path` of a container, with the file's path
    /// from the parent of `path` on.
    ///
    /// # Errors
    /// The engine doesn't answer, or `see` fails.
    pub(crate) async fn each_file(
        &self,
        id: &str,
        path: &str,
        mut see: impl FnMut(&Path, &mut dyn io::Read) -> Result<()> + Send + 'static,
    ) -> Result<()> {
        let see = move |archive: &mut dyn io::Read| {
            for entry in tar::Archive::new(archive).entries()? {
                let mut entry = entry?;
                if entry.header().entry_type().is_file() {
                    let path = entry.path()?.into_owned();
                    see(&path, &mut entry)?;
                }
            }
            Ok(())
        };
        self.archive_of(id, path, see).await.map(drop)
    }

    /// The files and folders outside of volumes that the container has made, without
    /// what is in such a folder.
    ///
    /// # Errors
    /// The engine doesn't answer.
    pub(crate) async fn added(&self, id: &str) -> Result<Vec<String>> {
        let changes = self.docker.container_changes(id).await;
        let changes = changes.context("cannot list what the container changed")?;
        let mut added: Vec<String> = changes
            .unwrap_or_default()
            .into_iter()
            .filter(|change| change.kind == ChangeType::_1)
            .map(|change| change.path)
            .collect();
        added.sort();
        added.dedup_by(|path, folder| Path::new(path).starts_with(folder));
        Ok(added)
    }

    /// Gives `read` a regular file of a container; none when there is no such file, or
    /// something else in its place.
    async fn unpack<T: Send + 'static>(
        &self,
        id: &str,
        path: &str,
        read: impl FnOnce(&mut dyn io::Read) -> io::Result<T> + Send + 'static,
    ) -> Result<Option<T>> {
        let name = path.to_owned();
        let unpacked = self.archive_of(id, path, move |archive| {
            let mut archive = tar::Archive::new(archive);
            let mut entry =
                archive.entries()?.next().context("the engine sent an empty archive")??;
            if !entry.header().entry_type().is_file() {
                warn!("{name} in the container is not a regular file, so it is left there");
                return Ok(None);
            }
            Ok(Some(read(&mut entry)?))
        });
        Ok(unpacked.await?.flatten())
    }

    /// Gives `read` the tar archive that the engine makes of what is at `path` of a
    /// container; none when there is nothing.
    ///
    /// # Errors
    /// The engine doesn't answer, or what `read` says.
    pub(crate) async fn archive_of<T: Send + 'static>(
        &self,
        id: &str,
        path: &str,
        read: impl FnOnce(&mut dyn io::Read) -> Result<T> + Send + 'static,
    ) -> Result<Option<T>> {
        let cannot = format!("cannot get {path} out of the container");
        let options = DownloadFromContainerOptionsBuilder::default().path(path).build();
        let mut stream =
            Box::pin(self.docker.download_from_container(id, Some(options)).peekable());
        // A refusal comes first; as it is, it says whether the engine is away.
        match stream.as_mut().peek().await {
            Some(Err(error)) if is_missing(error) => return Ok(None),
            Some(Err(_)) => {
                let refused = stream.next().await.context("it was there just now")?;
                return Err(refused.expect_err("it was an error just now")).context(cannot);
            }
            _ => {}
        }
        let mut archive = SyncIoBridge::new(StreamReader::new(stream.map_err(io::Error::other)));
        let reading = tokio::task::spawn_blocking(move || read(&mut archive));
        reading.await.context("unpacking panicked")?.context(cannot).map(Some)
    }
}

/// Whether a mode as Go has it (`fs.FileMode`: the kind is in the upper bits) is
/// that of a folder that every user can write to.
fn is_open_folder(mode: u32) -> bool {
    const FOLDER: u32 = 1 << 31;
    const WRITE_AND_ENTER: u32 = 0o003;
    mode & FOLDER != 0 && mode & WRITE_AND_ENTER == WRITE_AND_ENTER
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_those_that_an_engine_tells() {
        // Seen: drwxrwxrwt, and drwxr-xr-x.
        assert!(is_open_folder(2_148_532_735));
        assert!(!is_open_folder(2_147_484_141));
        // A file, and a symbolic link, that everybody can write to.
        assert!(!is_open_folder(0o666));
        assert!(!is_open_folder((1 << 27) | 0o777));
    }
}

//! Files that go into a container and come out of it, by the engine's archive calls.

use std::fs::File;
use std::io;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use bollard::models::ChangeType;
use bollard::query_parameters::{
    ContainerArchiveInfoOptionsBuilder, DownloadFromContainerOptionsBuilder,
    UploadToContainerOptionsBuilder,
};
use futures_util::{StreamExt as _, TryStreamExt as _};
use tokio_util::io::{ReaderStream, StreamReader, SyncIoBridge};
use tokio_util::sync::CancellationToken;

use super::{Engine, is_missing};

/// The most that a file may have that is read into memory, in bytes.
pub(crate) const SMALL_FILE: u64 = 1024 * 1024;

/// The most that a file may have that is copied, in bytes: ten times what the server
/// takes of a plan, and what it can be set to take of a state.
pub(crate) const LARGE_FILE: u64 = protocol::limits::MAX_STATE;

/// How long the engine may take to send what a container has at a path.
const READING: Duration = Duration::from_secs(600);

/// What a run left at a path that is not a file the agent can take.
#[derive(Debug, thiserror::Error)]
#[error("{path} in the run's container {why}")]
struct Unusable {
    path: String,
    why: String,
}

/// Whether an error of this module is about what the run left at a path: another try
/// finds the same there.
pub(crate) fn is_unusable(error: &anyhow::Error) -> bool {
    error.is::<Unusable>()
}

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

    /// A regular file of a container, of at most 1 MiB; none when there is nothing at
    /// `path`.
    ///
    /// # Errors
    /// The engine doesn't answer, or there is something else ([`is_unusable`]).
    pub(crate) async fn read(&self, id: &str, path: &str) -> Result<Option<Vec<u8>>> {
        self.unpack(id, path, SMALL_FILE, |file| {
            let mut content = Vec::new();
            file.read_to_end(&mut content)?;
            Ok(content)
        })
        .await
    }

    /// Copies a regular file of a container, of at most `limit` bytes, into an empty one
    /// here; returns whether there is anything at `path`.
    ///
    /// # Errors
    /// The engine doesn't answer, `to` can't be written, or there is something else at
    /// `path` ([`is_unusable`]).
    pub(crate) async fn copy_out(
        &self,
        id: &str,
        path: &str,
        limit: u64,
        mut to: File,
    ) -> Result<bool> {
        let copied = self.unpack(id, path, limit, move |file| io::copy(file, &mut to)).await?;
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

    /// Gives `read` a regular file of a container; none when there is nothing at `path`.
    ///
    /// The engine sends what kind of file it is and how large before its content, and
    /// follows no link at the end of `path`.
    async fn unpack<T: Send + 'static>(
        &self,
        id: &str,
        path: &str,
        limit: u64,
        read: impl FnOnce(&mut dyn io::Read) -> io::Result<T> + Send + 'static,
    ) -> Result<Option<T>> {
        let unusable = unusable(path);
        self.archive_of(id, path, move |archive| {
            let mut archive = tar::Archive::new(archive);
            let mut entry =
                archive.entries()?.next().context("the engine sent an empty archive")??;
            let kind = entry.header().entry_type();
            if !kind.is_file() {
                return Err(unusable(&format!("is {}, not a regular file", name(kind))));
            }
            if entry.size() > limit {
                let size = entry.size();
                return Err(unusable(&format!("has {size} bytes; the limit is {limit}")));
            }
            Ok(read(&mut entry)?)
        })
        .await
    }

    /// Gives `read` the tar archive that the engine makes of what is at `path` of a
    /// container; none when there is nothing. It ends too early when nobody waits for
    /// the result any more.
    ///
    /// # Errors
    /// The engine doesn't answer or takes too long ([`is_unusable`]), or what `read` says.
    pub(crate) async fn archive_of<T: Send + 'static>(
        &self,
        id: &str,
        path: &str,
        read: impl FnOnce(&mut dyn io::Read) -> Result<T> + Send + 'static,
    ) -> Result<Option<T>> {
        let cannot = format!("cannot get {path} out of the container");
        let reading = async {
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
            // Dropping this future does not end the thread that reads.
            let unwanted = CancellationToken::new();
            let _unwanted_on_drop = unwanted.clone().drop_guard();
            let stream = stream.take_until(Box::pin(unwanted.cancelled_owned()));
            let mut archive =
                SyncIoBridge::new(StreamReader::new(stream.map_err(io::Error::other)));
            let reading = tokio::task::spawn_blocking(move || read(&mut archive));
            let read = reading.await.context("unpacking panicked")?;
            match read {
                Err(error) if is_unusable(&error) => Err(error),
                read => read.context(cannot).map(Some),
            }
        };
        let late = || format!("was not read to its end within {} s", READING.as_secs());
        let read = tokio::time::timeout(READING, reading).await;
        read.unwrap_or_else(|_| Err(unusable(path)(&late())))
    }
}

fn unusable(path: &str) -> impl Fn(&str) -> anyhow::Error + Send + use<> {
    let path = path.to_owned();
    move |why| Unusable { path: path.clone(), why: why.to_owned() }.into()
}

/// What an entry of an archive is called in a message.
fn name(kind: tar::EntryType) -> &'static str {
    match kind {
        tar::EntryType::Directory => "a directory",
        tar::EntryType::Symlink => "a symbolic link",
        tar::EntryType::Fifo => "a FIFO",
        tar::EntryType::Block | tar::EntryType::Char => "a device",
        _ => "something else",
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

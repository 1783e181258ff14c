//! The run's user and group as programs look them up: ssh, for one, refuses a user
//! without an entry.

use std::sync::Arc;

use anyhow::Result;

use super::container_maker::ContainerMaker;
use super::input_archive::Archive;
use super::paths;
use crate::context::RunUser;
use crate::engine;
use crate::seen_images::SeenImage;

/// What the account is called, unless the image has another one of that name.
const NAMES: [&str; 2] = ["scalr", "scalr-run"];

const ROOT: RunUser = RunUser { uid: 0, gid: 0 };

impl ContainerMaker<'_> {
    /// Adds the run's user and group to a container's accounts, if its image has no
    /// such entries.
    pub(super) async fn add_accounts(&self, container: &str) -> Result<()> {
        let RunUser { uid, gid } = self.context.user;
        let image = self.seen_image(container).await?;
        let mut archive = Archive::new(self.scratch, paths::ETC, ROOT)?;
        for (path, accounts, first, id, rest) in [
            (
                paths::PASSWD,
                &image.passwd,
                "root:x:0:0:root:/root:/bin/sh",
                uid,
                passwd_fields(gid),
            ),
            (paths::GROUP, &image.group, "root:x:0:", gid, String::new()),
        ] {
            let accounts = accounts.clone().unwrap_or_else(|| format!("{first}\n").into());
            if let Some(accounts) = with_entry(accounts, id, &rest) {
                archive.file(path, 0o644, &accounts)?;
            }
        }
        self.context.engine.upload(container, paths::ETC, archive.finish()?).await
    }

    /// What is in the image of a container that has no files but the image's.
    pub(super) async fn seen_image(&self, container: &str) -> Result<Arc<SeenImage>> {
        let (engine, seen_images) = (&self.context.engine, &self.context.seen_images);
        let id = engine.image_id_of(container).await?;
        if let Some(seen) = id.as_deref().and_then(|id| seen_images.get(id)) {
            return Ok(seen);
        }
        let accounts = async |path| match engine.read(container, path).await {
            // A link of the image, which a file takes the place of.
            Err(error) if engine::is_unusable(&error) => Ok(None),
            accounts => accounts,
        };
        let seen = Arc::new(SeenImage {
            has_open_tmp: engine.is_open_folder(container, paths::TMP).await?,
            passwd: accounts(paths::PASSWD).await?,
            group: accounts(paths::GROUP).await?,
        });
        if let Some(id) = id {
            seen_images.insert(id, Arc::clone(&seen));
        }
        Ok(seen)
    }
}

/// What follows the user's id in `passwd(5)`.
fn passwd_fields(gid: u32) -> String {
    format!("{gid}:Terraform run:{}:/bin/sh", paths::HOME)
}

/// The content of `passwd` or `group` with an entry for `id`; none when it has one.
fn with_entry(mut accounts: Vec<u8>, id: u32, rest: &str) -> Option<Vec<u8>> {
    let text = String::from_utf8_lossy(&accounts);
    let mut entries = text.lines().map(|line| line.split(':'));
    if entries.any(|mut fields| fields.nth(2) == Some(&id.to_string())) {
        return None;
    }
    let is_taken = |name: &&str| text.lines().any(|line| line.split(':').next() == Some(*name));
    let name = NAMES.into_iter().find(|name| !is_taken(name))?;
    if accounts.last().is_some_and(|last| *last != b'\n') {
        accounts.push(b'\n');
    }
    accounts.extend(format!("{name}:x:{id}:{rest}\n").into_bytes());
    Some(accounts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(accounts: &str, id: u32) -> Option<String> {
        let added = with_entry(accounts.into(), id, &passwd_fields(991));
        added.map(|accounts| String::from_utf8(accounts).unwrap())
    }

    #[test]
    fn an_account_is_added_that_the_image_lacks() {
        let root = "root:x:0:0:root:/root:/bin/sh";
        let own = "990:991:Terraform run:/scalr/home:/bin/sh\n";
        let expected = format!("{root}\nscalr:x:{own}");
        assert_eq!(with(&format!("{root}\n"), 990).unwrap(), expected);
        assert_eq!(with(root, 990).unwrap(), expected, "the last line had no end");
        let other = "scalr:x:5:5::/:/bin/sh\n";
        assert_eq!(with(other, 990).unwrap(), format!("{other}scalr-run:x:{own}"));
        assert_eq!(with("mine:x:990:4::/:/bin/sh\n", 990), None);
        assert_eq!(with("", 990).unwrap(), format!("scalr:x:{own}"));
        let of_group = with_entry(b"root:x:0:\n".to_vec(), 991, "").unwrap();
        assert_eq!(of_group, b"root:x:0:\nscalr:x:991:\n");
    }
}

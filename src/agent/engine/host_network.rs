//! A program of the agent's own image, in the network of the engine's host: what an
//! agent that is itself a container can't do in its own.

use std::collections::HashMap;

use anyhow::{Context as _, Result};
use bollard::models::{ContainerCreateBody, HostConfig, HostConfigLogConfig};
use bollard::query_parameters::CreateContainerOptionsBuilder;
use futures_util::StreamExt as _;

use super::Engine;

/// The container's name: there is one at a time, and the next one replaces what a
/// crash has left.
const NAME: &str = "scalr-agent-network";

impl Engine {
    /// Runs `command` as root with the right to change the host's network, and gives
    /// what it printed.
    ///
    /// # Errors
    /// This agent is no container of this engine, or the engine does not permit it.
    pub(crate) async fn run_in_host_network(
        &self,
        command: &[&str],
        environment: Vec<String>,
    ) -> Result<String> {
        let mounts =
            std::fs::read_to_string("/proc/self/mountinfo").context("cannot read the mounts")?;
        let own = own_container(&mounts).context(
            "this agent is not in a container of Docker; set firewall to `service` or `none`",
        )?;
        let own = self.docker.inspect_container(own, None).await.with_context(|| {
            format!("cannot inspect the agent's own container {own}; is it of another engine?")
        })?;
        let owned =
            |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let host = HostConfig {
            network_mode: Some("host".to_owned()),
            userns_mode: Some("host".to_owned()),
            cap_drop: Some(owned(&["ALL"])),
            // The older iptables needs both.
            cap_add: Some(owned(&["NET_ADMIN", "NET_RAW"])),
            security_opt: Some(owned(&["no-new-privileges", "label=disable"])),
            readonly_rootfs: Some(true),
            // For locks.
            tmpfs: Some(HashMap::from([("/run".to_owned(), String::new())])),
            // Behind the stub of systemd-resolved, the resolvers are in there.
            binds: Some(owned(&["/run/systemd:/run/systemd:ro"])),
            log_config: Some(HostConfigLogConfig {
                typ: Some("json-file".to_owned()),
                config: None,
            }),
            ..HostConfig::default()
        };
        let body = ContainerCreateBody {
            image: own.image,
            entrypoint: Some(owned(command)),
            cmd: Some(Vec::new()),
            env: Some(environment),
            user: Some("0:0".to_owned()),
            host_config: Some(host),
            ..ContainerCreateBody::default()
        };
        self.remove(NAME).await?;
        let options = CreateContainerOptionsBuilder::default().name(NAME).build();
        let created = self.docker.create_container(Some(options), body).await;
        let id = created.with_context(|| format!("cannot make the container {NAME}"))?.id;
        let ran = async {
            let started = self.docker.start_container(&id, None).await;
            started.with_context(|| format!("cannot start the container {NAME}"))?;
            self.ended(&id).await?;
            let mut printed = Vec::new();
            let mut output = self.whole_output(&id);
            while let Some(chunk) = output.next().await {
                printed.extend_from_slice(&chunk?);
            }
            Ok(String::from_utf8_lossy(&printed).into_owned())
        };
        let printed = ran.await;
        self.remove(&id).await?;
        printed
    }
}

/// Whether this program runs in a container of Docker.
pub(crate) fn is_in_container() -> bool {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    own_container(&mounts).is_some()
}

/// The id of the container that has these mounts: Docker mounts a file of the
/// container's folder at /etc/hostname.
fn own_container(mountinfo: &str) -> Option<&str> {
    mountinfo.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(3);
        let (root, target) = (fields.next()?, fields.next()?);
        let id = root.strip_suffix("/hostname").filter(|_| target == "/etc/hostname")?;
        let id = id.rsplit('/').next()?;
        (id.len() == 64 && id.chars().all(|c| c.is_ascii_hexdigit())).then_some(id)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_container_is_known_by_its_mounts() {
        let id = "0123456789abcdef".repeat(4);
        let inside = format!(
            "612 590 0:52 / / ro,relatime master:1 - overlay overlay rw\n\
             640 612 254:1 /var/lib/docker/containers/{id}/resolv.conf /etc/resolv.conf ro - ext4 /dev/vda1 rw\n\
             641 612 254:1 /var/lib/docker/containers/{id}/hostname /etc/hostname ro - ext4 /dev/vda1 rw\n"
        );
        assert_eq!(own_container(&inside), Some(id.as_str()));
        assert_eq!(own_container("22 1 254:1 / / rw,relatime - ext4 /dev/vda1 rw\n"), None);
    }
}

//! The defaults of the settings.

/// How many tasks run at the same time.
pub const CONCURRENCY: u32 = 1;

/// Memory of a task's container, in MB.
pub const MEMORY: u64 = 512;

/// Processors of a task's container.
pub const CPU: f64 = 1.0;

/// The image of tasks whose workspace and pool have none.
pub const IMAGE: &str = "hashicorp/terraform:{version}";

/// The same for OpenTofu, on an agent whose image is [`IMAGE`].
pub const OPENTOFU_IMAGE: &str = "ghcr.io/opentofu/opentofu:{version}";

/// The Terraform version in an image's name where the workspace has none.
pub const TERRAFORM_VERSION: &str = "1.11.4";

/// The same for OpenTofu.
pub const OPENTOFU_VERSION: &str = "1.9.1";

/// How much a run may have on the engine's disk, in MB.
pub(crate) const DISK: u64 = 10_240;

/// How long a hook may take, in seconds.
pub(crate) const HOOK_TIMEOUT: u64 = 300;

/// How long an unused image is kept, in days.
pub(crate) const IMAGE_MAX_AGE: u64 = 30;

/// Free space below which images are removed earlier, in MB.
pub(crate) const IMAGE_MIN_FREE: u64 = 2048;

/// How much is kept of providers, in MB.
pub(crate) const PROVIDER_CACHE_LIMIT: u64 = 4096;

/// How long an unused provider is kept, in days.
pub(crate) const PROVIDER_CACHE_MAX_AGE: u64 = 30;

/// How long an interrupted task may take to end, in seconds.
pub const GRACE_SHUTDOWN_TIMEOUT: u64 = 60;

/// How long a drain waits before it interrupts, in seconds.
pub const DRAIN_TIMEOUT: u64 = 3600;

/// The longest log of a task, in MB.
pub(crate) const LOG_LIMIT: u64 = 256;

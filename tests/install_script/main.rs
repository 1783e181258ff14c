//! `scripts/install.sh`, function by function and whole, in the shells that are
//! `sh` somewhere: dash, bash and busybox. What it calls on a host is played by
//! tools of each test's own; booted machines have the real ones.

mod download;
mod host;
mod keys;
mod options;
mod proxy_options;
mod truncated;
mod trust;
mod whole;

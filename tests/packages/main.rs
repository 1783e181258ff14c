//! What old hosts ask of the packages.
//!
//! Tests of built packages are ignored by a plain `cargo test`, which says so:
//! they read the folder that `SCALR_TEST_PACKAGES` names, one deb, one rpm and one
//! rpm for Enterprise Linux 7 as `scalr-agent-setup package` made them, and
//! `SCALR_TEST_SERVER_PACKAGES`, with the server's; they fail without. `scripts/test`
//! builds them and runs these tests.

mod built;
mod drop_ins;
mod quality;
mod repository;
mod scriptlets;
mod server;

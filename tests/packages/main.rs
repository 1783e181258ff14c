//! What old hosts ask of the packages.
//!
//! Tests of built packages are ignored by a plain `cargo test`, which says so:
//! they read the folder that `SCALR_TEST_PACKAGES` names, one deb and one rpm as
//! `scalr-agent-setup package` made them, and fail without it. `scripts/test`
//! builds them and runs these tests.

mod built;
mod drop_ins;
mod repository;
mod scriptlets;

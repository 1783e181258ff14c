//! `scalr-server`: keeps pools, workspaces, runs and state.

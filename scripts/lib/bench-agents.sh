# shellcheck shell=bash disable=SC2154 # its variables cross files
# A server under simulated agents (tests/load). Sourced after say.sh.

# bench_agents OPTION...: print the table of scalr-load.
bench_agents() {
    local target
    step "Building the server and the simulated agents (profile release)"
    (cd "$scripts/.." && cargo build --release --package server --package load --bins >&2) || return 1
    target=$(cd "$scripts/.." && cargo metadata --no-deps --format-version 1 | jq -r .target_directory) || return 1
    step "Measuring"
    "$target/release/scalr-load" --server "$target/release/scalr-server" "$@"
}

# shellcheck shell=bash disable=SC2154 # its variables cross files
# Many runs under an agent that is killed again and again. It is the test of the same
# name, which scripts/test runs with few. Sourced after kit.sh.

# Between two kills of the agent, on average.
soak_kill_seconds=20

# bench_soak RUNS: print the figures; fail if a promise was broken.
bench_soak() {
    local runs=$1 kit program
    step "Building the packages and the test"
    kit=$(make_kit) || return 1
    program=$(machine_tests) || return 1
    as_root "$scripts/machine" prepare ubuntu-18.04 || return 1

    step "Running $runs runs, with the agent killed every $soak_kill_seconds s"
    as_root env SCALR_AGENT_KIT="$kit" SCALR_SOAK_RUNS="$runs" \
        SCALR_SOAK_KILL_SECONDS="$soak_kill_seconds" \
        "$program" --ignored --nocapture --exact soak::runs_outlive_an_agent_that_is_killed_again_and_again ||
        return 1
}

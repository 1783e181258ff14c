# shellcheck shell=bash disable=SC2154 # its variables cross files
# What is measured on booted machines. Each is a test of its own, which scripts/test runs with one
# round, some with --full alone. Sourced after kit.sh.

# bench_runs ROUNDS [FILE]: how long a run takes beside its commands in plain Docker; write the plot
# to the file, if one is named. With SCALR_RUN_AHEAD=0 no container is started ahead of its run.
bench_runs() {
    local set=(SCALR_RUN_ROUNDS="$1" SCALR_RUN_AHEAD="${SCALR_RUN_AHEAD:-1}")
    [[ -z $2 ]] || set+=(SCALR_RUN_PLOT="$(realpath "$2")")
    measure_on_machines "$1 rounds" "${set[@]}" -- --exact run_times::a_run_is_traced_from_its_offer_to_its_end
}

# bench_logs: a run's log followed through the server, beside `docker logs --follow`.
bench_logs() { measure_on_machines "one round" -- log_times::; }

# bench_install ROUNDS: how long an installation takes beside the package tool's own.
bench_install() {
    measure_on_machines "$1 rounds" SCALR_INSTALL_ROUNDS="$1" -- --test-threads=1 install_times::
}

# bench_cli ROUNDS: the terraform command line through a server and an agent.
bench_cli() {
    run_image_knows_terraform_data || {
        say "no terraform 1.4 or later is on PATH"
        return 1
    }
    measure_on_machines "$1 rounds" SCALR_CLI_ROUNDS="$1" -- \
        --exact terraform_cli::terraform_plans_applies_stops_and_destroys_on_the_agent
}

# bench_soak RUNS: many runs under an agent that is killed again and again; fail if a promise was
# broken.
bench_soak() {
    local between=20
    measure_on_machines "$1 runs, with the agent killed every $between s" SCALR_SOAK_RUNS="$1" \
        SCALR_SOAK_KILL_SECONDS="$between" -- \
        --exact soak::runs_outlive_an_agent_that_is_killed_again_and_again
}

# measure_on_machines EXTENT VARIABLE=VALUE... -- ARGUMENT...: run the tests that the arguments
# choose, with these variables.
measure_on_machines() {
    local extent=$1 set=(SCALR_FIGURES="${SCALR_FIGURES:-}") kit program
    shift
    while [[ $1 != -- ]]; do
        set+=("$1")
        shift
    done
    shift
    step "Building the packages and the test"
    kit=$(make_kit) || return 1
    program=$(machine_tests) || return 1
    as_root "$scripts/machine" prepare || return 1

    step "Measuring, $extent"
    as_root env SCALR_AGENT_KIT="$kit" "${set[@]}" "$program" --ignored --nocapture "$@"
}

# shellcheck shell=bash disable=SC2154 # its variables cross files
# How long a run takes beside its commands in plain Docker, on a booted machine. It is the test
# of the same name, which scripts/test runs with one round. Sourced after kit.sh.

# bench_runs ROUNDS [FILE]: print the tables; write the plot to the file, if one is named. With
# SCALR_RUN_AHEAD=0 no container is started ahead of its run.
bench_runs() {
    local rounds=$1 plot=() kit program
    [[ -z $2 ]] || plot=(SCALR_RUN_PLOT="$(realpath "$2")")
    step "Building the packages and the test"
    kit=$(make_kit) || return 1
    program=$(machine_tests) || return 1
    as_root "$scripts/machine" prepare ubuntu-18.04 || return 1

    step "Measuring, $rounds rounds"
    as_root env SCALR_AGENT_KIT="$kit" SCALR_RUN_ROUNDS="$rounds" SCALR_RUN_AHEAD="${SCALR_RUN_AHEAD:-1}" "${plot[@]}" "$program" \
        --ignored --nocapture --exact run_times::a_run_is_traced_from_its_offer_to_its_end
}

# shellcheck shell=bash disable=SC2154 # its variables cross files
# A run's log followed through the server, beside `docker logs --follow`, on a booted machine. It
# is the test of the same name, which scripts/test --full runs. Sourced after kit.sh.

# bench_logs: print the table.
bench_logs() {
    local kit program
    step "Building the packages and the test"
    kit=$(make_kit) || return 1
    program=$(machine_tests) || return 1
    as_root "$scripts/machine" prepare ubuntu-18.04 || return 1

    step "Measuring"
    as_root env SCALR_AGENT_KIT="$kit" "$program" --ignored --nocapture log_times::
}

# shellcheck shell=bash disable=SC2154 # its variables cross files
# The terraform command line through a server and an agent on a booted machine. It is the test
# of the same name, which scripts/test runs with one round. Sourced after kit.sh.

# bench_cli ROUNDS: print the table.
bench_cli() {
    local rounds=$1 kit program
    run_image_knows_terraform_data || {
        say "no terraform 1.4 or later is on PATH"
        return 1
    }
    step "Building the packages and the test"
    kit=$(make_kit) || return 1
    program=$(machine_tests) || return 1
    as_root "$scripts/machine" prepare ubuntu-18.04 || return 1

    step "Measuring, $rounds rounds"
    as_root env SCALR_AGENT_KIT="$kit" SCALR_CLI_ROUNDS="$rounds" "$program" --ignored --nocapture \
        --exact terraform_cli::terraform_plans_applies_stops_and_destroys_on_the_agent
}

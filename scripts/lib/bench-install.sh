# shellcheck shell=bash disable=SC2154 # its variables cross files
# How long an installation takes beside the package tool's own, on booted machines. It is the test
# of the same name, which scripts/test --full runs with one round. Sourced after kit.sh.

# bench_install ROUNDS: print the tables.
bench_install() {
    local rounds=$1 kit program
    step "Building the packages and the test"
    kit=$(make_kit) || return 1
    program=$(machine_tests) || return 1
    as_root "$scripts/machine" prepare ubuntu-18.04 centos-8 || return 1

    step "Measuring, $rounds rounds"
    as_root env SCALR_AGENT_KIT="$kit" SCALR_INSTALL_ROUNDS="$rounds" "$program" \
        --ignored --nocapture --test-threads=1 install_times::
}

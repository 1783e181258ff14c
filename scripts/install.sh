#!/bin/sh
# Installs a Terraform run agent on this host, from its server's package
# repository, and registers it with a pool.
#
#   curl -fsSL https://SERVER/install.sh | sudo sh -s -- --token-file FILE
#
# Everything is in functions that the last line calls: a script that was cut
# off on its way runs nothing. It needs a POSIX sh, curl (7.29 or newer) or
# wget, and apt, dnf or yum.
#
# The steps, each of which is undone when a later one fails:
#   1. fetch the small setup program from the server and let it check this host,
#      before anything is changed;
#   2. add the repository and its key;
#   3. install the package scalr-agent;
#   4. hand over to `scalr-agent-setup install`, with the options given here.

SERVER_URL=""

set -eu

usage() {
    cat <<'USAGE'
usage: install.sh [--url URL] [--repository-only] [--dry-run] [OPTION...]

Installs the package scalr-agent from its server's repository and registers
the agent with a pool.

  --url URL           the server, for example https://pools.example.com
  --token-file FILE   a file that holds the pool's token
  --fix               mend what the checks find, where that is possible
  --ignore NAMES      go on although these checks fail (comma-separated)
  --repository-only   add the repository, install nothing
  --dry-run           say what would be done, change nothing
  --help              print this

All other options go to `scalr-agent-setup install`: --agent-name NAME,
--concurrency N, --memory MB, --cpu N, --user NAME, --http-proxy URL,
--engine bundled|system, --no-start.

environment:
  SCALR_AGENT_TOKEN   the pool's token, instead of --token-file
  HTTPS_PROXY, NO_PROXY   how the server and the repositories are reached

exit codes: 0 done, 1 failed, 2 wrong usage, 3 a check failed, 5 platform not
supported, 6 something needed could not be installed, 7 not permitted

examples:
  curl -fsSL https://pools.example.com/install.sh |
      sudo sh -s -- --token-file /root/pool-token --concurrency 2
  sudo sh install.sh --url https://pools.example.com --token-file token --fix
USAGE
}

main() {
    read_options "$@"
    if [ -n "$help" ]; then
        usage
        exit 0
    fi
    need_root
    find_package_manager
    find_downloader
    work=$(mktemp -d) || fail 1 "cannot make a temporary directory"
    done=
    trap finish EXIT
    trap 'exit 129' HUP
    trap 'exit 130' INT
    trap 'exit 143' TERM

    fetch_setup
    check_host
    if [ -n "$dry_run" ]; then
        say_plan
        done=yes
        exit 0
    fi
    add_repository
    if [ -n "$repository_only" ]; then
        done=yes
        say "The repository is set up; install the package scalr-agent from it when you like."
        exit 0
    fi
    install_package
    set_up "$@"
    done=yes
}

# Our own options, and those that the check of step 1 understands as well; what
# else there is, `scalr-agent-setup install` will judge.
read_options() {
    help='' dry_run='' repository_only='' url=$SERVER_URL
    fix='' concurrency='' memory='' ignore='' engine=''
    while [ $# -gt 0 ]; do
        case $1 in
            --help | -h) help=yes ;;
            --dry-run) dry_run=yes ;;
            --repository-only) repository_only=yes ;;
            --fix) fix=yes ;;
            --token | --token=*)
                fail 2 "a token on a command line is seen by every user of this host; give --token-file FILE, or SCALR_AGENT_TOKEN in the environment"
                ;;
            --url=*) url=${1#*=} ;;
            --concurrency=*) concurrency=${1#*=} ;;
            --memory=*) memory=${1#*=} ;;
            --ignore=*) ignore=${1#*=} ;;
            --engine=*) engine=${1#*=} ;;
            --url | --concurrency | --memory | --ignore | --engine)
                [ $# -ge 2 ] || fail 2 "$1 needs a value; see --help"
                case $1 in
                    --url) url=$2 ;;
                    --concurrency) concurrency=$2 ;;
                    --memory) memory=$2 ;;
                    --ignore) ignore=$2 ;;
                    --engine) engine=$2 ;;
                esac
                shift
                ;;
        esac
        shift
    done
    url=${url%/}
    if [ -z "$help" ]; then
        case $url in
            https://?* | http://?*) ;;
            '') fail 2 "which server? give --url https://SERVER" ;;
            *) fail 2 "--url should be https://SERVER, not '$url'" ;;
        esac
    fi
}

need_root() {
    [ "$(id -u)" -eq 0 ] ||
        fail 7 "this changes the system and needs root: put sudo before the last sh"
}

find_package_manager() {
    if command -v apt-get >/dev/null 2>&1 && command -v dpkg >/dev/null 2>&1; then
        packages=apt
    elif command -v dnf >/dev/null 2>&1; then
        packages=dnf
    elif command -v yum >/dev/null 2>&1; then
        packages=yum
    else
        fail 5 "this host has neither apt nor dnf nor yum; run the agent as a container instead, or unpack the package by hand"
    fi
    machine=$(uname -m)
    case $machine in
        x86_64 | aarch64) ;;
        *) fail 5 "there are no packages for $machine, only for x86_64 and aarch64" ;;
    esac
}

find_downloader() {
    if command -v curl >/dev/null 2>&1; then
        downloader=curl
    elif command -v wget >/dev/null 2>&1; then
        downloader=wget
    else
        fail 6 "neither curl nor wget is here; install one of them"
    fi
}

# download PATH FILE: from the server, with three tries.
download() {
    case $downloader in
        curl) curl -fsS --retry 3 --connect-timeout 20 -o "$2" "$url$1" </dev/null ;;
        wget) wget -q -t 3 -T 20 -O "$2" "$url$1" </dev/null ;;
    esac || fail 1 "cannot download $url$1; see the line above (a proxy is taken from HTTPS_PROXY)"
}

fetch_setup() {
    setup=$work/scalr-agent-setup
    say "Fetching the setup program from $url"
    download "/packages/scalr-agent-setup-$machine" "$setup"
    download "/packages/scalr-agent-setup-$machine.sha256" "$setup.sha256"
    wanted=$(cut -d' ' -f1 <"$setup.sha256")
    found=$(sha256sum <"$setup" | cut -d' ' -f1)
    [ "$wanted" = "$found" ] ||
        fail 1 "the setup program was damaged on its way: its SHA-256 is $found, not $wanted"
    chmod 0700 "$setup"
    code=0
    "$setup" --version >/dev/null 2>&1 </dev/null || code=$?
    # 126: found, but not allowed to run.
    [ "$code" -ne 126 ] ||
        fail 1 "programs in $work may not be run (mounted noexec?); set TMPDIR to a directory where they may"
    [ "$code" -eq 0 ] || fail 5 "the setup program does not run here (exit code $code)"
}

check_host() {
    say "Checking this host"
    set -- check --before-install --url "$url"
    [ -n "$concurrency" ] && set -- "$@" --concurrency "$concurrency"
    [ -n "$memory" ] && set -- "$@" --memory "$memory"
    [ -n "$ignore" ] && set -- "$@" --ignore "$ignore"
    [ -n "$engine" ] && set -- "$@" --engine "$engine"
    [ -n "$fix" ] && [ -z "$dry_run" ] && set -- "$@" --fix
    code=0
    "$setup" "$@" </dev/null || code=$?
    case $code in
        0 | 4) ;;
        3) fail 3 "this host is not ready; nothing has been installed. Mend what is said above, by hand or with --fix, and run this again" ;;
        *) fail "$code" "the checks could not be made; nothing has been installed" ;;
    esac
}

say_plan() {
    case $packages in
        apt) say "Would write $apt_key and $apt_source, then run: apt-get install -y scalr-agent" ;;
        *) say "Would write $yum_repository, then run: $packages install -y scalr-agent" ;;
    esac
    say "Would then run: scalr-agent-setup install --url $url ... (with the options given)"
}

apt_key=/usr/share/keyrings/scalr-agent.asc
apt_source=/etc/apt/sources.list.d/scalr-agent.sources
yum_repository=/etc/yum.repos.d/scalr-agent.repo

add_repository() {
    say "Adding the repository $url/packages"
    case $packages in
        apt)
            place /packages/scalr-agent.asc "$apt_key"
            place /packages/scalr-agent.sources "$apt_source"
            # Only our own list: a broken one of somebody else's is not our affair.
            run apt-get update -q \
                -o Dir::Etc::sourcelist="$apt_source" -o Dir::Etc::sourceparts=/dev/null \
                -o APT::Get::List-Cleanup=0
            ;;
        *)
            place /packages/scalr-agent.repo "$yum_repository"
            # -y also takes the repository's key; without it this would ask.
            run "$packages" -y -q --disablerepo='*' --enablerepo=scalr-agent makecache
            ;;
    esac || fail 6 "the repository can't be used; see the lines above"
}

install_package() {
    if has_package; then
        say "Upgrading the package scalr-agent, if there is a newer one"
    else
        say "Installing the package scalr-agent"
        installed=yes
    fi
    case $packages in
        # What it depends on comes from the host's own lists, which may be old or
        # never fetched: fetch them then.
        apt) apt_install || { run apt-get update -q && apt_install; } ;;
        *) run "$packages" -y install scalr-agent ;;
    esac || fail 6 "the package scalr-agent could not be installed; see the lines above"
}

apt_install() {
    DEBIAN_FRONTEND=noninteractive run apt-get install -y -q \
        -o DPkg::Lock::Timeout=120 -o Dpkg::Options::=--force-confold scalr-agent
}

has_package() {
    case $packages in
        apt) dpkg-query -W -f '${Status}' scalr-agent 2>/dev/null | grep -q 'ok installed' ;;
        *) rpm -q scalr-agent >/dev/null 2>&1 ;;
    esac
}

# The options as given, less those that are only ours; the token comes from its
# file or from the environment.
set_up() {
    say "Setting the agent up"
    count=$#
    given_url=
    while [ "$count" -gt 0 ]; do
        option=$1
        shift
        count=$((count - 1))
        case $option in
            --repository-only) ;;
            --url | --url=*)
                given_url=yes
                set -- "$@" "$option"
                ;;
            *) set -- "$@" "$option" ;;
        esac
    done
    [ -n "$given_url" ] || set -- --url "$url" "$@"
    code=0
    scalr-agent-setup install "$@" || code=$?
    [ "$code" -eq 0 ] || fail "$code" "the agent could not be set up; see the lines above"
}

# place PATH FILE: downloads PATH to FILE in one step, and remembers what was
# there before.
place() {
    download "$1" "$work/new"
    if [ -e "$2" ]; then
        [ "$(sha256sum <"$work/new")" != "$(sha256sum <"$2")" ] || return 0
        cp -p "$2" "$work/$(basename "$2").before"
    fi
    placed="$placed $2"
    mkdir -p "$(dirname "$2")"
    # Readable by all: apt fetches and verifies as a user of its own.
    chmod 0644 "$work/new"
    # Made in its own directory, so that the rename is atomic and the file gets
    # that directory's SELinux label.
    cp "$work/new" "$2.new"
    chmod 0644 "$2.new"
    mv "$2.new" "$2"
}

# Runs a command that must not read our standard input: it may be this script.
run() {
    "$@" </dev/null
}

placed='' installed='' work=''

finish() {
    code=$?
    trap - EXIT
    if [ -z "$done" ]; then
        [ "$code" -ne 0 ] || code=1
        undo || say "not everything could be undone; see the lines above"
    fi
    [ -z "$work" ] || rm -rf "$work"
    exit "$code"
}

undo() {
    if [ -n "$installed" ] && has_package; then
        say "Removing the package again"
        case $packages in
            apt) DEBIAN_FRONTEND=noninteractive run apt-get purge -y -q scalr-agent ;;
            *) run "$packages" -y -q remove scalr-agent ;;
        esac
    fi
    for file in $placed; do
        if [ -e "$work/$(basename "$file").before" ]; then
            mv "$work/$(basename "$file").before" "$file"
        else
            rm -f "$file"
        fi
        rm -f "$file.new"
    done
}

say() {
    printf '==> %s\n' "$*"
}

# fail CODE SENTENCE
fail() {
    printf 'install.sh: %s\n' "$2" >&2
    exit "$1"
}

main "$@"

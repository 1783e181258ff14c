#!/bin/sh
# Installs a Terraform run agent on this host, from its server's package
# repository, and registers it with a pool.
#
#   curl -fsSL https://SERVER/install.sh | sudo sh -s -- --token-file FILE
#
# Everything is in functions, those are in one pair of braces, and the last line
# calls them and closes it: a script that was cut off on its way runs nothing.
# It needs a POSIX sh, the coreutils, awk, grep and sed, curl (7.29 or newer) or
# wget, and apt, dnf or yum.
#
# The steps, each of which is undone when a later one fails:
#   1. fetch the small setup program and the packages' key, verify them, and let
#      the program check this host, before anything is changed;
#   2. add the repository and its key;
#   3. install the package scalr-agent;
#   4. hand over to `scalr-agent-setup install`, with the options given here.
{

# The server that serves this script puts its address and its key's SHA-256 here.
SERVER_URL=""
KEY_SHA256=""
VERSION="0.1.0"

set -eu

usage() {
    cat <<'USAGE'
usage: install.sh [--url URL] --token-file FILE [OPTION...]
       install.sh --repository-only | --uninstall [OPTION...]

Installs the package scalr-agent from its server's repository and registers
the agent with a pool. What it did is undone if a later step fails.

what it does
  --dry-run           print each command and change, and do none
  --repository-only   add the repository and its key, install nothing
  --offline DIR       install without network, from an unpacked offline bundle
  --uninstall         remove the agent, the repository and its key
  --version           print this script's version
  --help              print this

where the packages come from
  --url URL           the server, for example https://pools.example.com; a
                      script that a server has served knows its own
  --key-fingerprint HEX
                      go on only with this key: the 40 digits of its OpenPGP
                      fingerprint, or the 64 of the SHA-256 of its file,
                      scalr-agent.asc. Neither needs gpg on this host. A script
                      that a server has served compares the SHA-256 by itself

the agent
  --token-file FILE   a file with the pool's token; - is standard input
  --agent-name NAME   its name in the pool; this host's if not given
  --concurrency N     how many runs at once
  --memory MB, --cpu N
                      memory and processors of each run
  --user NAME         the user in a run's container: root, a name or UID[:GID]
  --image IMAGE       the image of runs whose workspace and pool have none
  --engine bundled|system
                      the package's own Docker engine, or the host's
  --ca-cert FILE      authorities that the agent trusts besides the system's
  --http-proxy URL, --https-proxy URL, --no-proxy LIST
                      the proxy of this script, of the agent, its engine and
                      runs; - reads a URL from standard input
  --no-start          leave the services stopped
  -- OPTION...        further options of `scalr-agent-setup install`

the checks that come first
  --fix               mend what they find, where that is possible
  --ignore NAMES      go on although these fail (separated by commas), or all
  --verbose           name each command that the setup program runs

with --uninstall
  --purge             delete settings, data and accounts, too
  --force             although runs are active
  --keep-package      leave the package and its repository

environment
  SCALR_AGENT_TOKEN            the pool's token, instead of --token-file
  SCALR_AGENT_KEY_FINGERPRINT  instead of --key-fingerprint
  SCALR_AGENT_LOCK_WAIT        for how many seconds to wait for another
                               package manager; 300 if not set
  HTTP_PROXY, HTTPS_PROXY, NO_PROXY (or in small letters)
                               how this script reaches the server
  TMPDIR                       where temporary files go, if programs may run
                               there; else /tmp, /var/tmp, /var/lib or /root

exit codes
   0  done                           6  the repository can't be used, or
   1  failed                            something could not be installed
   2  wrong usage or settings        7  not permitted: not root, or the server
   3  a check failed                    refuses the token
   5  platform not supported         8  a download failed
   9  a key or checksum is not the expected one
  10  another package manager held its lock for too long
  11  no temporary folder from which programs may run
  129, 130, 143  ended by SIGHUP, SIGINT, SIGTERM
(4, only warnings, is no reason to stop.)

examples
  curl -fsSL https://pools.example.com/install.sh |
      sudo sh -s -- --token-file /root/pool-token --concurrency 2
  sudo sh install.sh --url https://pools.example.com --token-file token --fix
  sudo sh install.sh --offline . --url https://pools.example.com \
      --token-file /root/pool-token
  sudo sh install.sh --uninstall --dry-run
USAGE
}

main() {
    read_options "$@"
    case $action in
        help) usage && return ;;
        version) printf 'install.sh %s\n' "$VERSION" && return ;;
    esac
    judge_options
    [ -n "$dry_run" ] || need_root
    [ "$action" != install ] || need_token
    need_linux
    find_package_manager
    find_downloader
    use_proxy
    finished=
    trap finish EXIT
    trap 'exit 129' HUP
    trap 'exit 130' INT
    trap 'exit 143' TERM
    make_work_folder
    case $action in
        install) install ;;
        repository)
            fetch_key
            add_repository
            [ -n "$dry_run" ] ||
                say "The repository is set up; install the package scalr-agent from it when you like."
            ;;
        uninstall) uninstall ;;
    esac
    finished=yes
}

install() {
    fetch_setup
    fetch_key
    check_host
    add_repository
    install_package
    hand_over
    [ -z "$verdict" ] || fail 3 "$verdict"
}

# --- options ---

# Ours are taken, those of `scalr-agent-setup install` go into $passed, quoted.
read_options() {
    action=install dry_run='' url=$SERVER_URL offline='' passed='' uninstalling=''
    fix='' concurrency='' memory='' ignore='' engine='' verbose=''
    token_file='' http_proxy_given='' https_proxy_given='' no_proxy_given=''
    key_fingerprint=${SCALR_AGENT_KEY_FINGERPRINT:-}
    lock_limit=${SCALR_AGENT_LOCK_WAIT:-300}
    while [ $# -gt 0 ]; do
        option=$1
        shift
        case $option in
            --help | -h) action=help && return ;;
            --version) action=version && return ;;
            --repository-only) action=repository ;;
            --uninstall) action=uninstall ;;
            --dry-run) dry_run=yes ;;
            --fix) fix=yes && pass "$option" ;;
            --no-start) pass "$option" ;;
            --verbose | -v) verbose=yes ;;
            --purge | --force | --keep-package) uninstalling="$uninstalling $option" ;;
            --token | --token=*)
                fail 2 "a token on a command line is seen by every user of this host; give --token-file FILE, or SCALR_AGENT_TOKEN in the environment"
                ;;
            --)
                for option; do pass "$option"; done
                return
                ;;
            --*=*) take_value "${option%%=*}" "${option#*=}" ;;
            --*)
                is_valued "$option" || fail 2 "there is no option $option; see --help"
                [ $# -gt 0 ] || fail 2 "$option needs a value; see --help"
                take_value "$option" "$1"
                shift
                ;;
            *) fail 2 "'$option' is no option; see --help" ;;
        esac
    done
}

is_valued() {
    case $1 in
        --url | --offline | --key-fingerprint | --token-file | --agent-name | --concurrency) ;;
        --memory | --cpu | --user | --image | --engine | --ca-cert | --ignore) ;;
        --http-proxy | --https-proxy | --no-proxy) ;;
        *) return 1 ;;
    esac
}

take_value() {
    is_valued "$1" || fail 2 "there is no option $1 with a value; see --help"
    [ -n "$2" ] || fail 2 "the value of $1 is empty; see --help"
    case $1 in
        # Not passed on here: each is looked at first.
        --url) url=$2 ;;
        --offline) offline=$2 ;;
        --key-fingerprint) key_fingerprint=$2 ;;
        --http-proxy) http_proxy_given=$2 ;;
        --https-proxy) https_proxy_given=$2 ;;
        --no-proxy) no_proxy_given=$2 ;;
        *)
            pass "$1" "$2"
            case $1 in
                --token-file) token_file=$2 ;;
                --concurrency) concurrency=$2 ;;
                --memory) memory=$2 ;;
                --ignore) ignore=$2 ;;
                --engine) engine=$2 ;;
            esac
            ;;
    esac
}

pass() {
    passed="$passed$(quoted "$@")"
}

# quoted WORD...: each with a space before it, and as `eval` reads it back.
quoted() {
    for word; do
        case $word in
            '' | *[!A-Za-z0-9_./:=,@%+-]*)
                printf " '"
                printf '%s' "$word" | sed "s/'/'\\\\''/g"
                printf "'"
                ;;
            *) printf ' %s' "$word" ;;
        esac
    done
}

judge_options() {
    url=${url%/}
    case $url in
        https://?*) ;;
        http://?*) warn "$url is not encrypted: whoever is on the way can change what is installed" ;;
        '')
            [ -n "$offline" ] || [ "$action" = uninstall ] ||
                fail 2 "which server? give --url https://SERVER"
            ;;
        *) fail 2 "--url should be https://SERVER, not '$url'" ;;
    esac
    case $url in
        *[!A-Za-z0-9_.:/~%\[\]-]*) fail 2 "--url has a character in it that no server's address has: '$url'" ;;
    esac
    case $lock_limit in
        *[!0-9]* | '') fail 2 "SCALR_AGENT_LOCK_WAIT should be a number of seconds, not '$lock_limit'" ;;
    esac
    [ -z "$uninstalling" ] || [ "$action" = uninstall ] ||
        fail 2 "$uninstalling: only with --uninstall"
    judge_fingerprint
    judge_standard_input
    [ -z "$offline" ] || judge_bundle
}

# As gpg prints it, it has spaces in it; some tools put colons.
judge_fingerprint() {
    [ -n "$key_fingerprint" ] || return 0
    key_fingerprint=$(printf '%s' "$key_fingerprint" | tr -d ' :' | tr 'A-F' 'a-f')
    case $key_fingerprint in
        *[!0-9a-f]*) fail 2 "a key's fingerprint has only the digits 0-9 and a-f" ;;
    esac
    case ${#key_fingerprint} in
        40 | 64) ;;
        *) fail 2 "a key's fingerprint has 40 digits, its file's SHA-256 has 64; this has ${#key_fingerprint}" ;;
    esac
}

# Standard input holds this script if sh is reading it from there.
judge_standard_input() {
    from_input=''
    for value in "$token_file" "$http_proxy_given" "$https_proxy_given"; do
        [ "$value" != - ] || from_input="$from_input-"
    done
    [ -z "$from_input" ] || [ -f "$0" ] ||
        fail 2 "standard input is this script, so nothing else can be read from it: save the script as a file and run that, or give the name of a file"
    case $from_input in
        --*) fail 2 "only one of --token-file, --http-proxy and --https-proxy can be -" ;;
    esac
    # Proxies are handed on by standard input, for the password that one may have.
    [ "$token_file" != - ] || [ -z "$http_proxy_given$https_proxy_given" ] ||
        fail 2 "with a proxy, the token can't come from standard input; give --token-file FILE"
}

judge_bundle() {
    [ -d "$offline" ] || fail 2 "--offline: there is no folder $offline"
    offline=$(CDPATH='' cd -- "$offline" && pwd -P)
    case $offline in
        *[!A-Za-z0-9_./+-]*)
            fail 2 "package managers can't read a repository in a folder of that name: move '$offline' to one of letters, digits, and _ . + -"
            ;;
    esac
    [ -e "$offline/repository/scalr-agent.asc" ] ||
        fail 2 "$offline is no unpacked offline bundle: it has no repository/scalr-agent.asc"
}

# --- what this host is ---

need_root() {
    [ "$(id -u)" -ne 0 ] || return 0
    if [ -f "$0" ]; then
        line="sh $0 OPTIONS" where="put sudo before it: sudo $line"
    else
        line="curl -fsSL ${url:-https://SERVER}/install.sh | sh -s -- OPTIONS"
        where="put sudo before the sh: curl -fsSL ${url:-https://SERVER}/install.sh | sudo sh -s -- OPTIONS"
    fi
    have sudo || where="there is no sudo here, so become root with \`su -\` and repeat: $line"
    # Not every sudo can pass the environment on: that of Rust has no -E.
    [ -z "${SCALR_AGENT_TOKEN:-}" ] ||
        where="$where (SCALR_AGENT_TOKEN gets lost on the way; use --token-file FILE)"
    fail 7 "this changes the system and needs root; $where"
}

# Else it would be missed only when the package is installed already.
need_token() {
    case $token_file in
        -) ;;
        '')
            [ -n "${SCALR_AGENT_TOKEN:-}" ] || [ -e "$settings" ] ||
                fail 2 "which pool? give its token in --token-file FILE, or in the environment as SCALR_AGENT_TOKEN"
            ;;
        *)
            # A pipe is a file, too.
            if [ ! -r "$token_file" ] || [ -d "$token_file" ]; then
                fail 2 "--token-file: cannot read $token_file"
            elif [ -f "$token_file" ] && [ ! -s "$token_file" ]; then
                fail 2 "--token-file: $token_file is empty"
            fi
            ;;
    esac
}

need_linux() {
    system=$(uname -s)
    [ "$system" = Linux ] || fail 5 "agents run on Linux; this is $system"
    machine=$(uname -m)
    case $machine in
        x86_64 | aarch64) ;;
        *) fail 5 "there are no packages for $machine, only for x86_64 and aarch64" ;;
    esac
}

os_release=/etc/os-release
settings=/etc/scalr-agent/agent.toml
unfinished=/var/lib/scalr-agent-setup.unfinished

find_package_manager() {
    if have apt-get && have dpkg; then
        packages=apt
        userland=$(dpkg --print-architecture)
    elif have rpm && { have dnf || have yum; }; then
        packages=yum
        ! have dnf || packages=dnf
        userland=$(rpm --eval '%{_arch}')
    else
        name=$(sed -n 's/^PRETTY_NAME=//p' "$os_release" 2>/dev/null | tr -d '"')
        fail 5 "${name:-this system} has neither apt nor dnf nor yum, and there are only deb and rpm packages; run the agent as a container instead"
    fi
    case $machine-$userland in
        x86_64-amd64 | x86_64-x86_64 | aarch64-arm64 | aarch64-aarch64) ;;
        *) fail 5 "this system's packages are for $userland (its kernel is $machine); the agent's are for x86_64 and aarch64" ;;
    esac
}

find_downloader() {
    if [ -n "$offline" ]; then
        downloader=none
    elif have curl; then
        downloader=curl
    elif have wget; then
        downloader=wget
    else
        fail 6 "neither curl nor wget is here; install one of them"
    fi
}

have() {
    command -v "$1" >/dev/null 2>&1
}

# Our own downloads, and those of apt and yum, go through the proxy that the
# agent will have. apt reads the small letters.
use_proxy() {
    if [ -n "$http_proxy_given$https_proxy_given" ]; then
        read_proxy
        http_proxy=$http_proxy_given
        https_proxy=${https_proxy_given:-$http_proxy_given}
    fi
    HTTP_PROXY=${http_proxy:-${HTTP_PROXY:-}} http_proxy=$HTTP_PROXY
    HTTPS_PROXY=${https_proxy:-${HTTPS_PROXY:-}} https_proxy=$HTTPS_PROXY
    NO_PROXY=${no_proxy_given:-${no_proxy:-${NO_PROXY:-}}} no_proxy=$NO_PROXY
    [ -z "$http_proxy" ] || export http_proxy HTTP_PROXY
    [ -z "$https_proxy" ] || export https_proxy HTTPS_PROXY
    [ -z "$no_proxy" ] || export no_proxy NO_PROXY
}

read_proxy() {
    for name in http_proxy_given https_proxy_given; do
        eval "value=\$$name"
        [ "$value" = - ] || continue
        IFS= read -r value || [ -n "$value" ] || fail 2 "there is no proxy on standard input"
        eval "$name=\$value"
    done
}

# --- temporary files ---

# A hardened host lets no program run from its /tmp.
make_work_folder() {
    tried=
    for folder in "${TMPDIR:-/tmp}" /tmp /var/tmp /var/lib /root; do
        [ "$folder" != "$tried" ] || continue
        tried=$folder
        work=$(umask 077 && mktemp -d "$folder/scalr-agent-install.XXXXXX" 2>/dev/null) || continue
        if can_run_from "$work"; then
            return
        fi
        rm -rf "$work"
        work=
        warn "programs in $folder may not be run (mounted noexec?); looking for another folder"
    done
    work=
    fail 11 "found no folder for temporary files from which programs may run; name one with TMPDIR=/a/folder"
}

can_run_from() {
    printf '#!/bin/sh\n' >"$1/probe" && chmod 0700 "$1/probe" && "$1/probe" </dev/null 2>/dev/null
}

# --- downloads ---

# fetch PATH FILE: from the server's packages or from the bundle.
fetch() {
    if [ -n "$offline" ]; then
        [ -f "$offline/repository/$1" ] ||
            fail 2 "$offline/repository has no $1: is this bundle for another processor?"
        cp "$offline/repository/$1" "$2"
    else
        download "$url/packages/$1" "$2"
    fi
}

# download URL FILE: with three tries, where another try can help.
download() {
    attempt=1
    until try_download "$1" "$2"; do
        reason=$(tail -n 1 "$work/said")
        if [ -n "$is_final" ] || [ "$attempt" -ge 3 ]; then
            fail 8 "cannot download $1: ${reason:-$downloader exited with code $code}$hint"
        fi
        say "Downloading $1 failed (${reason:-$downloader exited with code $code}); trying again"
        pause "$((attempt * 2))"
        attempt=$((attempt + 1))
    done
}

try_download() {
    code=0 is_final='' hint='' status=''
    case $downloader in
        curl)
            # Not --retry: curl 7.29 does not for refused connections.
            status=$(curl -fsSL --proto-redir =https --connect-timeout 20 \
                --speed-limit 1 --speed-time 60 -w '%{http_code}' -o "$2" "$1" \
                </dev/null 2>"$work/said") || code=$?
            ;;
        # No more options than busybox's wget has.
        wget) wget -q -T 60 -O "$2" "$1" </dev/null >"$work/said" 2>&1 || code=$? ;;
    esac
    [ "$code" -ne 0 ] || return 0
    case $downloader-$code-$status in
        curl-5-* | curl-6-* | curl-7-* | curl-28-*)
            hint="; is a proxy needed? It is taken from --http-proxy or HTTPS_PROXY"
            ;;
        curl-22-4*)
            is_final=yes hint="; has the server been started with --packages?" ;;
        curl-51-* | curl-60-* | wget-5-*)
            is_final=yes
            hint="; this host does not trust the server's certificate: add its authority to those of the system" ;;
    esac
    return 1
}

pause() {
    sleep "$1"
}

fetch_setup() {
    setup=$work/scalr-agent-setup
    say "Fetching the setup program from ${offline:-$url}"
    fetch "scalr-agent-setup-$machine" "$setup"
    fetch "scalr-agent-setup-$machine.sha256" "$setup.sha256"
    wanted=$(cut -d' ' -f1 <"$setup.sha256")
    found=$(sha256_of "$setup")
    [ "$wanted" = "$found" ] ||
        fail 9 "the setup program was damaged on its way: its SHA-256 is $found, not $wanted"
    chmod 0700 "$setup"
    code=0
    "$setup" --version >/dev/null 2>"$work/said" </dev/null || code=$?
    [ "$code" -eq 0 ] ||
        fail 5 "the setup program does not run here (exit code $code): $(tail -n 1 "$work/said")"
}

# --- the key ---

# The key that the packages are signed with, verified, in $key.
fetch_key() {
    key=$work/scalr-agent.asc
    fetch scalr-agent.asc "$key"
    verify_key
    say "The packages are signed with the key $fingerprint"
}

verify_key() {
    sum=$(sha256_of "$key")
    read_key "$key" || fail 9 "what should be the packages' key is none that can be read: ${offline:-$url/packages}/scalr-agent.asc"
    compared=
    # The script knows the key of the server that it comes from, not another's.
    if [ -n "$KEY_SHA256" ] && { [ -n "$offline" ] || [ "$url" = "$SERVER_URL" ]; }; then
        compared=yes
        [ "$sum" = "$KEY_SHA256" ] || refuse_key "the SHA-256 of its file" "$sum" "$KEY_SHA256"
    fi
    case ${#key_fingerprint} in
        64)
            compared=yes
            [ "$sum" = "$key_fingerprint" ] ||
                refuse_key "the SHA-256 of its file" "$sum" "$key_fingerprint"
            ;;
        40)
            compared=yes
            [ "$fingerprint" = "$key_fingerprint" ] ||
                refuse_key "its fingerprint" "$fingerprint" "$key_fingerprint"
            # An old rpm trusts a subkey that anybody has put there.
            [ -n "$is_alone" ] || [ "$sum" = "$KEY_SHA256" ] ||
                fail 9 "the key's file has more in it than the key, for which its fingerprint does not speak; give the SHA-256 of the file to --key-fingerprint, once you know that it is right: $sum"
            ;;
    esac
    [ -n "$compared" ] ||
        warn "the packages' key is not compared with anything; --key-fingerprint would do that"
}

refuse_key() {
    fail 9 "the packages' key is not the expected one: $1 is $2, not $3; nothing has been changed. If the server has a new key, fetch its install script again"
}

# read_key FILE: the fingerprint of an OpenPGP key in ASCII, without gpg, which
# not every host has. A key of version 4 has the SHA-1 of its first packet, with
# the octet 0x99 and a length of two octets before it (RFC 4880, 12.2), and so
# that packet begins in every file that gpg writes. $is_alone tells that the file
# has no other key or subkey in it.
read_key() {
    fingerprint='' is_alone=''
    [ "$(grep -c -e '-----BEGIN' "$1")" -eq 1 ] || return 1
    # Between the empty line behind the headers and the checksum.
    tr -d '\r' <"$1" | sed -e '1,/^$/d' -e '/^=/,$d' -e '/^-----END/,$d' |
        base64 -d >"$work/key" 2>/dev/null || return 1
    sizes=$(od -An -v -tu1 "$work/key" | packets) || return 1
    fingerprint=$(head -c "${sizes%% *}" "$work/key" | sha1sum | cut -d' ' -f1)
    [ "${sizes#* }" -ne 1 ] || is_alone=yes
}

# The size of the first packet with its header, and how many packets are a key
# or a subkey; fails if the octets on its input are no row of packets that begins
# with a key (RFC 4880, 4.2).
packets() {
    awk '
        { for (i = 1; i <= NF; i++) octet[n++] = $i }
        function number(from, count) {
            value = 0
            while (count-- > 0) value = value * 256 + octet[from++]
            return value
        }
        END {
            if (octet[0] != 153 || octet[3] != 4) exit 1
            for (at = 0; at < n; at += header + size) {
                first = octet[at]
                if (first < 128) exit 1
                if (first < 192) {
                    tag = int((first - 128) / 4)
                    kind = first % 4
                    if (kind == 3) exit 1
                    header = kind == 0 ? 2 : kind == 1 ? 3 : 5
                    size = number(at + 1, header - 1)
                } else {
                    tag = first - 192
                    kind = octet[at + 1]
                    if (kind < 192) { header = 2; size = kind }
                    else if (kind < 224) { header = 3; size = (kind - 192) * 256 + octet[at + 2] + 192 }
                    else if (kind == 255) { header = 6; size = number(at + 2, 4) }
                    else exit 1
                }
                if (tag == 6 || tag == 14) keys++
                if (at == 0) whole = header + size
            }
            if (at != n) exit 1
            print whole, keys
        }'
}

sha256_of() {
    sha256sum <"$1" | cut -d' ' -f1
}

# --- the checks ---

check_host() {
    say "Checking this host"
    set -- check --before-install
    [ -z "$url" ] || set -- "$@" --url "$url"
    [ -z "$concurrency" ] || set -- "$@" --concurrency "$concurrency"
    [ -z "$memory" ] || set -- "$@" --memory "$memory"
    [ -z "$ignore" ] || set -- "$@" --ignore "$ignore"
    [ -z "$engine" ] || set -- "$@" --engine "$engine"
    [ -z "$verbose" ] || set -- "$@" --verbose
    [ -z "$fix" ] || [ -n "$dry_run" ] || set -- "$@" --fix
    code=0 verdict=''
    "$setup" "$@" </dev/null || code=$?
    case $code in
        0 | 4) ;;
        3)
            verdict="this host is not ready; nothing has been installed. Mend what is said above, by hand or with --fix, and run this again"
            # A dry run goes on and shows what would come then.
            [ -n "$dry_run" ] || fail 3 "$verdict"
            ;;
        *) fail "$code" "the checks could not be made; nothing has been installed" ;;
    esac
}

# --- the repository ---

apt_key=/usr/share/keyrings/scalr-agent.asc
apt_source=/etc/apt/sources.list.d/scalr-agent.sources
apt_lists=/var/lib/apt/lists
yum_key=/etc/pki/rpm-gpg/RPM-GPG-KEY-scalr-agent
yum_repository=/etc/yum.repos.d/scalr-agent.repo
# It would wait for ever for another one, and say nothing to us.
yum_no_waiting=--setopt=exit_on_lock=1

# An offline bundle may be gone tomorrow, and a repository that is gone breaks
# every later call of apt or yum: it is only added for good when asked for.
add_repository() {
    if [ -n "$offline" ]; then base=file://$offline/repository; else base=$url/packages; fi
    [ "$packages" = apt ] || note_key "$key"
    key_was_known=''
    [ "$packages" = apt ] || ! rpm -q "$key_package" >/dev/null 2>&1 || key_was_known=yes
    if [ -n "$offline" ] && [ "$action" = install ]; then
        use_bundle
        return
    fi
    say "Adding the repository $base"
    if [ "$packages" = apt ]; then
        apt_source_text "$base" "$apt_key" >"$work/definition"
        place "$key" "$apt_key"
        note_lists "$work/definition"
        has_lists || lists_were_known=''
        place "$work/definition" "$apt_source"
        # Only our own list: a broken one of somebody else's is not our affair.
        set -- apt-get update -q -o Dir::Etc::sourcelist="$apt_source" \
            -o Dir::Etc::sourceparts=/dev/null -o APT::Get::List-Cleanup=0
    else
        yum_repository_text "$base" >"$work/definition"
        place "$key" "$yum_key"
        place "$work/definition" "$yum_repository"
        # -y also takes the repository's key; without it this would ask.
        set -- "$packages" -y -q "$yum_no_waiting" --disablerepo='*' --enablerepo=scalr-agent makecache
    fi
    package_tool "$@" || fail 6 "the repository can't be used; see the lines above"
}

# What apt and yum are told of for this one installation: $source_options.
use_bundle() {
    say "Using the packages in $offline, and no others"
    if [ "$packages" = apt ]; then
        mkdir -p "$work/lists/partial"
        apt_source_text "$base" "$key" >"$work/bundle.sources"
        # As root: the user that apt reads as has no access to our folder.
        source_options="-o Dir::Etc::sourcelist=$work/bundle.sources \
-o Dir::Etc::sourceparts=/dev/null -o Dir::State::lists=$work/lists \
-o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= -o APT::Sandbox::User=root"
        set -- apt-get update -q
    else
        mkdir "$work/repos.d"
        place "$key" "$yum_key"
        yum_repository_text "$base" >"$work/repos.d/scalr-agent.repo"
        source_options="--setopt=reposdir=$work/repos.d --setopt=cachedir=$work/cache"
        set -- "$packages" -y -q "$yum_no_waiting" makecache
    fi
    # shellcheck disable=SC2086 # words; none has a space in it
    package_tool "$@" $source_options ||
        fail 6 "the bundle's packages can't be read; see the lines above"
}

# apt_source_text BASE KEY
apt_source_text() {
    cat <<TEXT
# Agents of ${1%/packages}; written by its install script.
Types: deb
URIs: $1/apt
Suites: stable
Components: main
Signed-By: $2
TEXT
}

# yum_repository_text BASE: the key comes from the file that was verified.
yum_repository_text() {
    cat <<TEXT
# Agents of ${1%/packages}; written by its install script.
[scalr-agent]
name=Agents of ${1%/packages}
baseurl=$1/yum
enabled=1
gpgcheck=1
repo_gpgcheck=1
gpgkey=file://$yum_key
TEXT
}

# place SOURCE FILE: puts a copy there in one step, and remembers what was there
# before.
place() {
    if [ -e "$2" ] && [ "$(sha256_of "$1")" = "$(sha256_of "$2")" ]; then
        return
    fi
    if [ -n "$dry_run" ]; then
        say "Would write $2:"
        sed 's/^/    /' "$1"
        return
    fi
    [ ! -e "$2" ] || cp -p "$2" "$work/$(basename "$2").before"
    placed="$placed $2"
    if [ ! -d "$(dirname "$2")" ]; then
        mkdir -p "$(dirname "$2")"
        made="$made $(dirname "$2")"
    fi
    # Made in its own directory, so that the rename is atomic and the file gets
    # that directory's SELinux label. Readable by all: apt fetches and verifies
    # as a user of its own.
    cp "$1" "$2.new"
    chmod 0644 "$2.new"
    mv "$2.new" "$2"
}

# --- the package ---

source_options=''

install_package() {
    if has_package; then
        say "Upgrading the package scalr-agent, if there is a newer one"
    else
        say "Installing the package scalr-agent"
        if [ -z "$dry_run" ]; then
            list_packages >"$work/packages.before"
            [ ! -e /etc/scalr-agent ] && [ ! -e /var/lib/scalr-agent ] || had_data=yes
            installed=yes
        fi
    fi
    run_installation || {
        [ -z "$offline" ] || warn "a bundle has the agent only; what else is missing has to be installed first, from the host's own packages"
        fail 6 "the package scalr-agent could not be installed; see the lines above"
    }
}

run_installation() {
    if [ "$packages" != apt ]; then
        # shellcheck disable=SC2086 # words; none has a space in it
        package_tool "$packages" -y "$yum_no_waiting" $source_options install scalr-agent
        return
    fi
    # What it depends on comes from the host's own lists, which may be old or
    # never fetched: fetch them then.
    apt_install || { [ -z "$offline" ] && package_tool apt-get update -q && apt_install; }
}

apt_install() {
    # shellcheck disable=SC2086 # words; none has a space in it
    package_tool env DEBIAN_FRONTEND=noninteractive apt-get install -y -q $source_options \
        -o DPkg::Lock::Timeout=10 -o Dpkg::Options::=--force-confold scalr-agent
}

# Whether any of it is there, if only half.
has_package() {
    case $packages in
        apt)
            status=$(dpkg-query -W -f '${Status}' scalr-agent 2>/dev/null) || return 1
            case $status in
                *' not-installed' | *' config-files') return 1 ;;
            esac
            ;;
        *) rpm -q scalr-agent >/dev/null 2>&1 ;;
    esac
}

# The names of all installed packages, in order.
list_packages() {
    case $packages in
        apt)
            dpkg-query -W -f '${Status} ${Package}:${Architecture}\n' |
                sed -n -e '/ not-installed /d' -e '/ config-files /d' -e 's/.* //p'
            ;;
        *) rpm -qa --qf '%{NAME}.%{ARCH}\n' | sed '/^gpg-pubkey/d' ;;
    esac | LC_ALL=C sort -u
}

# --- other package managers' locks ---

apt_locks='/var/lib/dpkg/lock-frontend /var/lib/dpkg/lock /var/lib/apt/lists/lock /var/cache/apt/archives/lock'
rpm_locks='/var/lib/rpm/.rpm.lock /usr/lib/sysimage/rpm/.rpm.lock'
pid_files='/var/run/yum.pid /var/cache/dnf/metadata_lock.pid /var/cache/dnf/download_lock.pid /var/lib/dnf/rpmdb_lock.pid'
waited=0

# package_tool COMMAND...: runs it when nobody else holds the lock, and again if
# somebody was quicker.
package_tool() {
    if [ -n "$dry_run" ]; then
        run "$@"
        return
    fi
    while :; do
        wait_for_lock
        code=0
        run "$@" 2>"$work/said" || code=$?
        cat "$work/said" >&2
        [ "$code" -ne 0 ] || return 0
        was_locked "$code" && [ "$waited" -lt "$lock_limit" ] || return "$code"
        pause 2
        waited=$((waited + 2))
    done
}

# apt names the file, whatever the language; yum and dnf end with 200.
was_locked() {
    case $packages in
        apt) grep -q -e /var/lib/dpkg/lock -e /var/lib/apt/lists/lock -e /archives/lock "$work/said" ;;
        *) [ "$1" -eq 200 ] ;;
    esac
}

wait_for_lock() {
    told=
    while find_holder; do
        [ "$waited" -lt "$lock_limit" ] ||
            fail 10 "$holder has held $held for $waited s, so nothing can be installed; wait for its end, or end it, and run this again (SCALR_AGENT_LOCK_WAIT=SECONDS waits longer)"
        [ "$told" = "$holder" ] ||
            say "Waiting for $holder, which holds $held, for at most $((lock_limit - waited)) s"
        told=$holder
        pause 2
        waited=$((waited + 2))
    done
}

# Who holds one of the locks, in $holder, and which, in $held.
find_holder() {
    case $packages in
        apt) locks=$apt_locks pids='' ;;
        *) locks=$rpm_locks pids=$pid_files ;;
    esac
    for held in $locks; do
        [ -e "$held" ] || continue
        if pid=$(holder_of "$held"); then
            describe_process "$pid"
            return
        fi
    done
    for held in $pids; do
        pid=$(cat "$held" 2>/dev/null) || continue
        case $pid in '' | *[!0-9]*) continue ;; esac
        if [ -d "/proc/$pid" ]; then
            describe_process "$pid"
            return
        fi
    done
    return 1
}

# holder_of FILE: the process that has locked it. The lines of /proc/locks are
# like `1: POSIX  ADVISORY  WRITE 1234 08:01:5678 0 EOF`; behind the device, which
# some file systems number in another way, stands the inode.
holder_of() {
    inode=$(stat -c %i "$1")
    while read -r _ _ _ _ pid place _; do
        [ "${place##*:}" = "$inode" ] || continue
        for file in /proc/"$pid"/fd/*; do
            [ "$(readlink "$file")" = "$1" ] || continue
            printf '%s\n' "$pid"
            return
        done
    done </proc/locks
    return 1
}

describe_process() {
    name=
    read -r name 2>/dev/null <"/proc/$1/comm" || :
    holder="process $1${name:+ ($name)}"
}

# --- handing over ---

# The token comes from its file, standard input or the environment; a proxy's
# password goes by standard input, since a command line is seen by every user.
hand_over() {
    say "Setting the agent up"
    eval "set -- $passed"
    [ -z "$url" ] || set -- --url "$url" "$@"
    [ -z "$verbose" ] || set -- "$@" --verbose
    [ -z "$no_proxy_given" ] || set -- "$@" --no-proxy "$no_proxy_given"
    [ -z "$http_proxy_given" ] || set -- "$@" --http-proxy -
    [ -z "$https_proxy_given" ] || set -- "$@" --https-proxy -
    if [ -n "$dry_run" ] && ! has_package; then
        say "Would run:$(quoted scalr-agent-setup install "$@")"
        return
    fi
    [ -z "$dry_run" ] || set -- "$@" --dry-run
    code=0
    if [ -n "$http_proxy_given$https_proxy_given" ]; then
        printf '%s\n' "$http_proxy_given" "$https_proxy_given" | sed '/^$/d' |
            scalr-agent-setup install "$@" || code=$?
    elif [ "$token_file" = - ]; then
        scalr-agent-setup install "$@" || code=$?
    else
        scalr-agent-setup install "$@" </dev/null || code=$?
    fi
    [ "$code" -eq 0 ] || fail "$code" "the agent could not be set up; see the lines above"
}

# --- removing ---

record=/var/lib/scalr-agent/setup.json

# What is there may be half of an installation: each part is looked for.
uninstall() {
    note_lists "$apt_source"
    [ ! -e "$yum_key" ] || note_key "$yum_key"
    remover=
    if have scalr-agent-setup; then
        remover=scalr-agent-setup
    elif [ -e "$record" ] && [ -n "$url$offline" ]; then
        say "The package is gone, but not all that was set up; $record knows the rest"
        # In a subshell: what fails in there is no reason to stop here.
        if (fetch_setup); then remover=$work/scalr-agent-setup; fi
    fi
    left=0
    if [ -n "$remover" ]; then
        # shellcheck disable=SC2086 # words
        "$remover" uninstall $uninstalling ${dry_run:+--dry-run} </dev/null || left=$?
        case $left in
            0 | 1) ;;
            # Active runs, for example: then nothing has been done.
            *) fail "$left" "nothing more has been removed; see the lines above" ;;
        esac
    elif [ -e "$record" ]; then
        left=1
        warn "without the setup program, what $record names stays; give --url https://SERVER to fetch it from there"
    fi
    case $uninstalling in
        *--keep-package*) ;;
        *)
            ! has_package || remove_package || left=6
            remove_repository
            ;;
    esac
    [ "$left" -eq 0 ] || fail "$left" "not everything could be removed; see the lines above, and run this again"
    [ -n "$dry_run" ] || say "The agent is removed."
}

# Only reached if the setup program is missing, or could not do it.
remove_package() {
    say "Removing the package scalr-agent"
    case $packages-$uninstalling in
        apt-*--purge*) package_tool env DEBIAN_FRONTEND=noninteractive apt-get purge -y -q scalr-agent ;;
        apt-*) package_tool env DEBIAN_FRONTEND=noninteractive apt-get remove -y -q scalr-agent ;;
        *) package_tool "$packages" -y -q remove scalr-agent ;;
    esac
}

remove_repository() {
    forget_lists
    forget_key
    for file in "$apt_source" "$apt_key" "$yum_repository" "$yum_key"; do
        [ ! -e "$file" ] || run rm -f "$file"
    done
}

# note_lists SOURCE: what apt fetches from there has the names of its URLs,
# without the scheme, with _ for each /.
note_lists() {
    [ -e "$1" ] || return 0
    lists=$(sed -n 's,^URIs: *[a-z]*://,,p' "$1" | tr / _)
}

has_lists() {
    for file in "$apt_lists/$lists"_*; do [ ! -e "$file" ] || return 0; done
    return 1
}

forget_lists() {
    [ -n "$lists" ] && has_lists || return 0
    run rm -f "$apt_lists/$lists"_*
}

# note_key FILE: rpm keeps each imported key as a package that is named by the
# last 8 digits of its fingerprint.
note_key() {
    ! read_key "$1" || key_package=gpg-pubkey-$(printf '%s' "$fingerprint" | cut -c 33-40)
}

forget_key() {
    [ -n "$key_package" ] && rpm -q "$key_package" >/dev/null 2>&1 || return 0
    run rpm -e --allmatches "$key_package"
}

# --- running, undoing, telling ---

# run COMMAND...: one that changes something. It must not read our standard
# input, which may be this script.
run() {
    if [ -n "$dry_run" ]; then
        say "Would run:$(quoted "$@")"
    else
        "$@" </dev/null
    fi
}

placed='' made='' installed='' had_data='' work=''
lists='' lists_were_known=yes key_package='' key_was_known=yes

finish() {
    code=$?
    trap - EXIT
    # Nothing may stop the undoing half way.
    trap '' HUP INT TERM
    if [ -z "$finished" ]; then
        [ "$code" -ne 0 ] || code=1
        undo || warn "not everything could be undone; see the lines above"
    fi
    [ -z "$work" ] || rm -rf "$work"
    exit "$code"
}

undo() {
    undone=0
    # The setup program undoes its part by itself, unless it was killed.
    if [ -e "$unfinished" ]; then
        "$setup" recover </dev/null || undone=1
    fi
    if [ -n "$installed" ]; then
        remove_new_packages || undone=1
    fi
    for file in $placed; do
        if [ -e "$work/$(basename "$file").before" ]; then
            mv "$work/$(basename "$file").before" "$file" || undone=1
        else
            rm -f "$file" || undone=1
        fi
        rm -f "$file.new"
    done
    for folder in $made; do rmdir "$folder" || undone=1; done
    [ -n "$key_was_known" ] || forget_key || undone=1
    [ -n "$lists_were_known" ] || forget_lists || undone=1
    return "$undone"
}

# The package, and what came with it.
remove_new_packages() {
    list_packages >"$work/packages.after"
    # shellcheck disable=SC2046 # names
    set -- $(LC_ALL=C comm -13 "$work/packages.before" "$work/packages.after")
    [ $# -gt 0 ] || return 0
    say "Removing again what was installed: $*"
    case $packages-$had_data in
        apt-) run env DEBIAN_FRONTEND=noninteractive apt-get purge -y -q "$@" ;;
        apt-yes) run env DEBIAN_FRONTEND=noninteractive apt-get remove -y -q "$@" ;;
        *) run "$packages" -y -q --setopt=clean_requirements_on_remove=0 remove "$@" ;;
    esac
}

say() {
    printf '==> %s\n' "$*"
}

warn() {
    printf 'install.sh: warning: %s\n' "$*" >&2
}

# fail CODE SENTENCE
fail() {
    printf 'install.sh: %s\n' "$2" >&2
    exit "$1"
}

main "$@"; }

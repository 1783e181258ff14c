#!/bin/sh
# Installs a Terraform run agent on this host, from its server's package
# repository, and registers it with a pool.
#
#   curl -fsSL https://SERVER/install.sh | sudo sh -s -- --token-file FILE
#
# It fetches the small setup program, verifies it, and hands over to it:
# `scalr-agent-setup install` checks this host, adds the repository, installs the
# package, sets the agent up, and undoes all of it when a step fails.
#
# Everything is in functions, those are in one pair of braces, and the last line
# calls them and closes it: a script that was cut off on its way runs nothing.
# It needs a POSIX sh, the coreutils, sed and tr, and curl (7.29 or newer), which the
# setup program needs, too; gpgv for --offline and --key-fingerprint.
{

# The server that serves this script puts its address here, the SHA-256 of its key,
# and those of its setup programs, each as ARCHITECTURE:SHA256.
SERVER_URL=""
KEY_SHA256=""
SETUP_SHA256=""
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
                      scalr-agent.asc. gpgv verifies the setup program with
                      it; 40 digits also need gpg. A script that a server has
                      served compares SHA-256 by itself and needs neither
  --lock-timeout SECONDS
                      how long to wait for another package manager; 300

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
  --ca-cert FILE      authorities (PEM) that this script, apt or yum and the
                      agent trust, for a server with an authority of its own;
                      the system's are left alone. A copy is kept in
                      /etc/scalr-agent/ca.pem
  --http-proxy URL, --https-proxy URL, --no-proxy LIST
                      the proxy of this script, of the agent, its engine and
                      runs; - reads a URL from standard input
  --no-start          leave the services stopped

the checks that come first
  --fix               fix what they find, where that is possible
  --ignore NAMES      go on although these fail (separated by commas), or all
  --verbose           show each command that the setup program runs, the package
                      manager's output and the checks that passed
  --format json       print one document for programs on standard output

with --uninstall
  --purge             delete settings, data and accounts, too
  --undo-fixes        undo what --fix changed on this host, too
  --force             although runs are active
  --keep-package      leave the package and its repository

environment
  SCALR_AGENT_TOKEN   the pool's token, instead of --token-file
  HTTP_PROXY, HTTPS_PROXY, NO_PROXY (or in small letters)
                      how this script, apt and yum reach the server
  TMPDIR              where temporary files go, if programs may run there;
                      else /tmp, /var/tmp, /var/lib or /root

exit codes
   0  done                          7  not permitted: not root, or the server
   1  failed                           refuses the token
   2  wrong usage or settings       8  a download failed
   3  a check failed                9  a key or checksum is not the expected one
   5  platform not supported       10  another package manager was at work for
   6  the package, or what it          too long
      needs, was not installed     11  no temporary folder from which programs
                                       may run
  129, 130, 131, 143  ended by SIGHUP, SIGINT, SIGQUIT, SIGTERM
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
    need_linux
    [ -n "$offline" ] || [ "$action" = uninstall ] || need_curl
    use_proxy
    work='' setup=''
    trap finish EXIT
    trap 'exit 129' HUP
    trap 'exit 130' INT
    trap 'exit 131' QUIT
    trap 'exit 143' TERM
    # Output that nobody reads any more, for example because the ssh session has ended,
    # is an error of its line: then `finish` runs, as it does in no shell after the signal.
    trap '' PIPE
    make_work_folder
    case $action in
        install) install ;;
        uninstall) uninstall ;;
    esac
}

install() {
    fetch_setup
    if [ -n "$offline" ]; then
        set -- --repository "$offline/repository"
    else
        set -- --repository "$url"
    fi
    [ -z "$url" ] || set -- --url "$url" "$@"
    fingerprint=$(expected_key)
    [ -z "$fingerprint" ] || set -- "$@" --key-fingerprint "$fingerprint"
    eval "hand_over install --upgrade \"\$@\" $passed"
}

# What is installed removes itself; if only that is gone, we fetch it again.
uninstall() {
    if have scalr-agent-setup; then
        setup=scalr-agent-setup
    else
        fetch_setup
    fi
    eval "hand_over uninstall $passed"
}

# --- options ---

# Ours are taken; all others go into $passed, quoted, for the setup program.
read_options() {
    action=install dry_run='' url=$SERVER_URL offline='' passed='' is_json=''
    key_fingerprint='' ca_cert='' token_file='' http_proxy_given='' https_proxy_given='' no_proxy_given=''
    while [ $# -gt 0 ]; do
        option=$1
        shift
        case $option in
            --help | -h) action=help && return ;;
            --version) action=version && return ;;
            --uninstall) action=uninstall ;;
            --dry-run) dry_run=yes && pass "$option" ;;
            --token | --token=*)
                fail 2 "a token on a command line is seen by every user of this host; give --token-file FILE, or SCALR_AGENT_TOKEN in the environment"
                ;;
            --*=*)
                if is_ours "${option%%=*}"; then
                    take "${option%%=*}" "${option#*=}"
                else
                    pass "$option"
                fi
                ;;
            *)
                if is_ours "$option"; then
                    [ $# -gt 0 ] || fail 2 "$option needs a value; see --help"
                    take "$option" "$1"
                    shift
                else
                    pass "$option"
                fi
                ;;
        esac
    done
    case $passed in
        *"'--format' 'json'"* | *"'--format=json'"*) is_json=yes ;;
    esac
}

# The options with a value that this script has to know.
is_ours() {
    case $1 in
        --url | --offline | --key-fingerprint | --ca-cert) ;;
        --token-file | --http-proxy | --https-proxy | --no-proxy) ;;
        *) return 1 ;;
    esac
}

take() {
    [ -n "$2" ] || fail 2 "the value of $1 is empty; see --help"
    case $1 in
        --url) url=${2%/} ;;
        --offline) offline=$2 ;;
        --key-fingerprint) key_fingerprint=$2 ;;
        --ca-cert) ca_cert=$2 && pass "$1" "$2" ;;
        --token-file) token_file=$2 && pass "$1" "$2" ;;
        --http-proxy) http_proxy_given=$2 && pass "$1" - ;;
        --https-proxy) https_proxy_given=$2 && pass "$1" - ;;
        --no-proxy) no_proxy_given=$2 && pass "$1" "$2" ;;
    esac
}

pass() {
    passed="$passed$(quoted "$@")"
}

# quoted WORD...: each with a space before it, and as `eval` reads it back.
quoted() {
    for word; do
        printf " '"
        printf '%s' "$word" | sed "s/'/'\\\\''/g"
        printf "'"
    done
}

judge_options() {
    case $url in
        *[?#]* | *[[:space:]]*) fail 2 "--url should be https://SERVER, not '$url'" ;;
        https://?*) ;;
        http://?*)
            is_loopback "$url" ||
                fail 2 "--url: $url is not encrypted, so anyone on the network could change what is installed
  Give the server's https:// address. Plain http is only for localhost, 127.0.0.1 and [::1]."
            ;;
        '')
            [ -n "$offline" ] || [ "$action" = uninstall ] ||
                fail 2 "which server? give --url https://SERVER"
            ;;
        *) fail 2 "--url should be https://SERVER, not '$url'" ;;
    esac
    [ -z "$ca_cert" ] || [ -r "$ca_cert" ] || fail 2 "--ca-cert: cannot read $ca_cert"
    [ -z "$offline" ] || judge_bundle
    judge_standard_input
}

is_loopback() {
    case ${1#http://} in
        # What looks like the host may be a user's name.
        *@*) return 1 ;;
        localhost | localhost[:/]* | 127.0.0.1 | 127.0.0.1[:/]* | "[::1]" | "[::1]"[:/]*) ;;
        *) return 1 ;;
    esac
}

judge_bundle() {
    [ -d "$offline" ] || fail 2 "--offline: there is no folder $offline"
    offline=$(CDPATH='' cd -- "$offline" && pwd -P)
    [ -e "$offline/repository/scalr-agent.asc" ] ||
        fail 2 "$offline is no unpacked offline bundle: it has no repository/scalr-agent.asc"
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

# The script knows the key of the server that it comes from, not another's.
expected_key() {
    if [ -n "$key_fingerprint" ]; then
        printf '%s' "$key_fingerprint"
    elif [ -n "$offline" ] || [ "$url" = "$SERVER_URL" ]; then
        printf '%s' "$KEY_SHA256"
    fi
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

need_linux() {
    system=$(uname -s)
    [ "$system" = Linux ] || fail 5 "agents run on Linux; this is $system"
    machine=$(uname -m)
    case $machine in
        x86_64 | aarch64) ;;
        *) fail 5 "there are no packages for $machine, only for x86_64 and aarch64" ;;
    esac
    # A 32-bit system may run on a 64-bit kernel.
    if have dpkg; then
        userland=$(dpkg --print-architecture)
    elif have rpm; then
        userland=$(rpm --eval '%{_arch}')
    else
        name=$(sed -n 's/^PRETTY_NAME=//p' /etc/os-release 2>/dev/null | tr -d '"')
        fail 5 "${name:-this system} has neither dpkg nor rpm, and there are only deb and rpm packages; run the agent as a container instead"
    fi
    case $machine-$userland in
        x86_64-amd64 | x86_64-x86_64 | aarch64-arm64 | aarch64-aarch64) ;;
        *) fail 5 "this system's packages are for $userland (its kernel is $machine); the agent's are for x86_64 and aarch64" ;;
    esac
}

need_curl() {
    have curl ||
        fail 6 "there is no curl here, which this script and the setup program download with
  Install the package curl, and run this again."
}

have() {
    command -v "$1" >/dev/null 2>&1
}

# Our own downloads, and those of apt and yum, go through the proxy that the
# agent will have. The rules are those of src/config/proxy; a test compares them.
# shellcheck disable=SC2034 # the loop exports them by name
use_proxy() {
    if [ -n "$http_proxy_given$https_proxy_given" ]; then
        read_proxy
        http_proxy=$(with_port "$http_proxy_given") HTTP_PROXY=$http_proxy
        https_proxy=$(with_port "${https_proxy_given:-$http_proxy_given}") HTTPS_PROXY=$https_proxy
    fi
    [ -z "$no_proxy_given" ] || no_proxy=$no_proxy_given NO_PROXY=$no_proxy_given
    # Programs differ in which case they read; apt reads small letters.
    for name in http:HTTP https:HTTPS all:ALL no:NO; do
        lower=${name%:*}_proxy upper=${name#*:}_PROXY
        eval "value=\${$lower:-\${$upper:-}}"
        [ -n "$value" ] || continue
        eval "$lower=\$value $upper=\${$upper:-\$value}"
        export "${lower?}" "${upper?}"
    done
}

# with_port URL: with its scheme's port where it has none; curl would take 1080.
with_port() {
    proxy=${1%/}
    rest=${proxy##*@}
    rest=${rest#*://}
    # What follows the brackets of an IPv6 address.
    case ${rest##*]} in
        *:*) port='' ;;
        *) case $proxy in
            '') port='' ;;
            https://*) port=:443 ;;
            *) port=:80 ;;
        esac ;;
    esac
    printf '%s%s' "$proxy" "$port"
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

# --- the setup program ---

fetch_setup() {
    setup=$work/scalr-agent-setup
    say "Fetching the setup program from ${offline:-$url}"
    fetch "scalr-agent-setup-$machine" "$setup"
    verify_setup
    chmod 0700 "$setup"
    code=0
    "$setup" --version >/dev/null 2>"$work/said" </dev/null || code=$?
    [ "$code" -eq 0 ] ||
        fail 5 "the setup program does not run here (exit code $code): $(tail -n 1 "$work/said")"
}

# It runs as root, and whoever can write to a mirror, a cache or a bundle must not
# choose it: what this script or the user knows decides, not what lies beside it.
verify_setup() {
    found=$(sha256 "$setup")
    wanted=$(pinned_setup)
    if [ -n "$wanted" ]; then
        [ "$wanted" = "$found" ] ||
            fail 9 "the setup program is not the one that this script was served with: its SHA-256 is $found, not $wanted
  If the server has published other packages since, fetch the script again: $url/install.sh
  If it has not, a cache or a proxy on the way has replaced the program."
    elif [ -n "$offline$(expected_key)" ]; then
        verify_signature
    else
        fetch "scalr-agent-setup-$machine.sha256" "$setup.sha256"
        wanted=$(cut -d' ' -f1 <"$setup.sha256" | tr A-F a-f)
        is_sha256 "$wanted" ||
            fail 8 "there is no checksum in $url/packages/scalr-agent-setup-$machine.sha256
  Something else than the server has answered, such as the login page of a network or a proxy."
        [ "$wanted" = "$found" ] ||
            fail 9 "the setup program was damaged on its way: its SHA-256 is $found, not $wanted"
    fi
}

is_sha256() {
    case $1 in
        *[!0-9a-f]*) return 1 ;;
        *) [ "${#1}" -eq 64 ] ;;
    esac
}

# The SHA-256 that the server wrote into this script. A key that the user names
# counts more than the server's word.
pinned_setup() {
    [ -z "$offline$key_fingerprint" ] && [ "$url" = "$SERVER_URL" ] || return 0
    for pin in $SETUP_SHA256; do
        [ "${pin%%:*}" != "$machine" ] || printf '%s' "${pin#*:}" | tr A-F a-f
    done
}

# With the repository's key, which has to be the expected one where one is known.
verify_signature() {
    have gpgv ||
        fail 6 "cannot verify the setup program's signature: this host has no gpgv
  Install the package gpgv (Debian, Ubuntu) or gnupg2 (others), and run this again."
    fetch scalr-agent.asc "$work/key.asc"
    fetch "scalr-agent-setup-$machine.asc" "$work/setup.asc"
    key=$(expected_key | tr -d ' :' | tr a-f A-F)
    if [ "${#key}" -eq 64 ]; then
        found=$(sha256 "$work/key.asc" | tr a-f A-F)
        [ "$key" = "$found" ] || unexpected_key "the SHA-256 of its file is $found" "$key"
    fi
    dearmor <"$work/key.asc" >"$work/key.gpg"
    gpgv --homedir "$work" --keyring "$work/key.gpg" --status-fd 1 \
        "$work/setup.asc" "$setup" >"$work/status" 2>"$work/said" ||
        fail 9 "the setup program is not signed with the repository's key: $(tail -n 1 "$work/said")
  It was changed after it was published. Get it again from whoever runs the server."
    if [ "${#key}" -eq 40 ]; then
        # The last word is the fingerprint of the primary key (GnuPG's doc/DETAILS).
        signers=$(sed -n 's/^\[GNUPG:\] VALIDSIG .* //p' "$work/status" | tr '\n' ' ')
        case " $signers" in
            *" $key "*) ;;
            *) unexpected_key "the setup program is signed with ${signers% }" "$key" ;;
        esac
    fi
}

unexpected_key() {
    fail 9 "the repository's key is not the expected one: $1, not $2
  If the server has a new key, take its fingerprint from whoever runs the server."
}

# dearmor: an OpenPGP file in ASCII as gpgv reads a keyring; without gpg, which
# not every host has. Each key may be a block of its own.
dearmor() {
    head=yes data=''
    while IFS= read -r line; do
        case $line in
            -----BEGIN*) head=yes data='' ;;
            -----END*) printf '%s' "$data" | base64 -d ;;
            '') head='' ;;
            # The block's checksum.
            =*) ;;
            *) [ -n "$head" ] || data=$data$line ;;
        esac
    done
}

sha256() {
    sha256sum <"$1" | cut -d' ' -f1
}

# fetch NAME FILE: from the server's packages or from the bundle.
fetch() {
    if [ -n "$offline" ]; then
        [ -f "$offline/repository/$1" ] ||
            fail 2 "$offline/repository has no $1: is this bundle for another processor, or of an older version?"
        cp "$offline/repository/$1" "$2"
        return
    fi
    [ -n "$url" ] || fail 2 "which server has the setup program? give --url https://SERVER"
    need_curl
    download "$url/packages/$1" "$2"
}

# download URL FILE: with three tries, where another try can help.
download() {
    attempt=1
    until try_download "$1" "$2"; do
        # Without the general advice that curl puts below its error.
        reason=$(sed -n 's/^curl: //p' "$work/said")
        reason=${reason:-curl exited with code $code}
        if [ -n "$is_final" ] || [ "$attempt" -ge 3 ]; then
            fail 8 "cannot download $1: $reason$hint"
        fi
        say "Downloading $1 failed ($reason); trying again"
        pause "$((attempt * 2))"
        attempt=$((attempt + 1))
    done
}

# find_proxy: what goes to $url goes through $proxy, if that is not empty.
find_proxy() {
    case $url in
        https://*) proxy=${https_proxy:-${all_proxy:-}} ;;
        *) proxy=${http_proxy:-${all_proxy:-}} ;;
    esac
}

# name_proxy: the same as HOST:PORT, without a password.
name_proxy() {
    find_proxy
    proxy=${proxy##*@}
    proxy=${proxy#*://}
    proxy=${proxy%%/*}
}

# hint_at_proxy SAID: the proxy as the cause, if what curl said names it, or for its login.
hint_at_proxy() {
    name_proxy
    host=${proxy%:*}
    port=${proxy##*:}
    case $1 in
        login)
            is_final=yes hint="
  The proxy $proxy requires a user and a password, or refuses those that it gets. Give
  --http-proxy http://USER:PASSWORD@HOST:PORT, with @ written as %40 and # as %23."
            ;;
        *resolve\ proxy*) hint="; check the proxy's name in --http-proxy or HTTPS_PROXY" ;;
        *connect\ to\ "$host"\ port\ "$port"* | *connect\ to\ "$host:$port"*)
            hint="; the proxy $proxy does not answer: check --http-proxy or HTTPS_PROXY"
            ;;
    esac
}

# The options of curl for an https proxy: the system's authorities and those of --ca-cert
# may have signed its certificate. Curls before 7.52 know neither.
trust_proxy() {
    proxy_ca='' report='%{http_code}-%{http_connect}-%{ssl_verify_result}'
    find_proxy
    case $proxy in
        https://*) ;;
        *) return 0 ;;
    esac
    report="$report-%{proxy_ssl_verify_result}"
    [ -n "$ca_cert" ] || return 0
    proxy_ca=$work/proxy-ca.pem
    {
        for file in /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt \
            /etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem; do
            [ ! -f "$file" ] || { cat "$file" && break; }
        done
        cat "$ca_cert"
    } >"$proxy_ca"
}

# hint_at_proxys_certificate: an https proxy's certificate as the cause.
hint_at_proxys_certificate() {
    name_proxy
    is_final=yes
    hint="
  The certificate of the proxy $proxy is not trusted${ca_cert:+ with $ca_cert}. Fetch its authority from
  whoever runs the proxy, and give a file with it, and with the server's if that has one of
  its own, with --ca-cert FILE."
}

try_download() {
    code=0 is_final='' hint='' status=''
    trust_proxy
    # Not --retry: curl 7.29 does not for refused connections.
    status=$(curl -fsSL ${ca_cert:+--cacert "$ca_cert"} ${proxy_ca:+--proxy-cacert "$proxy_ca"} \
        --proto-redir =https --connect-timeout 20 --speed-limit 1 --speed-time 60 \
        -w "$report" -o "$2" "$1" </dev/null 2>"$work/said") || code=$?
    [ "$code" -ne 0 ] || return 0
    said=$(cat "$work/said")
    case $code-$status-$said in
        # The server's status, 000 where it has not answered, the proxy's, and what is wrong
        # with the server's certificate and with that of an https proxy, 0 if nothing is.
        2-*proxy-cacert* | *nsupported\ proxy*)
            is_final=yes hint="
  This host's curl is too old for a proxy with https://, which takes 7.52. Give the proxy's
  http:// address with --http-proxy."
            ;;
        51-*expired* | 60-*expired* | 35-*expired* | 60-*not\ yet\ valid* | 35-*not\ yet\ valid*)
            is_final=yes hint="
  Is the clock of this host right? It says $(date -u '+%Y-%m-%d %H:%M:%S') UTC. If that is not the time, set
  it with 'timedatectl set-ntp true', or without a time server with date --set."
            ;;
        51-000-000-0-[1-9]* | 60-000-000-0-[1-9]*) hint_at_proxys_certificate ;;
        35-000-000-0-* | 28-000-000-0-*SSL\ connection\ timeout*)
            is_final=yes hint="
  The TLS handshake with the proxy failed. If it takes no TLS, give its address with http://."
            ;;
        # Some proxies refuse a wrong password with 401.
        56-000-40[17]-* | 22-000-40[17]-* | 22-407-* | 56-*code\ 407*) hint_at_proxy login ;;
        5-*) hint_at_proxy "$said" ;;
        56-*CONNECT* | 22-000-*) hint="
  The proxy does not connect to the server: check --url, and ask the proxy's operator." ;;
        6-* | 7-* | 28-*)
            hint="; is a proxy needed? It is taken from --http-proxy or HTTPS_PROXY"
            hint_at_proxy "$said"
            ;;
        22-4*)
            is_final=yes hint="; has the server been started with --packages?"
            ;;
        # Through an https proxy, curl 7.88 calls a certificate that is not trusted 35.
        51-* | 60-* | 35-000-[0-9]*-[1-9]*)
            is_final=yes
            hint="
  The server's certificate is not trusted${ca_cert:+ with $ca_cert}. If the server has an authority of its own,
  fetch it, compare its SHA-256 with the one that the server prints at its start, and
  give the file with --ca-cert ca.pem:
    curl -fsS --insecure -o ca.pem $url/ca.pem && sha256sum ca.pem"
            ;;
        77-*)
            is_final=yes
            hint="
  Is ${ca_cert:-the file of this system} a file of certificates in PEM form?"
            ;;
    esac
    return 1
}

pause() {
    sleep "$1"
}

# hand_over WORD...: runs the setup program with these. A proxy goes by standard
# input: a command line is seen by every user of this host.
hand_over() {
    if [ -n "$http_proxy_given$https_proxy_given" ]; then
        printf '%s\n' "$http_proxy_given" "$https_proxy_given" | sed '/^$/d' | "$setup" "$@"
    elif [ "$token_file" = - ]; then
        "$setup" "$@"
    else
        # Standard input may be this script.
        "$setup" "$@" </dev/null
    fi
}

# --- ending, telling ---

unfinished=/var/lib/scalr-agent-setup.unfinished

finish() {
    code=$?
    trap - EXIT
    # Nothing may stop the undoing half way, nor a line that can't be written.
    trap '' HUP INT QUIT TERM
    set +e
    # The setup program undoes what it did by itself, unless it was killed.
    if [ "$code" -gt 128 ] && [ -e "$unfinished" ] && [ -n "$setup" ]; then
        "$setup" recover </dev/null || warn "not everything could be undone; see the lines above"
    fi
    [ -z "$work" ] || rm -rf "$work"
    exit "$code"
}

# An output that is closed or full ends no installation, nor does it change how one ends.

# Not on standard output where the setup program prints a document there.
say() {
    if [ -n "$is_json" ]; then
        printf '==> %s\n' "$*" >&2 || :
    else
        printf '==> %s\n' "$*" 2>/dev/null || :
    fi
}

warn() {
    printf 'install.sh: warning: %s\n' "$*" >&2 || :
}

# fail CODE SENTENCE
fail() {
    printf 'install.sh: %s\n' "$2" >&2 || :
    exit "$1"
}

main "$@"; }

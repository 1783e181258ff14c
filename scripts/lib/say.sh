# shellcheck shell=bash disable=SC2154,SC2034 # its variables cross files
# What every script here shares: messages on stderr, the cache folder, becoming
# root for one command. Sourced, never run.

# Downloads, prepared roots and built tools that are worth keeping live here.
cache=${XDG_CACHE_HOME:-${HOME:?}/.cache}/scalr-agent

# Colours only for a person: on a terminal, and unless NO_COLOR asks for none.
if [[ -t 2 && -z ${NO_COLOR:-} ]]; then
    bold=$'\e[1m' dim=$'\e[2m' red=$'\e[31m' green=$'\e[32m' plain=$'\e[0m'
else
    bold='' dim='' red='' green='' plain=''
fi

# step TEXT: what begins now, with the time since the script began.
step() { printf '%s[%3d s] %s%s\n' "$bold" "$SECONDS" "$*" "$plain" >&2; }

# say TEXT: a detail of the step.
say() { printf '%s        %s%s\n' "$dim" "$*" "$plain" >&2; }

# good TEXT: something that was to be shown, and was.
good() { printf '%s        %s%s\n' "$green" "$*" "$plain" >&2; }

# complain TEXT: an error that does not end the script.
complain() { printf '%s%s: %s%s\n' "$red" "${0##*/}" "$*" "$plain" >&2; }

# die TEXT: the end, with exit code 1.
die() {
    complain "$@"
    exit 1
}

# as_root COMMAND...: run one command as root, with the caller's cache folder.
as_root() {
    if [[ $EUID -eq 0 ]]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo env "XDG_CACHE_HOME=${cache%/*}" "$@"
    else
        die "\"$1\" needs root, and there is no sudo: run ${0##*/} as root"
    fi
}

# quietly TEXT COMMAND...: run a noisy command; show its output only when it
# fails, so that the steps stay readable and nothing is lost. It runs in the
# background, so that a signal to the script is heeded at once.
quietly() {
    local what=$1 log begun=$SECONDS command ticker code=0
    shift
    log=$(mktemp)
    say "$what"
    "$@" >"$log" 2>&1 &
    command=$!
    # Progress every 20 seconds. The pipe that nobody writes to is a sleep
    # that leaves no process behind.
    (
        exec {never}<> <(:)
        while kill -0 "$command" 2>/dev/null; do
            read -rt 20 -u "$never" || say "… $((SECONDS - begun)) s"
        done
    ) &
    ticker=$!
    wait "$command" || code=$?
    { kill "$ticker" && wait "$ticker"; } 2>/dev/null || true
    [[ $code -eq 0 ]] || {
        tail -n 60 "$log" >&2
        complain "failed with exit code $code: $what"
    }
    rm -f "$log"
    return "$code"
}

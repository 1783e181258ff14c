#!/bin/sh
# The first process of a task's container: runs the task's steps one after the
# other. Needs nothing but /bin/sh.
#
# usage: entrypoint.sh plan|apply apply|destroy DIRECTORY NAME
#
#   DIRECTORY                     where Terraform is started
#   NAME                          the container's, for the very last line: whoever has
#                                 heard that has heard all
#   /scalr/run/environment        the run's variables, to be sourced
#   /scalr/run/hooks/ORIGIN/HOOK  what to run before and after the steps; ORIGIN
#                                 is "agent" or "workspace"
#   /scalr/run/providers.tfrc, /scalr/run/mirror.tfrc
#                                 what the agent has of providers, for Terraform's CLI
#   /scalr/run/plan               the saved plan: written by plan, read by apply
#   /scalr/run/memory             why the run is interrupted, if that is for memory
#   /scalr/run/status             written here: a line `STEP EXIT-CODE` for each
#                                 step, and `ORIGIN:HOOK WHY` for a failed hook
#   /scalr/run/hook               written here: `ORIGIN HOOK` while a hook runs
#   /scalr/run/hook.env           where a hook writes NAME=VALUE for later steps
#
# Being process 1 it gets the engine's signals and hands them on to the step
# that runs; without that a cancelled apply would go on to its end. Standard
# error goes where standard output goes, so that one stream keeps their order.
#
# SIGINT is handed on once: an agent that was restarted says it again, and
# Terraform would take a second one as an order to drop everything. SIGUSR1 says
# that the hook that runs is overdue.
#
# The names here begin with an underscore: the run's variables may have any
# other name, and are in the same shell.

exec 2>&1

_kind=$1
_operation=$2
_directory=$3
_container=$4
_child=
_hook=
_overdue=
_stopped=
_signaled=
_told=

main() {
    cd "$_directory" || exit 1
    set -a
    # shellcheck source=/dev/null
    . /scalr/run/environment
    set +a
    hook pre-init || exit $?
    use_providers
    step init terraform init -input=false || exit $?
    hook "pre-$_kind" || exit $?
    case $_kind in
        plan)
            set -- -input=false -detailed-exitcode -out=/scalr/run/plan
            [ "$_operation" = destroy ] && set -- "$@" -destroy
            step plan terraform plan "$@"
            ;;
        apply)
            step apply terraform apply -input=false /scalr/run/plan
            ;;
    esac
    _result=$?
    # Code 2 of a plan means that it succeeded and changes something.
    case $_kind$_result in
        plan0 | plan2 | apply0) hook "post-$_kind" || exit $? ;;
    esac
    exit "$_result"
}

# Lets Terraform look for providers where the agent has put them. A run's own CLI
# configuration takes precedence. So do plugins that the image or the configuration
# brings, unless there is a mirror: Terraform would no longer find them.
use_providers() {
    [ -n "${TF_CLI_CONFIG_FILE:-}${TERRAFORM_CONFIG:-}" ] && return
    for _file in "$HOME"/.terraformrc "$HOME"/.tofurc "$HOME"/.terraform.d/*.tfrc*; do
        [ -e "$_file" ] && return
    done
    if [ -f /scalr/run/mirror.tfrc ]; then
        export TF_CLI_CONFIG_FILE=/scalr/run/mirror.tfrc
    elif [ -f /scalr/run/providers.tfrc ] && [ -z "${XDG_DATA_DIRS:-}" ]; then
        for _file in terraform.d "$HOME"/.terraform.d "${XDG_DATA_HOME:-$HOME/.local/share}"/* \
            /usr/local/share/terraform /usr/share/terraform \
            /usr/local/share/opentofu /usr/share/opentofu; do
            [ -d "$_file/plugins" ] && return
        done
        export TF_CLI_CONFIG_FILE=/scalr/run/providers.tfrc
    fi
}

# Runs a step and writes down how it ended.
step() {
    _name=$1
    shift
    [ -n "$_stopped" ] && return 130
    run "$@"
    echo "$_name $_code" >>/scalr/run/status
    return "$_code"
}

# Runs the agent's hook of this name, then the workspace's. One that fails, or
# that can't be run any more, is written down and fails the task.
hook() {
    for _origin in agent workspace; do
        _file=/scalr/run/hooks/$_origin/$1
        [ -f "$_file" ] || continue
        if [ -n "$_stopped" ]; then
            _why=130
        else
            echo "Running the $_origin's $1 hook"
            : >/scalr/run/hook.env
            echo "$_origin $1" >/scalr/run/hook
            _hook=1
            SCALR_ENV_FILE=/scalr/run/hook.env
            export SCALR_ENV_FILE
            run "$_file"
            _hook=
            : >/scalr/run/hook
            _why=$_code
            if [ -n "$_overdue" ]; then
                _why=overdue
            elif [ "$_code" -eq 0 ]; then
                take_environment && continue
                _why=environment
            fi
        fi
        echo "$_origin:$1 $_why" >>/scalr/run/status
        return 1
    done
}

# Takes what a hook left for the later steps: lines of NAME=VALUE, the value as
# it stands; empty lines and lines that begin with # don't count.
take_environment() {
    while IFS= read -r _line || [ -n "$_line" ]; do
        case $_line in
            '' | '#'*) continue ;;
        esac
        case ${_line%%=*} in
            "$_line" | '' | [0-9]* | *[!A-Za-z0-9_]*) return 1 ;;
        esac
        export "${_line?}"
    done </scalr/run/hook.env
}

# Runs a command in the background, so that a signal interrupts our waiting
# and not only comes after it; its exit code is in _code.
run() {
    "$@" &
    _child=$!
    # What was said before there was somebody to hand it on to.
    [ -n "$_stopped" ] && forward INT
    [ -n "$_overdue" ] && kill -s TERM "$_child" 2>/dev/null
    _code=
    _signaled=1
    while [ -n "$_signaled" ]; do
        _signaled=
        wait "$_child"
        _last=$?
        # A signal ends the waiting, not the step: wait again. 127 then means
        # that the first waiting had got the step's own code.
        if [ -z "$_code" ] || [ "$_last" -ne 127 ]; then
            _code=$_last
        fi
    done
    _child=
}

# shellcheck disable=SC2317 # it is called by a trap
interrupt() {
    _signaled=1
    [ -n "$_stopped" ] || forward INT
}

forward() {
    _stopped=1
    _signaled=1
    _signal=$1
    if [ -z "$_told" ] && [ -r /scalr/run/memory ]; then
        _told=1
        IFS= read -r _line </scalr/run/memory && echo && echo "$_line"
    fi
    # A script in the background ignores SIGINT, whether it wants to or not.
    [ -n "$_hook" ] && _signal=TERM
    [ -n "$_child" ] && kill -s "$_signal" "$_child" 2>/dev/null
}

# shellcheck disable=SC2317 # it is called by a trap
end_overdue_hook() {
    [ -n "$_hook" ] || return
    _signaled=1
    _signal=TERM
    [ -n "$_overdue" ] && _signal=KILL
    _overdue=1
    [ -n "$_child" ] && kill -s "$_signal" "$_child" 2>/dev/null
}

trap 'echo "end of output of $_container"' EXIT
trap interrupt INT
trap 'forward TERM' TERM
trap end_overdue_hook USR1
main

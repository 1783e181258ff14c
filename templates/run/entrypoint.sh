#!/bin/sh
# The first process of a task's container: runs the task's steps one after the
# other. Needs nothing but /bin/sh.
#
# usage: entrypoint.sh plan|apply apply|destroy DIRECTORY NAME PROGRAM VERSION \
#            [FLAG...]
#
#   DIRECTORY                     where Terraform is started
#   NAME                          the container's, for the very last line: whoever has
#                                 heard that has heard all
#   PROGRAM                       terraform or tofu; empty: what the image has, terraform if both
#   VERSION                       the version that Terraform must have; empty: any
#   FLAG...                       what else `terraform plan` is given
#   /scalr/run/environment        the run's variables: a line `variable NAME VALUE` for
#                                 each, to be sourced
#   /scalr/run/override.tf, /scalr/run/variables.tfvars.json,
#   /scalr/run/variables.tfvars   what goes beside the configuration
#   /scalr/run/hooks/ORIGIN/HOOK  what to run before and after the steps; ORIGIN
#                                 is "agent", "environment-NN" or "workspace"
#   /scalr/run/hooks/environment-NN/name
#                                 what the environment's owner calls that hook
#   /scalr/run/credentials.tfrc   the run's token for the server, for Terraform's CLI
#   /scalr/run/providers.tfrc, /scalr/run/mirror.tfrc
#                                 the same, and what the agent has of providers
#   /scalr/run/plan               the saved plan: written by plan, read by apply
#   /scalr/run/plan.json          written here: what Terraform says of the plan in JSON
#   /scalr/run/memory, /scalr/run/time, /scalr/run/disk
#                                 why the run is interrupted, if that is for memory,
#                                 for its time limit or for what it has on the
#                                 engine's disk
#   /scalr/run/status             written here: a line `STEP EXIT-CODE` for each
#                                 step, `ORIGIN:HOOK WHY` for a failed hook, and
#                                 `error WHY` for what is refused here
#   /scalr/run/hook               written here: `ORIGIN HOOK` while a hook runs
#   /scalr/run/hook.env           where a hook writes NAME=VALUE for later steps
#   /scalr/run/hook.environment   written here: what hooks left, as in environment
#   /scalr/run/stopped            written here once the run is interrupted
#   /scalr/run/version            written here: what `terraform version`, or `tofu version`, says
#   /scalr/run/times              written here, if this shell has a clock: a line
#                                 `COMMAND BEGIN END` for each command of Terraform that
#                                 ended, in seconds since 1970
#
# Being process 1 it gets the engine's signals and hands them on to the step
# that runs; without that a cancelled apply would go on to its end. Standard
# error goes where standard output goes, so that one stream keeps their order.
#
# SIGINT is handed on once: an agent that was restarted says it again, and
# Terraform would take a second one as an order to drop everything. SIGUSR1 says
# that the hook that runs is overdue.
#
# The run's variables are never in this shell, only in subshells that then become
# a command, or print what they found: whatever a variable is called, it cannot
# change what is done here. After `load`, a subshell uses only positional
# parameters, and variables that it sets itself.
#
# shellcheck disable=SC2317,SC3028 # run, place, traps and sourced files call functions; not every
# shell has EPOCHREALTIME

exec 2>&1

_kind=$1
_operation=$2
_directory=$3
_container=$4
_wanted=$5
_version=$6
shift 6
_program=
_begun=
_cli_config=
_notes=
_placed=
_child=
_hook=
_overdue=
_stopped=
_signaled=
_told=
_notice=

main() {
    enter_directory
    check_variables
    hook pre-init || exit $?
    find_program
    # Starting Terraform takes a while: it is asked for its version only where that matters.
    if [ -n "$_version" ] || ! has_configuration Terraform; then
        check_program
        check_configuration
    fi
    _cli_config=$(load && find_cli_config)
    # Whatever a hook or the upload left in .terraform, our backend is the one.
    terraform_step init -input=false -reconfigure || exit $?
    hook "pre-$_kind" || exit $?
    check_backend
    case $_kind in
        plan)
            set -- -input=false -detailed-exitcode -out=/scalr/run/plan "$@"
            [ "$_operation" = destroy ] && set -- "$@" -destroy
            terraform_step plan "$@"
            ;;
        apply)
            terraform_step apply -input=false /scalr/run/plan
            ;;
    esac
    _result=$?
    # Code 2 of a plan means that it succeeded and changes something.
    case $_kind$_result in
        plan0 | plan2) write_json ;;
    esac
    case $_kind$_result in
        plan0 | plan2 | apply0) hook "post-$_kind" || exit $? ;;
    esac
    # What a plan leaves goes to the apply, which has these of its own.
    remove_placed
    exit "$_result"
}

# Ends the task for a reason that the agent then writes into the log.
fail() {
    echo "error $*" >>/scalr/run/status
    exit 1
}

enter_directory() {
    _shown=${_directory#/scalr/work}
    _shown=${_shown#/}
    [ -n "$_shown" ] || _shown="the archive's top folder"
    [ -d "$_directory" ] && cd "$_directory" && return
    _why="the uploaded archive has no such folder"
    [ -e "$_directory" ] && _why="it is not a folder"
    fail_without_configuration
}

fail_without_configuration() {
    fail "no Terraform configuration in $_shown: $_why.$(folders) Set the workspace's working-directory to a folder that has a configuration, or upload one"
}

# Without a configuration, Terraform would see our override file alone, and
# destroy all that stands in the state.
check_configuration() {
    has_configuration "$_program" && return
    _why="it has no file that ends in .tf or .tf.json"
    [ "$_program" = OpenTofu ] && _why="$_why, .tofu or .tofu.json"
    fail_without_configuration
}

# Whether this folder has a configuration for a program, Terraform or OpenTofu.
has_configuration() {
    for _file in *; do
        is_configuration "$_file" "$1" && ! is_override "$_file" && [ -f "$_file" ] && return
    done
    return 1
}

# Whether a program reads a file of this name as configuration: Terraform those of
# OpenTofu not.
is_configuration() {
    case $1 in
        *.tf | *.tf.json) ;;
        *.tofu | *.tofu.json) [ "$2" != Terraform ] ;;
        *) return 1 ;;
    esac
}

# A sentence that names the folders which have a configuration.
folders() {
    cd /scalr/work || return
    _found=
    for _file in *.tf */*.tf */*/*.tf */*/*/*.tf; do
        [ -f "$_file" ] || continue
        case $_file in
            */*) _file=${_file%/*} ;;
            *) _file="the archive's top folder" ;;
        esac
        case ", $_found, " in
            *", $_file, "*) ;;
            *) _found=${_found:+$_found, }$_file ;;
        esac
    done
    [ -z "$_found" ] || printf ' These folders have one: %s.' "$_found"
}

is_override() {
    case $1 in
        override.tf | *_override.tf | override.tf.json | *_override.tf.json) ;;
        override.tofu | *_override.tofu | override.tofu.json | *_override.tofu.json) ;;
        *) return 1 ;;
    esac
}

is_variables() {
    case $1 in
        *.auto.tfvars | *.auto.tfvars.json) ;;
        *) return 1 ;;
    esac
}

# Finds out whether the image has Terraform or OpenTofu, unless it must have one of them.
find_program() {
    if [ -z "$_wanted" ]; then
        _wanted=$(load && program)
        [ "$_wanted" = terraform ] || echo "Using tofu: this run's image has no program terraform"
    fi
}

# Finds out of which version Terraform or OpenTofu is.
check_program() {
    [ -n "$_stopped" ] && exit 130
    _begun=${EPOCHREALTIME:-}
    run as_terraform "$_wanted" version >/scalr/run/version
    note_times version
    if [ "$_code" -ne 0 ]; then
        copy /scalr/run/version
        echo "version $_code" >>/scalr/run/status
        exit "$_code"
    fi
    _found=
    while IFS= read -r _line || [ -n "$_line" ]; do
        case $_line in
            "Terraform v"* | "OpenTofu v"*)
                _program=${_line%% *}
                _found=${_line#* v}
                break
                ;;
        esac
    done </scalr/run/version
    [ -z "$_version" ] || [ "$_version" = "$_found" ] && return
    fail "this run's image has ${_program:-no known program} $_found, and the workspace asks for $_version. Use an image of that version ({version} in the image's name stands for it), or change the workspace's terraform-version, or set its allow-other-terraform-version to true"
}

# Writes what Terraform must read after all files of its kind: it merges those in
# the order of their names. Ours begins with the name of the last one.
place_all() {
    remove_placed
    place override.tf is_override _scalr_override.tf
    place variables.tfvars.json is_variables _scalr.auto.tfvars.json
    place variables.tfvars is_variables _scalr.auto.tfvars
}

place() {
    [ -f "/scalr/run/$1" ] || return
    _last=$(
        # As Terraform does, by bytes.
        LC_ALL=C
        _last=
        for _file in *; do
            "$2" "$_file" && [ -f "$_file" ] && _last=$_file
        done
        printf '%s' "$_last"
    )
    (
        umask 077
        copy "/scalr/run/$1" >"$_last$3"
    ) || fail "cannot write the file $_last$3 beside the configuration"
    _placed="$_placed $(quote "$_last$3")"
}

remove_placed() {
    # An image without rm keeps them; others then follow.
    eval "rm -f -- $_placed" 2>/dev/null
    _placed=
}

# Prints a file.
copy() {
    while IFS= read -r _line || [ -n "$_line" ]; do
        printf '%s\n' "$_line"
    done <"$1"
}

# Makes sure that no hook has sent the state elsewhere.
check_backend() {
    _file=$(load && printf '%s' "${TF_DATA_DIR:-.terraform}/terraform.tfstate")
    [ -r "$_file" ] || return
    while IFS= read -r _line || [ -n "$_line" ]; do
        case $_line in
            *'"path"'*'"/scalr/run/terraform.tfstate"'*) return ;;
        esac
    done <"$_file"
    fail "a hook has initialized another backend; the run's state belongs where the agent finds it. Remove \`terraform init\` with its own backend from the hook"
}

# Prints which CLI configuration of the agent's Terraform uses, if any. A run's own takes
# precedence.
find_cli_config() {
    [ -n "${TF_CLI_CONFIG_FILE:-}${TERRAFORM_CONFIG:-}" ] && return
    for _file in "$HOME"/.terraformrc "$HOME"/.tofurc "$HOME"/.terraform.d/*.tfrc*; do
        [ -e "$_file" ] && return
    done
    if [ -f /scalr/run/mirror.tfrc ]; then
        echo /scalr/run/mirror.tfrc
    elif [ -f /scalr/run/providers.tfrc ] && ! has_plugins; then
        echo /scalr/run/providers.tfrc
    elif [ -f /scalr/run/credentials.tfrc ]; then
        echo /scalr/run/credentials.tfrc
    fi
}

# Whether the image or the configuration includes plugins: with a configuration that says where
# providers are, Terraform would no longer find them.
has_plugins() {
    [ -z "${XDG_DATA_DIRS:-}" ] || return 0
    for _file in terraform.d "$HOME"/.terraform.d "${XDG_DATA_HOME:-$HOME/.local/share}"/* \
        /usr/local/share/terraform /usr/share/terraform \
        /usr/local/share/opentofu /usr/share/opentofu; do
        [ -d "$_file/plugins" ] && return
    done
    return 1
}

# Runs a step of Terraform and writes down how it ended.
terraform_step() {
    [ -n "$_stopped" ] && return 130
    _why=$(load && { refused_data_dir || refused_flag "$1"; })
    [ -z "$_why" ] || fail "$_why"
    (load && notes "$1") >/scalr/run/notes
    while IFS= read -r _line; do
        # Each is said once, not for each step.
        case $_notes in
            *"<$_line>"*) ;;
            *) printf '%s\n' "$_line" ;;
        esac
        _notes="$_notes<$_line>"
    done </scalr/run/notes
    place_all
    _begun=${EPOCHREALTIME:-}
    run as_terraform "$_wanted" "$@"
    note_times "$1"
    echo "$1 $_code" >>/scalr/run/status
    return "$_code"
}

# Writes what Terraform says of the plan in JSON, if it does: nothing relies on that.
write_json() {
    [ -n "$_stopped" ] && return
    _begun=${EPOCHREALTIME:-}
    run as_show "$_wanted"
    note_times show
    [ "$_code" -eq 0 ] || : >/scalr/run/plan.json
}

# Writes down when a command began and that it ends now. Only some shells have a clock.
note_times() {
    [ -z "$_begun" ] || echo "$1 $_begun $EPOCHREALTIME" >>/scalr/run/times
}

as_show() {
    exec >/scalr/run/plan.json 2>/dev/null
    load
    # They may have flags that this command does not know.
    unset TF_CLI_ARGS TF_CLI_ARGS_show
    TF_WORKSPACE=default
    export TF_WORKSPACE
    has_plugin_cache || unset TF_PLUGIN_CACHE_DIR
    exec "$1" show -no-color -json /scalr/run/plan
}

# Becomes Terraform: a program and its arguments.
as_terraform() {
    load
    # The state is the one of this workspace, whatever a variable or a hook selected.
    TF_WORKSPACE=default
    export TF_WORKSPACE
    has_plugin_cache || unset TF_PLUGIN_CACHE_DIR
    [ -e /scalr/run/stopped ] && exit 130
    exec "$@"
}

# Prints the name of the image's program, if any will do.
program() {
    if command -v terraform >/dev/null || ! command -v tofu >/dev/null; then
        echo terraform
    else
        echo tofu
    fi
}

# Prints why Terraform could not work in the folder that a variable names, if so.
refused_data_dir() {
    [ -n "${TF_DATA_DIR:-}" ] || return 1
    [ -d "$TF_DATA_DIR" ] || mkdir -p "$TF_DATA_DIR" 2>/dev/null
    [ -d "$TF_DATA_DIR" ] && [ -w "$TF_DATA_DIR" ] && return 1
    echo "the variable TF_DATA_DIR is $TF_DATA_DIR, where this run cannot write. Use a folder below /tmp or /scalr/home, or remove the variable"
}

# Prints why the flags that variables add to a step can't be passed on.
refused_flag() {
    set -f
    IFS=" 	
'\""
    for _name in TF_CLI_ARGS "TF_CLI_ARGS_$1"; do
        eval "_value=\${$_name:-}"
        for _word in $_value; do
            case $_word in
                -*) _word=${_word#-} ;;
                *) continue ;;
            esac
            _word=${_word#-}
            _word=${_word%%=*}
            case $_word in
                state | state-out | backend | backend-config | migrate-state | from-module)
                    _why="the agent keeps the state and the configuration of a run"
                    ;;
                destroy | refresh-only)
                    _why="what a run does stands in the run: start a run that destroys, for example"
                    ;;
                help | h | version | v | chdir)
                    _why="Terraform would then do something else than the run's step"
                    ;;
                *) continue ;;
            esac
            echo "the variable $_name has the flag -$_word, which runs do not take: $_why. Remove the flag from the variable"
            return
        done
    done
}

# Prints what the variables of a step do that is easily overlooked.
notes() {
    for _name in TF_CLI_ARGS "TF_CLI_ARGS_$1"; do
        eval "_value=\${$_name:-}"
        [ -z "$_value" ] || echo "The variable $_name adds to terraform $1: $_value"
    done
    [ "${TF_WORKSPACE:-default}" = default ] ||
        echo "Ignoring TF_WORKSPACE=$TF_WORKSPACE: a run's state is that of its workspace on the server"
    _value=default
    if [ -r "${TF_DATA_DIR:-.terraform}/environment" ]; then
        IFS= read -r _value <"${TF_DATA_DIR:-.terraform}/environment"
    fi
    [ "$_value" = default ] ||
        echo "Ignoring the selected Terraform workspace $_value: a run's state is that of its workspace on the server"
    has_plugin_cache ||
        echo "Ignoring TF_PLUGIN_CACHE_DIR=$TF_PLUGIN_CACHE_DIR: this run cannot write there; it can below /tmp and /scalr/home"
}

# Whether the folder that the run wants as a plugin cache, if it wants one, is there
# or can be made.
has_plugin_cache() {
    [ -z "${TF_PLUGIN_CACHE_DIR:-}" ] && return
    [ -d "$TF_PLUGIN_CACHE_DIR" ] || mkdir -p "$TF_PLUGIN_CACHE_DIR" 2>/dev/null
    [ -d "$TF_PLUGIN_CACHE_DIR" ] && [ -w "$TF_PLUGIN_CACHE_DIR" ]
}

# Sets the run's variables. Only in a subshell.
load() {
    set -- "$_cli_config"
    {
        # shellcheck source=/dev/null
        . /scalr/run/environment
        if [ -f /scalr/run/hook.environment ]; then
            # shellcheck source=/dev/null
            . /scalr/run/hook.environment
        fi
    } 2>/dev/null
    [ -n "${TF_CLI_CONFIG_FILE:-}" ] || [ -z "$1" ] || export "TF_CLI_CONFIG_FILE=$1"
    SCALR_ENV_FILE=/scalr/run/hook.env
    export SCALR_ENV_FILE
}

variable() {
    export "$1=$2"
}

# Whether this shell can set a variable to a value. Some it keeps for itself: UID in
# bash can't be set, RANDOM has another value each time.
is_settable() (
    export "$1=$2" && eval "[ \"\${$1}\" = \"\$2\" ]"
) 2>/dev/null

# Leaves out, from here on, the variables that can't be set.
check_variables() {
    (
        variable() {
            export "$1=$2" && eval "[ \"\${$1}\" = \"\$2\" ]" || exit
        }
        # shellcheck source=/dev/null
        . /scalr/run/environment
    ) >/dev/null 2>&1 && return
    (
        variable() {
            is_settable "$1" "$2" || say_reserved "$1"
        }
        # shellcheck source=/dev/null
        . /scalr/run/environment
    )
    variable() {
        is_settable "$1" "$2" && export "$1=$2"
    }
}

say_reserved() {
    echo "Ignoring the variable $1: this image's /bin/sh reserves the name"
}

# Runs the agent's hook of this name, then the environment's and the workspace's. One
# that fails, or that can't be run any more, is written down and fails the task.
hook() {
    for _file in /scalr/run/hooks/agent/"$1" /scalr/run/hooks/environment-*/"$1" \
        /scalr/run/hooks/workspace/"$1"; do
        [ -f "$_file" ] || continue
        _folder=${_file%/*}
        _origin=${_folder##*/}
        if [ -n "$_stopped" ]; then
            _why=130
        else
            case $_origin in
                environment-*)
                    IFS= read -r _name <"$_folder/name"
                    printf '%s\n' "Running the environment's $1 hook \"$_name\""
                    ;;
                *) echo "Running the $_origin's $1 hook" ;;
            esac
            : >/scalr/run/hook.env
            echo "$_origin $1" >/scalr/run/hook
            _hook=1
            run as_hook "$_file"
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

# Becomes a hook.
as_hook() {
    load
    [ -e /scalr/run/stopped ] && exit 130
    exec "$1"
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
        if is_settable "${_line%%=*}" "${_line#*=}"; then
            echo "variable ${_line%%=*} $(quote "${_line#*=}")" >>/scalr/run/hook.environment
        else
            say_reserved "${_line%%=*}"
        fi
    done </scalr/run/hook.env
}

# Prints a text as the shell reads it.
quote() {
    _rest=$1
    _quoted=
    while :; do
        case $_rest in
            *\'*)
                _quoted=$_quoted${_rest%%\'*}"'\\''"
                _rest=${_rest#*\'}
                ;;
            *) break ;;
        esac
    done
    printf "'%s'" "$_quoted$_rest"
}

# Runs a command in the background, so that a signal interrupts our waiting
# and not only comes after it; its exit code is in _code.
run() {
    "$@" &
    _child=$!
    # What was said before there was somebody to hand it on to.
    [ -n "$_stopped" ] && forward "$_stopped"
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

interrupt() {
    _signaled=1
    [ -n "$_stopped" ] || forward INT
}

forward() {
    _stopped=$1
    : >/scalr/run/stopped
    _signaled=1
    _signal=$1
    for _notice in /scalr/run/memory /scalr/run/time /scalr/run/disk; do
        if [ -z "$_told" ] && [ -f "$_notice" ] && [ -r "$_notice" ]; then
            _told=1
            IFS= read -r _line <"$_notice" && echo && echo "$_line"
        fi
    done
    # A script in the background ignores SIGINT, whether it wants to or not.
    [ -n "$_hook" ] && _signal=TERM
    [ -n "$_child" ] && kill -s "$_signal" "$_child" 2>/dev/null
}

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
main "$@"

#!/bin/sh
# The first process of a task's container: runs the task's steps one after the
# other. Needs nothing but /bin/sh.
#
# usage: entrypoint.sh plan|apply apply|destroy DIRECTORY
#
#   DIRECTORY                     where Terraform is started
#   /scalr/run/environment        the run's variables, to be sourced
#   /scalr/run/plan               the saved plan: written by plan, read by apply
#   /scalr/run/memory             why the run is interrupted, if that is for memory
#   /scalr/run/status             written here: a line `STEP EXIT-CODE` for each step
#
# Being process 1 it gets the engine's signals and hands them on to the step
# that runs; without that a cancelled apply would go on to its end. Standard
# error goes where standard output goes, so that one stream keeps their order.

exec 2>&1

kind=$1
operation=$2
directory=$3
child=
stopped=
signaled=
told=

main() {
    cd "$directory" || exit 1
    set -a
    # shellcheck source=/dev/null
    . /scalr/run/environment
    set +a
    # Code 2 of a plan means that it succeeded and changes something.
    step init terraform init -input=false || exit $?
    case $kind in
        plan)
            set -- -input=false -detailed-exitcode -out=/scalr/run/plan
            [ "$operation" = destroy ] && set -- "$@" -destroy
            step plan terraform plan "$@"
            ;;
        apply)
            step apply terraform apply -input=false /scalr/run/plan
            ;;
    esac
}

# Runs a command in the background, so that a signal interrupts our waiting
# and not only comes after it, and writes down how it ended.
step() {
    name=$1
    shift
    [ -n "$stopped" ] && return 130
    "$@" &
    child=$!
    [ -n "$stopped" ] && kill -s INT "$child"
    code=
    signaled=1
    while [ -n "$signaled" ]; do
        signaled=
        wait "$child"
        last=$?
        # A signal ends the waiting, not the step: wait again. 127 then means
        # that the first waiting had got the step's own code.
        if [ -z "$code" ] || [ "$last" -ne 127 ]; then
            code=$last
        fi
    done
    child=
    echo "$name $code" >>/scalr/run/status
    return "$code"
}

forward() {
    stopped=1
    signaled=1
    if [ -z "$told" ] && [ -r /scalr/run/memory ]; then
        told=1
        IFS= read -r line </scalr/run/memory && echo && echo "$line"
    fi
    [ -n "$child" ] && kill -s "$1" "$child" 2>/dev/null
}

trap 'forward INT' INT
trap 'forward TERM' TERM
main

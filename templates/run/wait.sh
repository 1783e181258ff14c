#!/bin/sh
# The first process of a container that was started ahead of its run, as the text of `sh -c`:
# waits for a line of the agent's and then becomes the entry point. It ends with the code 125
# when the agent has gone, or lets it end, before that.
#
#   /scalr/run/begun      written here when the line has come: from there on, the run has begun
#   /scalr/run/command    the entry point with its arguments

trap 'exit 125' INT TERM
read -r _line || exit 125
# shellcheck source=/dev/null
: >/scalr/run/begun && . /scalr/run/command

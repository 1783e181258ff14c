# shellcheck shell=bash disable=SC2154 # its variables cross files
# docs/faults.md: what came of the fault matrix (tests/faults). Sourced after say.sh.

# The matrix's axes, as tests/faults names them.
faults=(
    'kill -9 agent' 'kill -9 dockerd' 'kill -9 server' 'cut network' 'proxy answers HTML 502'
    'disk full' 'clock jump' 'revoked token' 'container out of memory' 'machine loses power'
    'machine shut down' 'units restarted' 'agent stopped and revived'
)
fault_phases=(idle claimed planning 'waiting for approval' applying 'uploading the log')

# write_faults FOLDER: of the folder's files FAULT|PHASE, a cell each.
write_faults() {
    local fault phase
    {
        cat "$scripts/lib/faults.md"
        printf '\n| |'
        printf ' %s |' "${fault_phases[@]}"
        printf '\n|---|'
        printf '%s' "${fault_phases[@]/*/---|}"
        printf '\n'
        for fault in "${faults[@]}"; do
            printf '| **%s** |' "$fault"
            for phase in "${fault_phases[@]}"; do
                printf ' %s |' "$(cat "$1/$fault|$phase" 2>/dev/null || echo 'not run')"
            done
            printf '\n'
        done
    } >"$scripts/../docs/faults.md"
    say "docs/faults.md is written"
}

# shellcheck shell=bash disable=SC2154 # its variables cross files
# All that has a target, measured on this machine and shown beside the last time. Sourced after
# say.sh.

# A line for each figure, with tabs between: its name, its target, which is the most it may be,
# and what it was when it was last measured.
figures_file=$scripts/../docs/figures.tsv

# note_figure NAME VALUE: for the table, if one is made. Tests note theirs in the same file.
note_figure() { [[ -z ${SCALR_FIGURES:-} ]] || printf '%s\t%s\n' "$1" "$2" >>"$SCALR_FIGURES"; }

# bench_targets: measure all, print the table, and write the figures down. One subject that fails
# leaves its figures as they were.
bench_targets() {
    local failed=()
    export SCALR_FIGURES=$work/figures
    : >"$SCALR_FIGURES"
    "$scripts/bench" packages || failed+=(packages)
    "$scripts/bench" runs || failed+=(runs)
    SCALR_RUN_AHEAD=0 "$scripts/bench" runs || failed+=("runs, without containers started ahead")
    "$scripts/bench" logs || failed+=(logs)
    "$scripts/bench" install || failed+=(install)
    "$scripts/bench" agents --agents 1000,10000 --rounds 1 || failed+=(agents)

    measured_figures >"$work/measured"
    step "All that has a target"
    awk -F '\t' 'BEGIN { print "| figure | at most | last time | now | |\n|---|---|---|---|---|" }
        { print "| " $1 " | " $2 " | " $3 " | " $4 " | " ($4 == "" ? "not measured" : $4 <= $2 ? "" : "missed") " |" }' \
        "$work/measured"
    awk -F '\t' '{ print $1 "\t" $2 "\t" ($4 == "" ? $3 : $4) }' "$work/measured" >"$work/figures.tsv"
    cp "$work/figures.tsv" "$figures_file"
    [[ ${#failed[@]} -eq 0 ]] || {
        complain "not measured: ${failed[*]}"
        return 1
    }
}

# measured_figures: the lines of the figures' file, each with what it is now, if it was measured.
measured_figures() {
    awk -F '\t' 'NR == FNR { now[$1] = sprintf("%.2f", $2); next } { print $0 "\t" now[$1] }' \
        "$SCALR_FIGURES" "$figures_file"
}

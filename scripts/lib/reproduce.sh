# shellcheck shell=bash disable=SC2154 # its variables cross files
# Whether the same sources give the same packages, to the byte. Sourced after kit.sh.

# packs_alike KIT: the kit's packages, packed once more in another folder, at
# another time and with another umask.
packs_alike() (
    elsewhere=$work/packed/elsewhere
    copy_sources "$elsewhere"
    # A kit stays as it is when a later commit changes nothing in it.
    SOURCE_DATE_EPOCH=$(<"$1/source-date")
    export SOURCE_DATE_EPOCH
    umask 027
    cd "$elsewhere" &&
        "$1/bin/scalr-agent-setup" package --engine none --agent "$1/bin/scalr-agent" --output small &&
        "$1/bin/scalr-agent-setup" package --server "$1/bin/scalr-server" --output server &&
        same_files "$1/small" small &&
        same_files "$1/server" server
)

# builds_alike KIT: everything built twice, in folders of their own.
builds_alike() (
    # The copies say by this variable what the checkout knows from git.
    SOURCE_DATE_EPOCH=$(source_date)
    export SOURCE_DATE_EPOCH
    for folder in "$work/one" "$work/another/folder"; do
        copy_sources "$folder"
        (
            cd "$folder" &&
                export CARGO_TARGET_DIR=$folder/build &&
                "$1/bin/scalr-agent-setup" package --engine none --output "$folder/packages" &&
                "$1/bin/scalr-agent-setup" package --package server --output "$folder/packages"
        ) || return 1
        rm -rf "$folder/build"
    done
    same_files "$work/one/packages" "$work/another/folder/packages"
)

# copy_sources FOLDER: the sources alone, without what git knows of them.
copy_sources() {
    mkdir -p "$1"
    (cd "$scripts/.." && tar --create --exclude=./target --exclude=./.git .) | tar --extract --directory "$1"
}

# same_files ONE OTHER: both folders hold the same files.
same_files() {
    diff --recursive --brief "$1" "$2"
}

# shellcheck shell=bash disable=SC2154 # its variables cross files
# The kit: everything that a machine needs to be installed from this checkout.
# Sourced after tools.sh, engine.sh and run-image.sh.
#
#   bin/          the three programs, linked for glibc 2.17
#   packages/     the deb, the rpm and the rpm for Enterprise Linux 7
#   small/        the same without an engine
#   next/         the same as an upgrade of the first
#   server/       the deb and the rpm of the server
#   repository/   apt and yum repositories of packages/ and server/, signed with a throwaway key
#   run-image.tar the image that runs' containers are made of
#   mirror/       a mirror of providers: null 2.1.2 alone
#   configuration/ the Terraform configuration that is run
#   source-date   the time of the sources' commit, which the packages carry, in Unix seconds
#   docker-registry Debian's, for the tests
#   needrestart.tar Debian's needrestart and the libraries it needs, to be unpacked in /

kit_target=x86_64-unknown-linux-gnu

# make_kit [PROFILE]: build what is not up to date; print the kit's folder. The programs are
# those of a release unless the profile is another one, such as demo.
make_kit() {
    local kit archive programs provider registry needrestart
    kit=$(kit_folder kit)
    need_kit_tools cargo-deb cargo-generate-rpm
    programs=$(build_programs "${1:-release}") || return 1
    archive=$(engine_archive)
    provider=$(provider_package)
    registry=$(registry_program)
    needrestart=$(needrestart_archive)
    # Packing takes minutes: only when something in the packages is new.
    if ! is_made_of "$kit" "$programs" "$archive"; then
        begin_kit "$kit" "$programs"
        quietly "making the deb and the rpm" make_packages "$kit" "$archive" "$(compression "${1:-release}")" || return 1
        finish_kit "$kit" "$programs" "$archive" || return 1
    fi

    add_run "$kit"
    rm -rf "$kit/mirror"
    mkdir -p "$kit/mirror/registry.terraform.io/hashicorp/null"
    cp --reflink=auto "$provider" "$kit/mirror/registry.terraform.io/hashicorp/null/"
    cp --reflink=auto "$registry" "$kit/docker-registry"
    cp --reflink=auto "$needrestart" "$kit/needrestart.tar"
    printf '%s\n' "$kit"
}

# make_demo_kit TYPE: the part of a kit that one machine is installed from, TYPE being
# deb, rpm or rpm-el7; its programs are built in half the time. Print its folder.
make_demo_kit() {
    local type=$1 kit archive programs packer=cargo-generate-rpm
    kit=$(kit_folder "demo-kit-$type")
    [[ $type != deb ]] || packer=cargo-deb
    need_kit_tools "$packer"
    programs=$(build_programs demo) || return 1
    archive=$(engine_archive)
    if ! is_made_of "$kit" "$programs" "$archive"; then
        begin_kit "$kit" "$programs"
        quietly "making the $type" package "$kit" --type "$type" --agent "$kit/bin/scalr-agent" \
            --engine-archive "$archive" --deb-compression "$(compression demo)" --output "$kit/packages" || return 1
        finish_kit "$kit" "$programs" "$archive" || return 1
    fi
    add_run "$kit"
    printf '%s\n' "$kit"
}

# kit_folder NAME: print the folder of that name where cargo builds.
kit_folder() {
    local target=${CARGO_TARGET_DIR:-$scripts/../target}
    mkdir -p "$target"
    printf '%s/%s\n' "$(realpath "$target")" "$1"
}

# need_kit_tools PACKER...: what building, packing and signing takes.
need_kit_tools() {
    need_compiler
    need_zigbuild
    need_cargo_tools "$@"
    need_commands objcopy=binutils gpg=gnupg apt-ftparchive=apt-utils createrepo_c=createrepo-c rpmsign=rpm jq=jq xz=xz-utils
}

# build_programs PROFILE: build the three programs for glibc 2.17; print their folder. Those of a
# release are built as `scalr-agent-setup package` builds them, each product with its own profile.
build_programs() {
    local target programs
    target=$(kit_folder .)
    say "building the three programs for glibc 2.17"
    if [[ $1 != release ]]; then
        build_crates "$target" "$1" agent setup server || return 1
        printf '%s\n' "$target/$kit_target/$1"
        return
    fi
    build_crates "$target" small agent setup && build_crates "$target" release server || return 1
    programs=$target/$kit_target/programs
    mkdir -p "$programs"
    cp --reflink=auto "$target/$kit_target"/{small/scalr-agent,small/scalr-agent-setup,release/scalr-server} "$programs/"
    printf '%s\n' "$programs"
}

# compression PROFILE: how the debs with an engine are compressed. What is tried again and again
# is to unpack fast.
compression() { if [[ $1 == release ]]; then echo xz; else echo gzip; fi; }

# build_crates TARGET PROFILE CRATE...: the programs of these crates.
build_crates() {
    local crates=("${@:3}")
    cargo zigbuild --profile "$2" --target "$kit_target.2.17" --target-dir "$1" \
        --manifest-path "$scripts/../Cargo.toml" "${crates[@]/#/--package=}" --bins >&2
}

# is_made_of KIT PROGRAMS ENGINE: whether the kit is of these and of today's sources.
is_made_of() {
    [[ -f $1/made-of && $(<"$1/made-of") == "$(kit_fingerprint "$2" "$3")" ]]
}

# begin_kit KIT PROGRAMS: an empty kit with its programs.
begin_kit() {
    rm -rf "$1"
    mkdir -p "$1/bin"
    cp "$2"/scalr-{agent,agent-setup,server} "$1/bin/"
    source_date >"$1/source-date"
}

# source_date: the time of the sources' commit, or of their last release's notes where
# there is no git, in Unix seconds.
source_date() {
    git -C "$scripts/.." log -1 --format=%ct 2>/dev/null || stat --format %Y "$scripts/../CHANGELOG.md"
}

# finish_kit KIT PROGRAMS ENGINE: the repositories of its packages, and what it is of.
finish_kit() {
    quietly "making signed apt and yum repositories" make_repository "$1" || return 1
    kit_fingerprint "$2" "$3" >"$1/made-of"
}

# add_run KIT: the image and the configuration of a run.
add_run() {
    local image
    image=$(run_image)
    cp --reflink=auto "$image" "$1/run-image.tar"
    rm -rf "$1/configuration"
    cp -R "$scripts/../tests/fixtures/configuration" "$1/configuration"
    if run_image_knows_terraform_data; then
        rm "$1/configuration/null_resource.tf"
    else
        rm "$1/configuration/terraform_data.tf"
    fi
}

# registry_program: print the path of Debian's docker-registry, fetched if it is not
# in the cache. It is not installed: its package would start one on this host.
registry_program() {
    local program=$cache/docker-registry work
    if [[ ! -s $program ]]; then
        work=$(mktemp -d)
        quietly "fetching docker-registry" engine_download "$work" docker-registry || return 1
        cp "$work/unpacked/usr/bin/docker-registry" "$program.partial"
        mv "$program.partial" "$program"
        rm -rf "$work"
    fi
    printf '%s\n' "$program"
}

# needrestart_archive: print the path of an archive of Debian's needrestart, made if it
# is not in the cache. No machine has it from the start: after each package it would
# restart services.
needrestart_archive() {
    local archive=$cache/needrestart.tar work
    if [[ ! -s $archive ]]; then
        work=$(mktemp -d)
        quietly "fetching needrestart" engine_download "$work" needrestart gettext-base \
            libintl-perl libmodule-find-perl libproc-processtable-perl libsort-naturally-perl \
            libterm-readkey-perl || return 1
        tar --create --owner=0 --group=0 --directory="$work/unpacked" --file="$archive.partial" \
            etc usr || return 1
        mv "$archive.partial" "$archive"
        rm -rf "$work"
    fi
    printf '%s\n' "$archive"
}

# What the packages are made of, as one sum: programs, engine, and the files that
# describe and surround them.
kit_fingerprint() {
    (
        sha256sum "$1"/scalr-{agent,agent-setup,server} "$2"
        cd "$scripts/.." && find pkg templates src/agent/Cargo.toml src/server/Cargo.toml CHANGELOG.md LICENSE -type f \
            -not -path 'pkg/ansible/*' -not -path 'pkg/cloud-init/*' -exec sha256sum {} + | sort
    ) | sha256sum | cut -d' ' -f1
}

# make_packages KIT ENGINE COMPRESSION
make_packages() {
    local kit=$1 agent=$1/bin/scalr-agent bundled=(--engine-archive "$2" --deb-compression "$3")
    # The agent's last: what is staged for it is also what its container is made of.
    package "$kit" --server "$kit/bin/scalr-server" --output "$kit/server" &&
        package "$kit" --agent "$agent" "${bundled[@]}" --output "$kit/packages" &&
        package "$kit" --agent "$agent" "${bundled[@]}" --release 2 --output "$kit/next" &&
        package "$kit" --agent "$agent" --engine none --output "$kit/small"
}

# package KIT OPTION...: call the kit's own packager in the sources.
package() { (cd "$scripts/.." && "$1/bin/scalr-agent-setup" package "${@:2}"); }

# Signed with a key that lives as long as this function: its owner can't leave
# its work folder behind, and nothing but this kit is ever signed with it.
make_repository() (
    GNUPGHOME=$(mktemp -d)
    export GNUPGHOME
    published=$(mktemp -d "$1/published.XXXXXX")
    trap 'gpgconf --kill all; rm -rf "$GNUPGHOME" "$published"' EXIT
    for folder in packages server; do
        [[ ! -d $1/$folder ]] || ln "$1/$folder"/* "$published/" || exit 1
    done
    gpg --batch --quiet --passphrase '' --quick-generate-key \
        'scalr-agent test <test@pools.test>' rsa3072 sign 1d || exit 1
    "$1/bin/scalr-agent-setup" repository --packages "$published" --output "$1/repository" \
        --key test@pools.test
)

# machine_tests: build the tests on booted machines, which take a kit; print their program.
machine_tests() {
    cd "$scripts/.." &&
        cargo test --no-run --package tests --test machine --message-format=json-render-diagnostics |
        jq -r 'select(.profile.test == true and .executable != null).executable'
}

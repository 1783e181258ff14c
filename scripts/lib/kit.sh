# shellcheck shell=bash disable=SC2154 # its variables cross files
# The kit: everything that a machine needs to be installed from this checkout.
# Sourced after tools.sh, engine.sh and run-image.sh.
#
#   bin/          the three programs, linked for glibc 2.17
#   packages/     the deb, the rpm and the rpm for Enterprise Linux 7
#   small/        the same without an engine
#   next/         the same as an upgrade of the first
#   server/       the deb and the rpm of the server
#   repository/   apt and yum repositories of them, signed with a throwaway key
#   run-image.tar the image that runs' containers are made of
#   mirror/       a mirror of providers: null 2.1.2 alone
#   configuration/ the Terraform configuration that is run
#   docker-registry Debian's, for the tests

kit_target=x86_64-unknown-linux-gnu

# make_kit: build what is not up to date; print the kit's folder.
make_kit() {
    local target=${CARGO_TARGET_DIR:-$scripts/../target} kit archive image provider registry made_of
    mkdir -p "$target"
    target=$(realpath "$target")
    kit=$target/kit
    need_compiler
    need_zigbuild
    need_cargo_tools cargo-deb cargo-generate-rpm
    need_commands objcopy=binutils gpg=gnupg apt-ftparchive=apt-utils createrepo_c=createrepo-c rpmsign=rpm jq=jq xz=xz-utils

    say "building the three programs for glibc 2.17"
    cargo zigbuild --release --target "$kit_target.2.17" --target-dir "$target" \
        --manifest-path "$scripts/../Cargo.toml" --package agent --package setup --package server --bins >&2 || return 1
    archive=$(engine_archive)
    image=$(run_image)
    provider=$(provider_package)
    registry=$(registry_program)
    # Packing takes minutes: only when something in the packages is new.
    made_of=$(kit_fingerprint "$target/$kit_target/release" "$archive")
    if [[ ! -f $kit/made-of || $(<"$kit/made-of") != "$made_of" ]]; then
        rm -rf "$kit"
        mkdir -p "$kit/bin"
        cp "$target/$kit_target/release"/scalr-{agent,agent-setup,server} "$kit/bin/"
        quietly "making the deb and the rpm" make_packages "$kit" "$archive" || return 1
        quietly "making signed apt and yum repositories" make_repository "$kit" || return 1
        printf '%s\n' "$made_of" >"$kit/made-of"
    fi

    cp --reflink=auto "$image" "$kit/run-image.tar"
    rm -rf "$kit/mirror"
    mkdir -p "$kit/mirror/registry.terraform.io/hashicorp/null"
    cp --reflink=auto "$provider" "$kit/mirror/registry.terraform.io/hashicorp/null/"
    cp --reflink=auto "$registry" "$kit/docker-registry"
    rm -rf "$kit/configuration"
    cp -R "$scripts/../tests/fixtures/configuration" "$kit/configuration"
    if run_image_knows_terraform_data; then
        rm "$kit/configuration/null_resource.tf"
    else
        rm "$kit/configuration/terraform_data.tf"
    fi
    printf '%s\n' "$kit"
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

# What the packages are made of, as one sum: programs, engine, and the files that
# describe and surround them.
kit_fingerprint() {
    (
        sha256sum "$1"/scalr-{agent,agent-setup,server} "$2"
        cd "$scripts/.." && find pkg templates src/agent/Cargo.toml src/server/Cargo.toml CHANGELOG.md LICENSE -type f \
            -not -path 'pkg/ansible/*' -not -path 'pkg/cloud-init/*' -exec sha256sum {} + | sort
    ) | sha256sum | cut -d' ' -f1
}

make_packages() {
    # The agent's last: what is staged for it is also what its container is made of.
    (cd "$scripts/.." && "$1/bin/scalr-agent-setup" package --server "$1/bin/scalr-server" --output "$1/server" &&
        "$1/bin/scalr-agent-setup" package \
            --agent "$1/bin/scalr-agent" --engine-archive "$2" --output "$1/packages" &&
        "$1/bin/scalr-agent-setup" package --release 2 \
            --agent "$1/bin/scalr-agent" --engine-archive "$2" --output "$1/next" &&
        "$1/bin/scalr-agent-setup" package --engine none \
            --agent "$1/bin/scalr-agent" --output "$1/small")
}

# Signed with a key that lives as long as this function: its owner can't leave
# its work folder behind, and nothing but this kit is ever signed with it.
make_repository() (
    GNUPGHOME=$(mktemp -d)
    export GNUPGHOME
    trap 'gpgconf --kill all; rm -rf "$GNUPGHOME"' EXIT
    gpg --batch --quiet --passphrase '' --quick-generate-key \
        'scalr-agent test <test@pools.test>' rsa3072 sign 1d || exit 1
    "$1/bin/scalr-agent-setup" repository --packages "$1/packages" --output "$1/repository" \
        --key test@pools.test
)

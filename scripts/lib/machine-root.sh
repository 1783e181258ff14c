# shellcheck shell=bash disable=SC2154,SC2034 # its variables cross files
# Preparing the roots that machines are copied from: one a flavour, a copy of its
# family's base. Both are kept in the cache and made again when anything of their
# recipe changed. Sourced after tools.sh.
#
# Each is a minimal system of the distribution this host runs, dressed up: the
# files under machine.d/FLAVOUR/root are laid over it, so that an installer
# finds the os-release, the repositories and the commands of the flavour. What
# that does not give is the flavour's own systemd, glibc and kernel.

machine_flavours=(ubuntu-18.04 centos-8 centos-7)
machine_recipes=$scripts/machine.d
machine_cache=$cache/machines

# What every flavour offers, and what an engine made of this distribution's
# packages is linked against.
machine_packages=(
    systemd systemd-sysv dbus ca-certificates curl iproute2 procps iptables
    sudo tar gzip xz-utils libdevmapper1.02.1 libseccomp2
)

# machine_root FLAVOUR: print the folder of the prepared root, made if needed.
machine_root() { machine_cached "$1" machine_make_root "${1%%-*}" "$1"; }

# machine_base FAMILY: the same for what the roots of a family's flavours begin as.
machine_base() { machine_cached "$1-base" machine_make_base "$1"; }

# machine_cached NAME MAKE RECIPE...: print the folder of that name in the cache. If it
# is not of these recipes as they are now, "MAKE NAME FOLDER" makes it.
machine_cached() {
    local name=$1 make=$2 root=$machine_cache/$1 fingerprint
    shift 2
    fingerprint=$(machine_fingerprint "$@")
    mkdir -p "$machine_cache"
    (
        # Two scripts may ask at once: the second waits and finds it made.
        flock 9
        if [[ ! -e $root || $(<"$root.fingerprint") != "$fingerprint" ]]; then
            "$make" "$name" "$root.partial" || exit 1
            rm -rf --one-file-system "$root"
            mv "$root.partial" "$root"
            printf '%s\n' "$fingerprint" >"$root.fingerprint"
        fi
    ) 9>"$machine_cache/$name.lock"
    printf '%s\n' "$root"
}

# machine_fingerprint RECIPE...: what the recipes are made of, as one sum.
machine_fingerprint() {
    local recipe folders=()
    for recipe; do
        [[ ! -d $machine_recipes/$recipe ]] || folders+=("$recipe")
    done
    {
        cat "$scripts/lib/machine-root.sh"
        tar --create --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner \
            --directory="$machine_recipes" --files-from=<(printf '%s\n' "${folders[@]}")
    } | sha256sum | cut -d' ' -f1
}

machine_make_root() {
    local flavour=$1 root=$2 base
    base=$(machine_base "${flavour%%-*}") || return 1
    say "preparing the root of $flavour, once"
    rm -rf --one-file-system "$root"
    cp --archive --reflink=auto "$base" "$root"
    machine_dress "$machine_recipes/$flavour" "$root"
    [[ $flavour != centos-* ]] || machine_make_centos "$flavour" "$root"
}

machine_make_base() {
    local family=${1%-base} root=$2 packages=("${machine_packages[@]}") codename sources
    say "preparing what the $family machines have in common, once (about a minute)"
    need_commands mmdebstrap=mmdebstrap
    # Also what the family's cloud images have for those who set hosts up.
    case $family in
        centos) packages+=(rpm dnf dnf-plugins-core) ;;
        ubuntu) packages+=(python3-apt cloud-init) ;;
    esac
    codename=$(. /etc/os-release && echo "$VERSION_CODENAME")
    # Those of this Debian, wherever and in whichever format they are listed.
    mapfile -t sources < <(grep -lsE "(^|[[:space:]])$codename([[:space:]]|\$)" \
        /etc/apt/sources.list /etc/apt/sources.list.d/*.{list,sources})
    [[ ${#sources[@]} -gt 0 ]] ||
        die "no package sources of Debian $codename in /etc/apt: machines are made of them"

    rm -rf --one-file-system "$root"
    quietly "installing ${#packages[@]} packages and what they need into a new root" \
        mmdebstrap --variant=minbase --include="$(IFS=, && echo "${packages[*]}")" \
        "$codename" "$root" "${sources[@]}" || return 1
    # No machine reaches the distribution's repositories.
    rm -rf "$root"/etc/apt/sources.list "$root"/etc/apt/sources.list.d/* "$root"/var/lib/apt/lists/*
    # Kept on disk, the journal can be read after a machine has died.
    mkdir -p "$root/var/log/journal"
    machine_dress "$machine_recipes/$family" "$root"
}

# Lay a recipe's files over the root.
machine_dress() {
    [[ ! -d $1/root ]] || cp -R --no-dereference --remove-destination "$1/root/." "$2/"
}

# What makes the root a machine of the rpm family.
machine_make_centos() {
    local flavour=$1 root=$2 list repository
    need_commands rpmbuild=rpm createrepo_c=createrepo-c
    ln -sf dnf-3 "$root/usr/bin/yum"
    ln -sf ../libexec/dnf-utils-3 "$root/usr/bin/yum-config-manager"
    [[ $flavour != centos-7 ]] || rm "$root/usr/bin/dnf"
    mkdir -p "$root"/etc/pki/ca-trust/source/anchors "$root"/etc/pki/tls/certs \
        "$root"/etc/pki/ca-trust/extracted/pem
    ln -sf /etc/ssl/certs/ca-certificates.crt "$root/etc/pki/tls/certs/ca-bundle.crt"
    ln -sf /etc/ssl/certs/ca-certificates.crt "$root/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem"
    # An installer that looks for commands must not find the other family's.
    rm -rf "$root"/usr/bin/apt* "$root"/usr/bin/dpkg* "$root"/usr/sbin/dpkg* \
        "$root"/etc/apt "$root"/etc/debian_version "$root"/var/lib/dpkg

    for list in "$machine_recipes/$flavour"/packages/*; do
        repository=$root/srv/repositories/${list##*/}
        quietly "making the repository ${list##*/} of stub packages" \
            machine_make_repository "$list" "$repository" || return 1
        # The first one is the base system's, which has its packages installed.
        [[ ${list##*/} != base* ]] || quietly "installing the stub packages of ${list##*/}" \
            rpm --root "$root" --dbpath /var/lib/rpm --nodeps --install "$repository"/*.rpm || return 1
    done
}

# machine_make_repository LIST FOLDER: a yum repository of empty packages.
machine_make_repository() {
    local list=$1 folder=$2 work name version provides epoch
    work=$(mktemp -d)
    mkdir -p "$folder"
    while read -r name version provides; do
        [[ -n $name && $name != '#'* ]] || continue
        epoch=0
        [[ $version != *:* ]] || epoch=${version%%:*} version=${version#*:}
        cat >"$work/$name.spec" <<SPEC
Name: $name
Epoch: $epoch
Version: ${version%-*}
Release: ${version##*-}
Summary: A stand-in for $name, without any files
License: Apache-2.0
BuildArch: noarch
$(for provided in $provides; do echo "Provides: ${provided/=/ = }"; done)
%description
A stand-in for $name, without any files.
%files
SPEC
    done <"$list"
    rpmbuild --quiet -bb --define "_topdir $work" --define "_rpmdir $folder" \
        --define '_rpmfilename %{NAME}-%{VERSION}-%{RELEASE}.%{ARCH}.rpm' \
        --define '_binary_payload w6.gzdio' "$work"/*.spec || return 1
    createrepo_c --quiet "$folder" || return 1
    rm -rf "$work"
}

# shellcheck shell=bash disable=SC2154 # its variables cross files
# The container engine that stands in for Docker's static bundle: the programs of
# this distribution's docker.io, containerd, runc and tini packages, packed like
# docker-VERSION.tgz of Docker's download site. Sourced after tools.sh.

engine_programs=(
    docker dockerd docker-init docker-proxy
    containerd containerd-shim-runc-v2 ctr runc
)

# engine_archive: print the archive's path, made if it is not in the cache.
engine_archive() {
    local folder=$cache/engine packages=(docker.io containerd runc tini) work program version archive
    [[ -n $(apt-cache --quiet=0 policy docker.io 2>/dev/null) ]] ||
        quietly "refreshing apt's lists" as_root apt-get -qq update
    # Newer releases keep the command in a package of its own.
    ! apt-cache show docker-cli >/dev/null 2>&1 || packages+=(docker-cli)
    version=$(apt-cache policy docker.io | sed -n 's/^ *Candidate: *//p')
    version=${version%%[+~-]*}
    archive=$folder/docker-$version.tgz
    if [[ ! -s $archive ]]; then
        work=$(mktemp -d)
        quietly "fetching ${packages[*]} for the engine" engine_download "$work" "${packages[@]}" || return 1
        mkdir -p "$work/docker" "$folder"
        for program in "${engine_programs[@]}"; do
            # Links are resolved: docker-init is one to tini-static.
            cp --dereference "$(find "$work/unpacked" \( -path "*/bin/$program" -o -path "*/sbin/$program" \) \
                -print -quit)" "$work/docker/$program"
        done
        tar --create --gzip --owner=0 --group=0 --directory="$work" --file="$archive.partial" docker
        mv "$archive.partial" "$archive"
        rm -rf "$work"
    fi
    printf '%s\n' "$archive"
}

# Download packages and unpack them into WORK/unpacked, installing nothing.
engine_download() {
    local work=$1 package
    shift
    # apt reads the archives as its own user, who can't look into a private folder.
    chmod 0755 "$work"
    # Not while apt's lists are being refreshed.
    mkdir -p "$cache"
    (cd "$work" && flock --close "$cache/apt.lock" apt-get --quiet download "$@") || return 1
    for package in "$work"/*.deb; do
        dpkg-deb --extract "$package" "$work/unpacked" || return 1
    done
}

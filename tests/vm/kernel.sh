#!/usr/bin/env bash
# Makes a kernel that machines of our own boot, and prints its path: `kernel.sh uml-6.12`. User-mode Linux is built from Debian's
# kernel source with the configuration beside this script: some seventeen minutes of one processor each, once per version and
# configuration; the cache outlives the checkout.
set -euo pipefail
cd "$(dirname "$0")"

kernel=${1:?kernel.sh uml-6.12|uml-6.1}
cache=${GANTRY_VM_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/gantry-vm}
work=
trap 'rm -rf "$work"' EXIT
say() { echo "kernel.sh: $*" >&2; }

uml() { # uml SERIES
    local package=linux-source-$1 version key
    version=$(apt-cache policy "$package" | sed -n 's/^  Candidate: //p')
    [ -n "$version" ] && [ "$version" != "(none)" ] || { say "Debian has no package $package here (apt-get update?)"; exit 1; }
    key=$kernel-$version-$(sha256sum uml.config | cut -c1-12)
    [ -x "$cache/$key/linux" ] && { echo "$cache/$key/linux"; return; }
    say "building $key: some seventeen minutes of one processor"
    work=$(mktemp -d)
    (cd "$work" && apt-get -qq -o APT::Sandbox::User=root download "$package=$version" >&2 && dpkg-deb --fsys-tarfile ./*.deb | tar -x --wildcards './usr/src/*.tar.xz' -O | tar -xJ)
    cd "$work/$package"
    {
        make -s ARCH=um defconfig
        scripts/kconfig/merge_config.sh -m .config "$OLDPWD/uml.config"
        make -s ARCH=um olddefconfig
        make -s ARCH=um -j"$(nproc)" linux
    } >"$work/log" 2>&1 || { tail -30 "$work/log" >&2; exit 1; }
    strip linux
    # Whole or not at all: another run may be building the same.
    mkdir -p "$cache/$key.$$" && cp linux .config "$cache/$key.$$/"
    mv -T "$cache/$key.$$" "$cache/$key" 2>/dev/null || rm -rf "$cache/$key.$$"
    echo "$cache/$key/linux"
}

case $kernel in
uml-6.12 | uml-6.1) uml "${kernel#uml-}" ;;
*) say "no kernel is named $kernel"; exit 2 ;;
esac

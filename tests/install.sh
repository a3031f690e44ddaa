#!/usr/bin/env bash
# Installs what a build needs (and, with `tests`, what the tests need, or, with `bench`, the peers that benchmarks run) on Debian. Says what it does; changes nothing twice.
set -euo pipefail

build=(gcc pkg-config libseccomp-dev ca-certificates curl)
# busybox-static: the demo image; iproute2, nftables: to look at what we did; crun, runc, containerd, etcd-server: peers; docker-registry, skopeo: a real registry, and archives as another tool
# writes them; python3-kubernetes: a client; systemd: to be process 1 of a machine; flex to xz-utils: to build a kernel.
tests=(busybox-static iproute2 nftables crun runc containerd etcd-server docker-registry skopeo python3-kubernetes systemd procps git flex bison bc make xz-utils)

wanted=("${build[@]}" busybox-static)
[ "${1:-}" = tests ] && wanted=("${build[@]}" "${tests[@]}")
[ "${1:-}" = bench ] && wanted+=(crun runc containerd strace etcd-server nftables)
command -v kubectl >/dev/null || wanted+=(kubernetes-client)

missing=()
for package in "${wanted[@]}"; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ]; then
    echo "installing: ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    # A daemon that a package brings is not to be started by its installation.
    policy=/usr/sbin/policy-rc.d
    made_policy=
    [ -e $policy ] || { printf '#!/bin/sh\nexit 101\n' >$policy && chmod +x $policy && made_policy=yes; }
    trap '[ -z "$made_policy" ] || rm -f $policy' EXIT
    apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

# The stock kubectl of Debian 12 and of Debian 13, side by side: old clients speak otherwise than new ones.
tools=${XDG_CACHE_HOME:-$HOME/.cache}/gantry-tests
fetch_kubectl() { # fetch_kubectl SUITE PACKAGE NAME
    [ -x "$tools/$3" ] && return 0
    echo "fetching: kubectl of Debian's $1"
    local work
    work=$(mktemp -d)
    "$(dirname "$0")/unpack.sh" "$1" "$work" "$2"
    install -D -m 755 "$work/usr/bin/kubectl" "$tools/$3"
    rm -rf "$work"
}
# The etcd of Debian 13 beside the machine's own: one of the two tells its watches how far they are.
fetch_etcd() { # fetch_etcd SUITE NAME
    [ -x "$tools/$2" ] && return 0
    echo "fetching: etcd of Debian's $1"
    local work
    work=$(mktemp -d)
    "$(dirname "$0")/unpack.sh" "$1" "$work" etcd-server
    install -D -m 755 "$work/usr/bin/etcd" "$tools/$2"
    rm -rf "$work"
}
if [ "${1:-}" = tests ]; then
    fetch_etcd trixie etcd-3.5
    fetch_kubectl bookworm kubernetes-client kubectl-1.20
    fetch_kubectl trixie kubectl kubectl-1.32
fi

# The newest crun beside the machine's own.
if [ "${1:-}" = bench ] && [ ! -d "$tools/crun-trixie" ]; then
    echo "fetching: crun of Debian's trixie"
    "$(dirname "$0")/unpack.sh" trixie "$tools/crun-trixie.new" --depends crun
    mv "$tools/crun-trixie.new" "$tools/crun-trixie"
fi

if ! command -v cargo >/dev/null && [ ! -x "$HOME/.cargo/bin/cargo" ]; then
    echo "installing: the Rust toolchain of rust-toolchain.toml"
    curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y --profile minimal --default-toolchain none
fi

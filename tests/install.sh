#!/usr/bin/env bash
# Installs what a build needs (and, with `tests`, what the tests need) on Debian. Says what it does; changes nothing twice.
set -euo pipefail

build=(gcc pkg-config libseccomp-dev ca-certificates curl)
# busybox-static: the demo image; iproute2, nftables: to look at what we did; crun, runc, etcd-server: peers; docker-registry, skopeo: a real registry, and archives as another tool
# writes them; flex to xz-utils: to build a kernel.
tests=(busybox-static iproute2 nftables crun runc etcd-server docker-registry skopeo procps git flex bison bc make xz-utils)

wanted=("${build[@]}" busybox-static)
[ "${1:-}" = tests ] && wanted=("${build[@]}" "${tests[@]}")
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
    local suite=$1 package=$2 to=$tools/$3 work mirror options
    [ -x "$to" ] && return 0
    echo "fetching: kubectl of Debian's $suite"
    mirror=$(apt-get indextargets --format '$(ORIGIN)|$(COMPONENT)|$(REPO_URI)' 'Created-By: Packages' | sed -n 's/^Debian|main|//p' | grep -v security | head -1)
    work=$(mktemp -d)
    mkdir -p "$work/lists/partial" "$work/cache/archives/partial"
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main" >"$work/sources.list"
    # Lists and state of its own: what the machine has installed, or would prefer, has no say.
    options=(-qq -o "Dir::Etc::sourcelist=$work/sources.list" -o Dir::Etc::sourceparts=/dev/null -o Dir::State::status=/dev/null
        -o "Dir::State::lists=$work/lists" -o "Dir::Cache=$work/cache" -o APT::Sandbox::User=root -o Acquire::Languages=none
        -o Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled=false -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false)
    (cd "$work" && apt-get "${options[@]}" update && apt-get "${options[@]}" download "$package" && dpkg -x ./*.deb .)
    install -D -m 755 "$work/usr/bin/kubectl" "$to"
    rm -rf "$work"
}
if [ "${1:-}" = tests ]; then
    fetch_kubectl bookworm kubernetes-client kubectl-1.20
    fetch_kubectl trixie kubectl kubectl-1.32
fi

if ! command -v cargo >/dev/null && [ ! -x "$HOME/.cargo/bin/cargo" ]; then
    echo "installing: the Rust toolchain of rust-toolchain.toml"
    curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y --profile minimal --default-toolchain none
fi

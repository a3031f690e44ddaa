#!/bin/sh
# Runs the packed scenarios on this host, whichever distribution it is: `box.sh CLONE [NAME ...]`, as root, after `pack.sh` on the
# machine that built them. Of a host it wants a few programs to look with, and no compiler.
set -eu
clone=${1:?box.sh CLONE [NAME ...]}
shift
pack=$clone/target/pack

if command -v apt-get >/dev/null; then
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends busybox-static iproute2 nftables e2fsprogs >/dev/null
elif command -v dnf >/dev/null; then
    dnf install -y -q busybox iproute nftables e2fsprogs
elif command -v apk >/dev/null; then
    apk add -q busybox-static iproute2 nftables e2fsprogs
else
    echo "box.sh: neither apt-get, dnf nor apk is here" >&2
    exit 1
fi
# Where the tests look for the static one.
[ -x /bin/busybox.static ] && ln -sf busybox.static /bin/busybox
export XDG_CACHE_HOME="$pack/cache" PATH="$pack/cache/gantry-tests:$PATH"

passed=0 failed=
cd "$clone/tests"
for scenario in "$pack"/deps/*; do
    name=${scenario##*/}
    case " $* " in *" $name "* | "  ") ;; *) continue ;; esac
    echo "== $name on $(uname -sr)"
    if "$scenario"; then passed=$((passed + 1)); else failed="$failed $name"; fi
done
echo "scenarios: $passed passed, failed:${failed:- none}"
[ -z "$failed" ] && [ "$passed" -gt 0 ]

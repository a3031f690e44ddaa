#!/usr/bin/env bash
# The README's promise: the quickstart works, works again, and `uninstall` leaves the machine as it was.
set -euo pipefail
cd "$(dirname "$0")/.."

# What Gantry could leave behind: processes, mounts, namespaces, cgroups, links, routes, tables, files.
inventory() { # a part that is not there is an empty list, not a failure
    set +e +o pipefail
    echo "# processes"; ps -eo args= | grep -E '(^|/)gantry(-supervisor)?( |$)' | grep -v grep | sort || true
    echo "# mounts"; cut -d' ' -f2,3 /proc/self/mounts | sort
    echo "# links"; ip -o link show | awk -F': ' '{print $2}' | sort
    echo "# routes"; ip route show table all | grep -v ' lo ' | sort
    echo "# addresses"; ip -o addr show | awk '{print $2, $4}' | sort
    echo "# tables"; nft list tables 2>/dev/null | sort
    echo "# cgroups"; find /sys/fs/cgroup -maxdepth 4 -type d -path '*gantry*' | sort
    echo "# sysctls"; sysctl -n net.ipv4.ip_forward
    echo "# files"; find /var/lib /run /etc /var/log -maxdepth 2 -path '*gantry*' 2>/dev/null | sort
    find /var/log/pods /var/log/containers 2>/dev/null | sort
    true
}

bin=$(tests/build-release.sh demo_image)
before=$(mktemp) after=$(mktemp)
trap 'rm -f "$before" "$after"' EXIT
(inventory) >"$before"
finish() { "$bin/gantry" uninstall >/dev/null 2>&1 || true; }
trap 'finish; rm -f "$before" "$after"' EXIT

tests/quickstart.sh
tests/quickstart.sh
"$bin/gantry" uninstall
(inventory) >"$after"
diff -u "$before" "$after" || { echo "uninstall left something behind (or took something away)" >&2; exit 1; }
echo "uninstall left nothing"

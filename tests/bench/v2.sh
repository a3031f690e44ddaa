#!/usr/bin/env bash
# The runtime's benchmark in a machine of our own, which has cgroup v2 and nothing beside it: ours and the peers in one run.
#   tests/bench/v2.sh [KERNEL] [ARGUMENTS OF runtime_bench...]     by default uml-6.12
# Times are the machine's, and user-mode Linux takes several times as long as a processor does: the ratios count.
set -euo pipefail
cd "$(dirname "$0")/../.."

kernel=${1:-uml-6.12}
shift $(($# < 1 ? $# : 1))
built=$(realpath "$(tests/build-release.sh demo_image runtime_bench vm)")
in_machine='
    set -euo pipefail
    built=$1
    shift
    "$built/demo_image" /tmp/demo.tar
    "$built/gantry" runtime --pod-cidr 10.244.0.0/24 >/tmp/runtime.log 2>&1 &
    runtime=$!
    until "$built/gantry" image import /tmp/demo.tar >/dev/null 2>&1; do
        kill -0 $runtime || { cat /tmp/runtime.log; exit 1; }
        sleep 0.1
    done
    "$built/runtime_bench" --image gantry.local/demo:1 "$@"
'
exec "$built/vm" shell --on "$kernel" -- bash -c "$in_machine" v2 "$built" "$@"

#!/usr/bin/env bash
# Benches another commit and this checkout in turns, on one machine and in one run, and prints both with their ratio.
#   tests/bench/against.sh COMMIT [ROUNDS] [BENCH ARGUMENTS...]     by default three rounds of `pods`
# Needs root and a quiet machine; nothing of Gantry may run on it. The other commit has a target folder of its own, target/against:
# in one, cargo would take the crates of either checkout for the other's.
set -euo pipefail
cd "$(dirname "$0")/../.."

commit=$(git rev-parse --verify "${1:?which commit}^{commit}")
rounds=${2:-3}
shift $(($# < 2 ? $# : 2))
what=("${@:-pods}")
image=gantry.local/demo:1
work=$(mktemp -d)
results=$work/results
trap 'git worktree remove --force "$work/before"; rm -rf "$work"' EXIT

git worktree add --quiet --detach "$work/before" "$commit"
echo "building ${commit:0:12} and this checkout"
build() { # build NAME CHECKOUT TARGET
    local built
    built=$(cd "$2" && CARGO_TARGET_DIR=$3 tests/build-release.sh bench demo_image)
    mkdir "$work/bin-$1"
    cp "$built"/{gantry,gantry-supervisor,bench,demo_image} "$work/bin-$1"
}
target=$(realpath -m target)
build before "$work/before" "$target/against"
build now . "$target"
"$work/bin-now/demo_image" "$work/demo.tar"

bench() { # bench NAME: one round, its lines as NAME, label and number
    local bin=$work/bin-$1
    # Eviction would take what a benchmark needs from a disk that is nearly full.
    "$bin/gantry" up --detach --eviction-hard 'memory.available<100Mi,nodefs.available<1%,imagefs.available<1%' \
        --image-gc-high-threshold 100 >/dev/null
    "$bin/gantry" image import "$work/demo.tar" >/dev/null
    KUBECONFIG=/etc/gantry/admin.kubeconfig "$bin/bench" "${what[@]}" --image $image >"$work/out" || { cat "$work/out"; exit 1; }
    "$bin/gantry" uninstall --grace 0 >/dev/null 2>&1
    awk -F '  +' -v name="$1" -v OFS='\t' '{
        for (i = 2; i <= NF; i++) if ($i ~ /^[0-9]/) { split($i, number, " "); print name, $1, number[1], number[2]; break }
    }' "$work/out" >>"$results"
}

for round in $(seq "$rounds"); do
    echo "round $round of $rounds"
    bench before
    bench now
done

# The best of the rounds: what else ran on the machine only ever adds.
awk -F '\t' '
    !($2 in seen) { seen[$2] = 1; order[++count] = $2; unit[$2] = $4 }
    !(($1, $2) in best) || $3 < best[$1, $2] { best[$1, $2] = $3 }
    END {
        printf "%-48s %12s %12s %8s\n", "best of the rounds", "before", "now", "ratio"
        for (i = 1; i <= count; i++) {
            label = order[i]; b = best["before", label]; n = best["now", label]
            printf "%-48s %12s %12s %8s %s\n", label, b, n, (b > 0 && n != "") ? sprintf("%.2f", n / b) : "-", unit[label]
        }
    }' "$results"

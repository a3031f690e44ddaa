#!/usr/bin/env bash
# libFuzzer over one target of tests/src/fuzz.rs, from its seeds and from what earlier runs found.
#   tests/fuzz.sh TARGET [SECONDS]      a minute, or as long as is said (0: until it is stopped)
#   tests/fuzz.sh TARGET replay FILE    one input again
#   tests/fuzz.sh TARGET keep           the best of what was found, small, into tests/corpus
set -euo pipefail
cd "$(dirname "$0")/.."
usage() { sed -n '2,5s/^# *//p' "$0" >&2; exit 2; }
target=${1:-}
[ -n "$target" ] || usage
seconds=${2:-60}

host=$(rustc -vV | sed -n 's/^host: //p')
# What instruments the code on a stable compiler; a target of its own keeps it away from build scripts and macros.
export RUSTFLAGS="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing"
# Quick code that still knows an overflow when it sees one.
export CARGO_PROFILE_RELEASE_OPT_LEVEL=2 CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16
export CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS=true CARGO_PROFILE_RELEASE_OVERFLOW_CHECKS=true
cargo build --quiet --release --target "$host" --target-dir target/fuzz -p gantry-tests --bin fuzz --features fuzz

export GANTRY_FUZZ_TARGET=$target RUST_BACKTRACE=1
corpus=target/fuzz-corpus/$target
kept=tests/corpus/$target
crashes=target/fuzz-crashes/$target
scratch=$(mktemp -d -p "$([ -w /dev/shm ] && echo /dev/shm || echo "${TMPDIR:-/tmp}")")
trap 'rm -rf "$scratch"' EXIT
export TMPDIR=$scratch
mkdir -p "$corpus" "$crashes" "$kept"
run() { "target/fuzz/$host/release/fuzz" -timeout=10 -rss_limit_mb=1024 "$@"; }

if [ "$seconds" = replay ]; then
    run "${3:?the file of the input}"
    exit
fi
if [ "$seconds" = keep ]; then
    # What reaches the same by fewer bytes is taken, and nothing long: the test mutates what is short.
    run -merge=1 -max_len=512 -verbosity=0 "$kept" "$corpus"
    # Seeds are longer, and come anyway. Names are hashes: the first of them are any of them.
    find "$kept" -type f -size +2047c -delete
    find "$kept" -type f | sort | tail -n +121 | xargs -r rm
    exit
fi
if ! run -max_total_time="$seconds" -max_len=16384 -use_value_profile=1 -verbosity=0 -print_final_stats=1 \
    -artifact_prefix="$crashes/" "$corpus" "$kept"; then
    newest=$(find "$crashes" -type f -printf '%T@ %p\n' | sort -n | tail -1 | cut -d' ' -f2-)
    [ -z "$newest" ] || echo "$newest: $(od -An -v -tx1 "$newest" | tr -d ' \n')" >&2
    exit 1
fi

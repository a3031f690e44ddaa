#!/usr/bin/env bash
# Installs what the tests need and runs every check and every test. As root: containers are real here. `run.sh --full` runs every
# machine of ours too, three quarters of an hour more, and fuzzes and soaks for longer.
set -euo pipefail
cd "$(dirname "$0")/.."
[ "$(id -u)" = 0 ] || { echo "run.sh: run it as root (sudo tests/run.sh): the tests make namespaces, mounts and cgroups" >&2; exit 1; }

tests/install.sh tests
export PATH="$HOME/.cargo/bin:$PATH"
started=$SECONDS
step() { printf '\n== %s (after %d s)\n' "$*" $((SECONDS - started)); }

step "Format"
cargo fmt --all --check
step "Lints"
cargo clippy --quiet --workspace --all-targets -- -D warnings
# Both in one build: the tests' own dependencies switch features on, for which all would be built twice.
step "Programs and tests"
cargo build --quiet --workspace --bins --tests
step "Tests. Beside them, and told of after them: the release build, and on cgroup v2 (user-mode Linux) those that look at their host"
# Tests wait more than they work; what steps back for them costs them little.
told=$(mktemp)
(
    renice -n 10 "$BASHPID" >/dev/null
    tests/build-release.sh demo_image vm
    exec "${CARGO_TARGET_DIR:-target}/debug/vm" all --on uml-6.12 "$@"
) >"$told" 2>&1 &
beside=$!
trap 'kill "$beside" 2>/dev/null || true; rm -f "$told"' EXIT
failed=0
# Beyond a fixed number of rounds, each format that the runtime reads has its seconds; by hand tests/fuzz.sh takes as many as it is given.
export GANTRY_FUZZ_SECONDS=10
if [ "${1:-}" = --full ]; then
    export GANTRY_FUZZ_SECONDS=60 GANTRY_SOAK_PODS=1000 GANTRY_SOAK_AT_ONCE=1000 GANTRY_SOAK_ABORTS=10000
fi
# By targets: no comment has a test in it, and looking for one in each crate takes a while.
cargo test --workspace --all-targets --no-fail-fast || failed=1
step "What ran beside them"
wait "$beside" || failed=1
cat "$told"
[ "$failed" = 0 ] || exit 1
step "Quickstart, twice, and uninstall"
tests/quickstart-twice.sh
step "Done"

#!/usr/bin/env bash
# Installs what the tests need and runs every check and every test. As root: containers are real here.
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
step "Tests"
cargo test --workspace --no-fail-fast
step "The tests that look at their host again, on cgroup v2: user-mode Linux"
"${CARGO_TARGET_DIR:-target}/debug/vm" all --on uml-6.12
step "Quickstart, twice, and uninstall"
tests/quickstart-twice.sh
step "Done"

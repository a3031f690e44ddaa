#!/usr/bin/env bash
# Builds the scenarios and the programs that they start, static, for hosts of any distribution, and lays them in target/pack.
set -euo pipefail
cd "$(dirname "$0")/../../.."

tests/install.sh tests
host=$(rustc -vV | sed -n 's/^host: //p')
export CARGO_BUILD_TARGET=$host RUSTFLAGS="-C target-feature=+crt-static -C relocation-model=static"
LIBSECCOMP_LIB_PATH=$(pkg-config --variable=libdir libseccomp)
export LIBSECCOMP_LIB_PATH LIBSECCOMP_LINK_TYPE=static
cargo build --quiet --workspace --bins --tests
"${CARGO_TARGET_DIR:-target}/$host/debug/vm" pack target/pack
tools=${XDG_CACHE_HOME:-$HOME/.cache}/gantry-tests
install -D -t target/pack/cache/gantry-tests "$tools"/kubectl-*
ln -sf kubectl-1.32 target/pack/cache/gantry-tests/kubectl

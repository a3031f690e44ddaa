#!/usr/bin/env bash
# Builds `gantry`, `gantry-supervisor` and any other program named (`build-release.sh bench demo_image`) as they ship: static, so that a host needs nothing but a kernel, and at fixed addresses,
# so that no page of a program is written to by its start: pods' supervisors share them all. Prints the folder.
set -euo pipefail
cd "$(dirname "$0")/.."

host=$(rustc -vV | sed -n 's/^host: //p')
flags=CARGO_TARGET_$(tr a-z- A-Z_ <<<"$host")_RUSTFLAGS
export "$flags=-C target-feature=+crt-static -C relocation-model=static"
LIBSECCOMP_LIB_PATH=$(pkg-config --variable=libdir libseccomp)
export LIBSECCOMP_LIB_PATH LIBSECCOMP_LINK_TYPE=static
# With a target of its own, what runs only while building (macros, build scripts) is built as usual. One build for all: what two
# builds share, they would otherwise build twice, for features that differ.
cargo build --quiet --release --target "$host" --workspace $(printf -- '--bin %s ' gantry gantry-supervisor "$@") >&2
# What the tests have of their own in a build with debug assertions (proto/base/src/fault.rs) is not shipped.
for program in gantry gantry-supervisor; do
    ! grep -q GANTRY_TEST_ "${CARGO_TARGET_DIR:-target}/$host/release/$program" || { echo "$program knows of orders that only tests give" >&2; exit 1; }
done
echo "${CARGO_TARGET_DIR:-target}/$host/release"

#!/usr/bin/env bash
# Unpacks packages of a Debian suite into FOLDER and installs nothing: `unpack.sh SUITE FOLDER [--depends] PACKAGE ...`. With
# --depends come those that they need, so that programs run from FOLDER with the libraries beside them.
set -euo pipefail
suite=$1 folder=$2
shift 2
depends=
[ "$1" = --depends ] && { depends=yes && shift; }

mirror=$(apt-get indextargets --format '$(ORIGIN)|$(COMPONENT)|$(REPO_URI)' 'Created-By: Packages' | sed -n 's/^Debian|main|//p' | grep -v security | head -1)
[ -n "$mirror" ] || { echo "unpack.sh: apt knows of no Debian archive here" >&2; exit 1; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/lists/partial" "$work/cache/archives/partial" "$folder"
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main" >"$work/sources.list"
# Lists and state of its own: what the machine has installed, or would prefer, has no say.
options=(-qq -o "Dir::Etc::sourcelist=$work/sources.list" -o Dir::Etc::sourceparts=/dev/null -o Dir::Etc::preferencesparts=/dev/null
    -o Dir::State::status=/dev/null -o "Dir::State::lists=$work/lists" -o "Dir::Cache=$work/cache" -o APT::Sandbox::User=root
    -o Acquire::Languages=none -o Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled=false
    -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false)
apt-get "${options[@]}" update
# A name that stands for another (linux-image-amd64) has nothing in it but what it depends on.
packages=()
for package in "$@"; do
    real=$(apt-cache "${options[@]}" depends "$package" | sed -n 's/^  Depends: \(linux-image-[0-9].*\)/\1/p' | head -1)
    packages+=("${real:-$package}")
done
if [ -n "$depends" ]; then
    apt-get "${options[@]}" -y --download-only --no-install-recommends install "${packages[@]}" >&2
else
    (cd "$work/cache/archives" && apt-get "${options[@]}" download "${packages[@]}") >&2
fi
for package in "$work"/cache/archives/*.deb; do
    dpkg -x "$package" "$folder"
done

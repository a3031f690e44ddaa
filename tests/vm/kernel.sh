#!/usr/bin/env bash
# Makes a kernel that machines of our own boot, and prints its path: `kernel.sh uml-6.12`. User-mode Linux is built from Debian's
# kernel source with the configuration beside this script: some seventeen minutes of one processor each, once per version and
# configuration. For QEMU a kernel of Debian's is unpacked, and QEMU itself: half a minute. The cache outlives the checkout.
set -euo pipefail
cd "$(dirname "$0")"

kernel=${1:?kernel.sh uml-6.12|uml-6.1|qemu-6.12|qemu-6.12-cloud|qemu-6.1}
cache=${GANTRY_VM_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/gantry-vm}
work=
trap 'rm -rf "$work"' EXIT
say() { echo "kernel.sh: $*" >&2; }

uml() { # uml SERIES
    local package=linux-source-$1 version key
    version=$(apt-cache policy "$package" | sed -n 's/^  Candidate: //p')
    [ -n "$version" ] && [ "$version" != "(none)" ] || { say "Debian has no package $package here (apt-get update?)"; exit 1; }
    key=$kernel-$version-$(cat uml.config uml-mend.sh uml-xstate.h | sha256sum | cut -c1-12)
    [ -x "$cache/$key/linux" ] && { echo "$cache/$key/linux"; return; }
    say "building $key: some seventeen minutes of one processor"
    work=$(mktemp -d)
    (cd "$work" && apt-get -qq -o APT::Sandbox::User=root download "$package=$version" >&2 && dpkg-deb --fsys-tarfile ./*.deb | tar -x --wildcards './usr/src/*.tar.xz' -O | tar -xJ)
    ./uml-mend.sh "$work/$package"
    cd "$work/$package"
    {
        make -s ARCH=um defconfig
        scripts/kconfig/merge_config.sh -m .config "$OLDPWD/uml.config"
        make -s ARCH=um olddefconfig
        make -s ARCH=um -j"$(nproc)" linux
    } >"$work/log" 2>&1 || { tail -30 "$work/log" >&2; exit 1; }
    strip linux
    mkdir "$work/made" && cp linux .config "$work/made/"
    keep "$work/made" "$cache/$key"
    echo "$cache/$key/linux"
}

# What Gantry, its tests and the machine's root need of what Debian does not build in, and what these need. The checksum first: the
# kernel asks for it by name when others are loaded.
modules=(crc32c_generic virtio_pci virtiofs overlay ext4 nbd loop veth bridge br_netfilter vxlan dummy tun macvlan ipvlan nf_conntrack nf_conntrack_netlink
    nf_nat nf_tables nft_chain_nat nft_ct nft_nat nft_masq nft_redir nft_reject_inet nft_fib_inet nft_numgen nft_hash nft_limit nft_log nft_quota
    nft_connlimit nft_socket nft_tproxy nft_synproxy nft_flow_offload nf_flow_table_inet)

qemu() { # qemu SUITE PACKAGE
    local key program release tree found
    key=$kernel-$(cat kernel.sh ../unpack.sh | sha256sum | cut -c1-12)
    program=qemu-$(sha256sum ../unpack.sh | cut -c1-12)
    [ -e "$cache/$key/vmlinux" ] && { echo "$cache/$key/vmlinux"; return; }
    say "unpacking $key"
    work=$(mktemp -d)
    ../unpack.sh "$1" "$work/kernel" "$2"
    release=$(ls "$work/kernel/boot" | sed -n 's/^vmlinuz-//p')
    mkdir -p "$work/$key" "$work/root/bin" "$work/root/proc" "$work/root/host"
    # Uncompressed it boots ten seconds sooner: the compressed kernel is somewhere in the file that a boot loader would read.
    for magic in '\x28\xb5\x2f\xfd:zstd' '\xfd7zXZ\x00:xz'; do
        for found in $(LC_ALL=C grep -obUaP "${magic%:*}" "$work/kernel/boot/vmlinuz-$release" | cut -d: -f1); do
            tail -c +$((found + 1)) "$work/kernel/boot/vmlinuz-$release" | "${magic#*:}" -dcq >"$work/$key/vmlinux" 2>/dev/null || true
            [ "$(head -c 4 "$work/$key/vmlinux" | tail -c 3)" = ELF ] && break 2
        done
    done
    [ "$(head -c 4 "$work/$key/vmlinux" | tail -c 3)" = ELF ] || { say "no kernel was found in vmlinuz-$release"; exit 1; }
    tree=$(find "$work/kernel" -type d -path "*/modules/$release" | head -1)
    find "$tree" -name '*.ko.xz' -print0 | xargs -0 -r -n 200 xz -d
    mkdir -p "$work/all/lib/modules" "$work/root/lib/modules/$release"
    mv "$tree" "$work/all/lib/modules/"
    busybox depmod -b "$work/all" "$release"
    (
        cd "$work/all/lib/modules/$release"
        awk -v wanted="${modules[*]}" '
            { path = $1; sub(/:$/, "", path); name = path; sub(/.*\//, "", name); sub(/\.ko$/, "", name); gsub(/-/, "_", name)
              at[name] = path; needs[path] = $0; sub(/^[^:]*: */, "", needs[path]) }
            END { count = split(wanted, list, " ")
                  for (i = 1; i <= count; i++) if (list[i] in at) print at[list[i]], needs[at[list[i]]] }' modules.dep |
            tr ' ' '\n' | sed '/^$/d' | sort -u | xargs cp --parents -t "$work/root/lib/modules/$release"
        cp modules.builtin modules.order "$work/root/lib/modules/$release"
    )
    busybox depmod -b "$work/root" "$release"
    cp /bin/busybox "$work/root/bin/"
    cat >"$work/root/init" <<-END
	#!/bin/busybox sh
	/bin/busybox mount -t proc proc /proc
	for module in ${modules[*]}; do /bin/busybox modprobe -q \$module; done
	/bin/busybox mount -t virtiofs -o ro host /host
	/bin/busybox umount /proc
	exec /bin/busybox switch_root /host "\$@"
	END
    chmod +x "$work/root/init"
    (cd "$work/root" && find . | busybox cpio -o -H newc 2>/dev/null | gzip -1) >"$work/$key/initrd"
    if [ ! -d "$cache/$program" ]; then
        ../unpack.sh trixie "$work/qemu" --depends qemu-system-x86 virtiofsd
        keep "$work/qemu" "$cache/$program"
    fi
    ln -s "../$program" "$work/$key/qemu"
    keep "$work/$key" "$cache/$key"
    echo "$cache/$key/vmlinux"
}

# Whole or not at all: another run may be making the same.
keep() { # keep FOLDER AS
    mkdir -p "$cache"
    cp -a "$1" "$2.$$"
    mv -T "$2.$$" "$2" 2>/dev/null || rm -rf "$2.$$"
}

case $kernel in
uml-6.12 | uml-6.1) uml "${kernel#uml-}" ;;
qemu-6.12) qemu trixie linux-image-amd64 ;;
qemu-6.12-cloud) qemu trixie linux-image-cloud-amd64 ;;
qemu-6.1) qemu bookworm linux-image-amd64 ;;
*) say "no kernel is named $kernel"; exit 2 ;;
esac

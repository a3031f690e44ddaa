#!/usr/bin/env bash
# Boots a machine of QEMU with the host's tree as its root, which it cannot write to: `qemu.sh KERNEL SCRATCH SHARED MIB INIT ARGUMENT ...`.
# KERNEL is what kernel.sh printed. Ends with the machine; whoever kills its process group kills all of it.
set -euo pipefail
kernel=$(dirname "$1") scratch=$2 shared=$3 mib=$4
shift 4
root=$kernel/qemu
# A program of another suite, with the libraries beside it.
run() { "$root/usr/lib64/ld-linux-x86-64.so.2" --library-path "$root/usr/lib/x86_64-linux-gnu" "$@"; }

arguments=()
share() { # share TAG FOLDER OPTION ...
    local socket=$scratch/$1
    run "$root/usr/libexec/virtiofsd" --socket-path "$socket" --shared-dir "$2" --sandbox none --log-level error "${@:3}" &
    until [ -S "$socket" ]; do sleep 0.02; done
    arguments+=(-chardev "socket,id=$1,path=$socket" -device "vhost-user-fs-pci,chardev=$1,tag=$1")
}
share host / --cache auto --readonly
share shared "$shared" --cache never

run "$root/usr/bin/qemu-system-x86_64" -L "$root/usr/share/qemu" -L "$root/usr/share/seabios" \
    -machine q35,memory-backend=memory -object "memory-backend-memfd,id=memory,size=${mib}M,share=on" -m "$mib" \
    -accel tcg,thread=multi -cpu max -smp 2 -nodefaults -no-reboot -display none -serial stdio \
    -kernel "$kernel/vmlinux" -initrd "$kernel/initrd" "${arguments[@]}" \
    -append "console=ttyS0 mitigations=off quiet panic=-1 hugepages=16 -- $*"

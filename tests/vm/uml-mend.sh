#!/usr/bin/env bash
# Mends what user-mode Linux 6.12 and below does not survive here, in a kernel's source tree: `uml-mend.sh TREE`.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cd "$1"

# On hosts with AMX no process would start: see uml-xstate.h.
cp "$here/uml-xstate.h" arch/x86/um/os-Linux/
sed -i -e 's/ptrace(\(PTRACE_[GS]ETREGSET\), pid, NT_X86_XSTATE, /whole_xstate(\1, pid, /' \
    -e 's/#include <registers.h>/&\n#include "uml-xstate.h"/' arch/x86/um/os-Linux/registers.c
grep -q 'whole_xstate(PTRACE_SETREGSET' arch/x86/um/os-Linux/registers.c

# A fork that a signal cuts short leaves a mark among the mappings that it has copied (6.8 and later), which is none itself: the
# kernel panicked over it whenever a process was killed while it forked.
sed -i 's/um_tlb_mark_sync(mm, vma->vm_start/if (!xa_is_zero(vma)) &/' arch/um/kernel/tlb.c

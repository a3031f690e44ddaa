/*
 * User-mode Linux up to 6.12 has room for 2696 bytes of a process's vector state and hands as many back to its host. A host takes
 * back the whole or nothing, and one with AMX has 11008 bytes: no machine would boot there. What is beyond the first 2696 belongs to
 * units that a process has to ask for by a call that no machine of ours has; it is empty.
 */
#include <string.h>

static long whole_xstate(int request, int pid, struct iovec *part)
{
	static unsigned char whole[1 << 16];
	static size_t size;
	struct iovec all = { .iov_base = whole, .iov_len = sizeof(whole) };
	size_t known = part->iov_len < size ? part->iov_len : size;
	long result;

	if (request == PTRACE_SETREGSET) {
		memset(whole, 0, size);
		memcpy(whole, part->iov_base, known);
		all.iov_len = size;
		return ptrace(request, pid, NT_X86_XSTATE, &all);
	}
	result = ptrace(request, pid, NT_X86_XSTATE, &all);
	if (result == 0) {
		size = all.iov_len;
		part->iov_len = part->iov_len < size ? part->iov_len : size;
		memcpy(part->iov_base, whole, part->iov_len);
	}
	return result;
}

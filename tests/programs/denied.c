/* denied WHAT ERRNO COMMAND...: runs a command in a sandbox that answers some system calls with an error:
 * "pidfd" (pidfd_open, pidfd_send_signal), "ofd" (locks of open file descriptions), "sleep" (clock_nanosleep and waits on a
 * futex until a time), "kernel-4.14" (ERRNO for calls that Linux 4.14 did not have, and that kernel's own answers to options
 * that came later). */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/futex.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define LOAD(field) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
#define SKIP_UNLESS(value, steps) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, 0, steps)
#define SKIP_UNLESS_ABOVE(value, steps) BPF_JUMP(BPF_JMP | BPF_JGT | BPF_K, value, 0, steps)
#define ALLOW BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)
#define FAIL(code) BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (code))
#define DENY FAIL(error)
#define DENY_CALL(number) LOAD(nr), SKIP_UNLESS(number, 1), DENY
/* The second argument is one of those values. */
#define DENY_WITH(number, value) LOAD(nr), SKIP_UNLESS(number, 3), LOAD(args[1]), SKIP_UNLESS(value, 1), DENY
/* An argument is larger than any that the old kernel knew, or has bits that it did not know. */
#define FAIL_ABOVE(number, argument, most, code) \
    LOAD(nr), SKIP_UNLESS(number, 3), LOAD(args[argument]), SKIP_UNLESS_ABOVE(most, 1), FAIL(code)
#define FAIL_WITH_BITS(number, argument, bits, code) \
    LOAD(nr), SKIP_UNLESS(number, 3), LOAD(args[argument]), BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, bits, 0, 1), FAIL(code)
/* The same as the first, but for arguments from `except` on, which are older. */
#define FAIL_BETWEEN(number, argument, most, except, code) \
    LOAD(nr), SKIP_UNLESS(number, 4), LOAD(args[argument]), BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, except, 2, 0), \
        SKIP_UNLESS_ABOVE(most, 1), FAIL(code)

#define SANDBOX(code) sandbox(code, sizeof(code) / sizeof *(code))

static int sandbox(struct sock_filter *code, unsigned short length)
{
    struct sock_fprog program = { length, code };
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
}

static int deny(const char *what, unsigned error)
{
    struct sock_filter pidfd[] = { DENY_CALL(SYS_pidfd_open), DENY_CALL(SYS_pidfd_send_signal), ALLOW };
    struct sock_filter ofd[] = { DENY_WITH(SYS_fcntl, F_OFD_GETLK), DENY_WITH(SYS_fcntl, F_OFD_SETLK),
                                 DENY_WITH(SYS_fcntl, F_OFD_SETLKW), ALLOW };
    struct sock_filter sleep[] = { DENY_CALL(SYS_clock_nanosleep), DENY_WITH(SYS_futex, FUTEX_WAIT_BITSET), ALLOW };
    struct sock_filter kernel[] = {
        /* statx was its newest call, and later ones have larger numbers. */
        LOAD(nr), SKIP_UNLESS_ABOVE(SYS_statx, 1), DENY,
        /* MADV_WIPEONFORK and MADV_KEEPONFORK were the newest. */
        FAIL_BETWEEN(SYS_madvise, 2, 19, 100, EINVAL),
        /* PR_CAP_AMBIENT was the newest; PR_SET_PTRACER is older. */
        FAIL_BETWEEN(SYS_prctl, 0, 47, 0x59616d61, EINVAL),
        FAIL_ABOVE(SYS_membarrier, 0, 16, EINVAL),
        /* FUTEX_CMP_REQUEUE_PI was the newest; FUTEX_PRIVATE_FLAG and FUTEX_CLOCK_REALTIME are bits beside the command. */
        FAIL_WITH_BITS(SYS_futex, 1, ~(unsigned)(15 | FUTEX_PRIVATE_FLAG | FUTEX_CLOCK_REALTIME), ENOSYS),
        DENY_WITH(SYS_futex, 13), DENY_WITH(SYS_futex, 13 | FUTEX_PRIVATE_FLAG),
        /* MFD_NOEXEC_SEAL and MFD_EXEC, GRND_INSECURE, MREMAP_DONTUNMAP. */
        FAIL_WITH_BITS(SYS_memfd_create, 1, 0x18, EINVAL),
        FAIL_WITH_BITS(SYS_getrandom, 2, 4, EINVAL),
        FAIL_WITH_BITS(SYS_mremap, 3, 4, EINVAL),
        /* MAP_SHARED_VALIDATE. */
        LOAD(nr), SKIP_UNLESS(SYS_mmap, 4), LOAD(args[3]), BPF_STMT(BPF_ALU | BPF_AND | BPF_K, 15),
        SKIP_UNLESS(3, 1), FAIL(EINVAL),
        ALLOW
    };
    if (strcmp(what, "pidfd") == 0)
        return SANDBOX(pidfd);
    if (strcmp(what, "ofd") == 0)
        return SANDBOX(ofd);
    if (strcmp(what, "sleep") == 0)
        return SANDBOX(sleep);
    if (strcmp(what, "kernel-4.14") == 0)
        return SANDBOX(kernel);
    fprintf(stderr, "denied: what is %s?\n", what);
    exit(2);
}

int main(int argc, char **argv)
{
    if (argc < 4)
        return 2;
    if (deny(argv[1], (unsigned)atoi(argv[2]))) {
        perror("seccomp");
        return 77;
    }
    execvp(argv[3], argv + 3);
    perror(argv[3]);
    return 127;
}

/* denied WHAT ERRNO COMMAND...: runs a command in a sandbox that answers some system calls with an error:
 * "pidfd" (pidfd_open, pidfd_send_signal), "ofd" (locks of open file descriptions), "sleep" (clock_nanosleep and waits on a
 * futex until a time). */
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
#define ALLOW BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)
#define DENY BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | error)
#define DENY_CALL(number) LOAD(nr), SKIP_UNLESS(number, 1), DENY
/* The second argument is one of those values. */
#define DENY_WITH(number, value) LOAD(nr), SKIP_UNLESS(number, 3), LOAD(args[1]), SKIP_UNLESS(value, 1), DENY

static int sandbox(struct sock_filter *code, unsigned short length)
{
    struct sock_fprog program = { length, code };
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
}

int main(int argc, char **argv)
{
    if (argc < 4)
        return 2;
    unsigned error = (unsigned)atoi(argv[2]);
    struct sock_filter pidfd[] = { DENY_CALL(SYS_pidfd_open), DENY_CALL(SYS_pidfd_send_signal), ALLOW };
    struct sock_filter ofd[] = { DENY_WITH(SYS_fcntl, F_OFD_GETLK), DENY_WITH(SYS_fcntl, F_OFD_SETLK),
                                 DENY_WITH(SYS_fcntl, F_OFD_SETLKW), ALLOW };
    struct sock_filter sleep[] = { DENY_CALL(SYS_clock_nanosleep), DENY_WITH(SYS_futex, FUTEX_WAIT_BITSET), ALLOW };
    int failed = strcmp(argv[1], "pidfd") == 0 ? sandbox(pidfd, sizeof pidfd / sizeof *pidfd)
               : strcmp(argv[1], "ofd") == 0   ? sandbox(ofd, sizeof ofd / sizeof *ofd)
                                               : sandbox(sleep, sizeof sleep / sizeof *sleep);
    if (failed) {
        perror("seccomp");
        return 77;
    }
    execvp(argv[3], argv + 3);
    perror(argv[3]);
    return 127;
}

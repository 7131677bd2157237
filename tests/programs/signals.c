/* A JVM-like signal user: an alternate stack, a SIGSEGV handler that recovers, SIGUSR1/2 and SIGPROF for
 * itself, a blocked mask. All must be as it left them after it has worked with the driver. */
#include <setjmp.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include "common.h"

static sigjmp_buf recover;
static volatile sig_atomic_t hits, on_own_stack;
static char own_stack[64 << 10];

static void handler(int number, siginfo_t *info, void *machine)
{
    char here;
    (void)info, (void)machine;
    hits++;
    on_own_stack += &here >= own_stack && &here < own_stack + sizeof own_stack;
    if (number == SIGSEGV)
        siglongjmp(recover, 1);
}

int main(void)
{
    static const int numbers[] = { SIGSEGV, SIGUSR1, SIGUSR2, SIGPROF };
    struct sigaction mine = { .sa_sigaction = handler, .sa_flags = SA_SIGINFO | SA_ONSTACK }, now;
    stack_t stack = { .ss_sp = own_stack, .ss_size = sizeof own_stack }, stack_now;
    sigset_t mask, mask_now;
    volatile char *poison = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CUdeviceptr memory;

    must(sigaltstack(&stack, NULL));
    for (int i = 0; i < 4; i++)
        must(sigaction(numbers[i], &mine, NULL));
    sigemptyset(&mask);
    sigaddset(&mask, SIGWINCH);
    must(pthread_sigmask(SIG_SETMASK, &mask, NULL));
    mode_t creation = umask(027);

    open_device();
    must(cuMemAlloc(&memory, 64 * MIB));
    errno = 4242;
    must(cuMemFree(memory));
    say("errno_kept", errno == 4242);
    CUdeviceptr more;
    size_t left, total;
    must(cuMemGetInfo(&left, &total));
    errno = 4242;
    say("over", cuMemAlloc(&more, total + 1));
    say("umask_kept", umask(creation) == 027);

    if (sigsetjmp(recover, 1) == 0)
        *poison = 1;
    for (int i = 1; i < 4; i++)
        raise(numbers[i]);
    say("hits", hits);
    say("own_stack", on_own_stack);
    int kept = 1;
    for (int i = 0; i < 4; i++)
        kept &= sigaction(numbers[i], NULL, &now) == 0 && now.sa_sigaction == handler && (now.sa_flags & mine.sa_flags) == mine.sa_flags;
    say("handlers_kept", kept);
    sigaltstack(NULL, &stack_now);
    pthread_sigmask(SIG_SETMASK, NULL, &mask_now);
    say("stack_kept", stack_now.ss_sp == own_stack);
    say("mask_kept", sigismember(&mask_now, SIGWINCH) == 1 && sigismember(&mask_now, SIGUSR1) == 0);
    return 0;
}

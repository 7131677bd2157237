/* Threads that leave a call of the driver without a return, and signal handlers amid one, on the driver of
 * `drivers/other.c`: it calls the program back in the middle of an allocation. After each the slice must be the slice, the
 * cap must hold, and every call must return.
 *
 *     leaves HOW    jump, deep_jump, handler, own_stack, cancel, first_call, jumps, handlers, cancels */
#include <setjmp.h>
#include <sys/time.h>
#include "common.h"

static sigjmp_buf back;
static void (*calls_back)(void (*)(void));
static size_t (*figure)(void);
static CUcontext context;
static volatile long nested_rc = -1, nested_allocations, jumps, stop;
static CUdeviceptr nested[8];
static char own_stack[64 << 10];

/* What the books say, and what the driver says. */
static void books(void)
{
    size_t left, total;
    must(cuMemGetInfo(&left, &total));
    printf("total=%zu\ncharged=%zu\nheld=%zu\n", total, total - left, figure());
    fflush(stdout);
}

/* All that is left can be had, no more, and it comes back. */
static void fill_up(void)
{
    size_t left, total;
    CUdeviceptr all, over;
    must(cuMemGetInfo(&left, &total));
    say("over", cuMemAlloc(&over, left + 1));
    say("rest", cuMemAlloc(&all, left));
    books();
    must(cuMemFree(all));
}

static void alloc_nested(void)
{
    calls_back(NULL);
    nested_rc = cuMemAlloc(&nested[0], 4 * MIB);
    nested_allocations++;
}

static void jump(void)
{
    calls_back(NULL);
    siglongjmp(back, 1);
}

static void raise_signal(void)
{
    calls_back(NULL);
    raise(SIGUSR1);
}

static void on_signal(int number)
{
    (void)number;
    alloc_nested();
}

static void end_thread(void)
{
    calls_back(NULL);
    pthread_cancel(pthread_self());
    pthread_testcancel();
}

/* Uses the stack up before it goes on. */
static void __attribute__((noinline)) deeper(void (*then)(void))
{
    volatile char room[4096];
    memset((char *)room, 1, sizeof room);
    then();
    room[0] = 2;
}

static void leave_by(void (*how)(void))
{
    CUdeviceptr memory;
    calls_back(how);
    if (sigsetjmp(back, 1) == 0)
        say("rc", cuMemAlloc(&memory, 8 * MIB));
}

static void leave_by_jump(void)
{
    leave_by(jump);
}

static void *cancelled(void *unused)
{
    CUdeviceptr memory;
    must(cuCtxSetCurrent(context));
    calls_back(end_thread);
    cuMemAlloc(&memory, 8 * MIB);
    say("came_back", 1);
    return unused;
}

/* Its cancellation waits for the first point of cancellation: there is none in these calls. */
static void *first_call(void *unused)
{
    CUdeviceptr memory = 0, over;
    size_t left, total;
    pthread_cancel(pthread_self());
    long long rc = cuInit(0);
    rc |= cuDevicePrimaryCtxRetain(&context, 0);
    rc |= cuCtxSetCurrent(context);
    rc |= cuMemAlloc(&memory, 8 * MIB);
    rc |= cuMemGetInfo(&left, &total);
    int refused = cuMemAlloc(&over, total);
    rc |= cuMemFree(memory);
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
    say("rc", rc);
    say("over", refused);
    pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, NULL);
    pthread_testcancel();
    return unused;
}

static void join_cancelled(void *(*thread_main)(void *))
{
    pthread_t thread;
    void *answer;
    must(pthread_create(&thread, NULL, thread_main, NULL));
    must(pthread_join(thread, &answer));
    say("cancelled", answer == PTHREAD_CANCELED);
}

/* Many times at any point of the call, for half a second. */
static void on_alarm_jump(int number)
{
    (void)number;
    jumps++;
    siglongjmp(back, 1);
}

static void on_alarm_alloc(int number)
{
    (void)number;
    if (nested_allocations < 8 && cuMemAlloc(&nested[nested_allocations], 1 * MIB) == 0)
        nested_allocations++;
    jumps++;
}

static void timer(long microseconds)
{
    struct itimerval every = { { 0, microseconds }, { 0, microseconds } };
    must(setitimer(ITIMER_REAL, &every, NULL));
}

static void storm(void (*handler)(int))
{
    volatile double until = seconds() + 0.5;
    struct sigaction action = { .sa_handler = handler };
    static CUdeviceptr volatile memory;
    must(sigaction(SIGALRM, &action, NULL));
    sigsetjmp(back, 1);
    timer(300);
    while (seconds() < until) {
        CUdeviceptr fresh;
        if (cuMemAlloc(&fresh, 1 * MIB) == CUDA_SUCCESS)
            cuMemFree(fresh);
    }
    timer(0);
    say("met", jumps > 100);
    (void)memory;
}

static void *allocate_for_ever(void *unused)
{
    must(cuCtxSetCurrent(context));
    pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, NULL);
    for (;;) {
        CUdeviceptr fresh;
        if (cuMemAlloc(&fresh, 4096) == CUDA_SUCCESS)
            cuMemFree(fresh);
    }
    return unused;
}

static void cancels(void)
{
    for (int i = 0; i < 300; i++) {
        pthread_t thread;
        must(pthread_create(&thread, NULL, allocate_for_ever, NULL));
        usleep(200 + i);
        must(pthread_cancel(thread));
        must(pthread_join(thread, NULL));
    }
}

int main(int argc, char **argv)
{
    const char *how = argc > 1 ? argv[1] : "";
    stack_t stack = { .ss_sp = own_stack, .ss_size = sizeof own_stack };
    struct sigaction action = { .sa_handler = on_signal, .sa_flags = !strcmp(how, "own_stack") ? SA_ONSTACK : 0 };

    if (!strcmp(how, "first_call"))
        join_cancelled(first_call);
    open_device();
    must(cuCtxGetCurrent(&context));
    calls_back = (void (*)(void (*)(void)))dlsym(RTLD_DEFAULT, "other_calls_back");
    figure = (size_t (*)(void))dlsym(RTLD_DEFAULT, "other_figure");
    must(!calls_back || !figure);
    must(sigaltstack(&stack, NULL));
    must(sigaction(SIGUSR1, &action, NULL));

    if (!strcmp(how, "jump"))
        leave_by_jump();
    else if (!strcmp(how, "deep_jump"))
        deeper(leave_by_jump);
    else if (!strcmp(how, "called_back"))
        leave_by(alloc_nested);
    else if (!strcmp(how, "handler") || !strcmp(how, "own_stack"))
        leave_by(raise_signal);
    else if (!strcmp(how, "cancel"))
        join_cancelled(cancelled);
    else if (!strcmp(how, "jumps"))
        storm(on_alarm_jump);
    else if (!strcmp(how, "handlers"))
        storm(on_alarm_alloc);
    else if (!strcmp(how, "cancels"))
        cancels();
    if (nested_rc >= 0)
        say("nested_rc", nested_rc);
    books();
    /* From a deeper frame than the one that was left, and from an outer one. */
    deeper(fill_up);
    fill_up();
    return 0;
}

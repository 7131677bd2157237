/* Threads that leave a launch which waits for the share, on the driver of `drivers/other_life.c`, whose kernels take 2 ms.
 * Afterwards another thread launches and allocates, and every call must return.
 *
 *     leaves_launch HOW    cancel: the thread has been cancelled before its first launch, and there is no point of
 *                                  cancellation in a launch; killed: asynchronously, while it waits; jump: it jumps out
 *                                  of the wait; elsewhere: it jumps out and never calls the driver again, while others do */
#include <setjmp.h>
#include <sys/time.h>
#include "common.h"

static const char *how;
static sigjmp_buf back;
static CUcontext context;
static volatile int left_launch, done;

static void launch(int times)
{
    for (int i = 0; i < times; i++)
        must(cuLaunchKernel((CUfunction)&context, 1, 1, 1, 1, 1, 1, 0, NULL, NULL, NULL));
}

static void on_signal(int number)
{
    (void)number;
    siglongjmp(back, 1);
}

static void *leaver(void *unused)
{
    must(cuCtxSetCurrent(context));
    if (!strcmp(how, "cancel")) {
        pthread_cancel(pthread_self());
        launch(2);
        left_launch = 1;
        pthread_testcancel();
    } else if (!strcmp(how, "killed")) {
        pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, NULL);
        launch(1000);
    } else {
        if (sigsetjmp(back, 1) == 0)
            launch(1000);
        left_launch = 1;
        if (!strcmp(how, "jump"))
            launch(2);
        while (!done)
            usleep(1000);
    }
    return unused;
}

int main(int argc, char **argv)
{
    struct sigaction action = { .sa_handler = on_signal };
    CUdeviceptr memory;
    pthread_t thread;
    how = argc > 1 ? argv[1] : "";
    open_device();
    must(cuCtxGetCurrent(&context));
    must(sigaction(SIGUSR1, &action, NULL));
    must(pthread_create(&thread, NULL, leaver, NULL));
    if (strcmp(how, "cancel")) {
        usleep(200000);
        must(!strcmp(how, "killed") ? pthread_cancel(thread) : pthread_kill(thread, SIGUSR1));
    }
    if (!strcmp(how, "elsewhere") || !strcmp(how, "jump"))
        while (!left_launch)
            usleep(1000);
    else
        must(pthread_join(thread, NULL));
    say("left", left_launch || !strcmp(how, "killed"));
    /* Each of these waits: the share is 10%, and a kernel takes 2 ms. */
    launch(5);
    double began = seconds();
    launch(10);
    say("milliseconds", (long long)((seconds() - began) * 1000));
    must(cuMemAlloc(&memory, MIB));
    must(cuMemFree(memory));
    done = 1;
    if (!strcmp(how, "elsewhere") || !strcmp(how, "jump"))
        must(pthread_join(thread, NULL));
    return 0;
}

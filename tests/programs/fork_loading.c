/* Forks while another thread opens the driver and asks it for its first functions. The child's look-up of a function that
 * nobody has in sight must come back. Each round is a process of its own; the argument says how many. */
#include "common.h"

static void *open_driver(void *start)
{
    while (!__atomic_load_n((int *)start, __ATOMIC_ACQUIRE))
        ;
    void *driver = dlopen("libcuda.so.1", RTLD_NOW);
    must(driver == NULL || dlsym(driver, "cuMemAlloc_v2") == NULL || dlsym(driver, "cuInit") == NULL);
    return NULL;
}

/* 0: the child came back. */
static int one_round(long delay)
{
    static int start;
    pthread_t thread;
    int status = 0;
    must(pthread_create(&thread, NULL, open_driver, &start));
    __atomic_store_n(&start, 1, __ATOMIC_RELEASE);
    for (volatile long spin = delay; spin > 0; spin--)
        ;
    pid_t child = fork();
    if (child == 0) {
        alarm(10);
        dlsym(RTLD_DEFAULT, "cuMemAlloc_v2");
        dlsym(RTLD_DEFAULT, "cuInit");
        _exit(0);
    }
    must(waitpid(child, &status, 0) != child);
    must(pthread_join(thread, NULL));
    return status;
}

int main(int argc, char **argv)
{
    long rounds = number(argc, argv, 1, 100), stuck = 0;
    for (long round = 0; round < rounds && stuck == 0; round++) {
        int status = 0;
        pid_t process = fork();
        if (process == 0)
            _exit(one_round(round * 4000 % 1000000) != 0);
        must(waitpid(process, &status, 0) != process);
        stuck += status != 0;
    }
    say("stuck", stuck);
    return 0;
}

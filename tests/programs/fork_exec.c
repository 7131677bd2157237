/* Starts its own image anew by fork or vfork (first argument) and exec while it holds memory: the new
 * process is another one, with the same quota. Once it has ended, all that it held can be had. */
#include "common.h"

int main(int argc, char **argv)
{
    CUdeviceptr memory;
    size_t before, total;
    int status;
    pid_t child;

    open_device();
    must(cuMemAlloc(&memory, 64 * MIB));
    say_memory();
    must(cuMemGetInfo(&before, &total));
    if (argc > 1 && strcmp(argv[1], "again") == 0)
        return 0;
    child = argc > 1 && strcmp(argv[1], "vfork") == 0 ? vfork() : fork();
    if (child == 0) {
        execl("/proc/self/exe", argv[0], "again", NULL);
        _exit(9);
    }
    must(waitpid(child, &status, 0) != child);
    say("child", status);
    say("rc", cuMemAlloc(&memory, before));
    return 0;
}

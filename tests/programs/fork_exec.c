/* Starts its own image anew by fork or vfork (first argument) and exec while it holds memory: the new
 * process is another one, with the same quota. */
#include "common.h"

int main(int argc, char **argv)
{
    CUdeviceptr memory;
    int status;
    pid_t child;

    open_device();
    must(cuMemAlloc(&memory, 64 * MIB));
    say_memory();
    if (argc > 1 && strcmp(argv[1], "again") == 0)
        return 0;
    child = argc > 1 && strcmp(argv[1], "vfork") == 0 ? vfork() : fork();
    if (child == 0) {
        execl("/proc/self/exe", argv[0], "again", NULL);
        _exit(9);
    }
    must(waitpid(child, &status, 0) != child);
    say("child", status);
    say_memory();
    return 0;
}

/* A forked child that never calls the driver must end as any child does, and the parent's account must not
 * notice; the driver itself refuses a child that goes on with the parent's context. */
#include "common.h"

int main(void)
{
    CUdeviceptr memory;
    int status;

    open_device();
    must(cuMemAlloc(&memory, 64 * MIB));
    say_memory();
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        CUdeviceptr stolen;
        exit(cuMemAlloc(&stolen, MIB) == CUDA_SUCCESS ? 8 : 7);
    }
    must(waitpid(child, &status, 0) != child);
    say("child", status);
    say_memory();
    must(cuMemFree(memory));
    say_memory();
    return 0;
}

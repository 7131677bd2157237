/* Holds memory, says so, and becomes `cat`, which knows nothing of CUDA and ends with the pipe. */
#include "common.h"

int main(int argc, char **argv)
{
    CUdeviceptr memory;

    open_device();
    say("rc", cuMemAlloc(&memory, number(argc, argv, 1, 64 * MIB)));
    execlp("cat", "cat", (char *)NULL);
    return 1;
}

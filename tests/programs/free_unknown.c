/* Frees what the quota has never heard of: the driver's own answer must come back, once, and nobody's
 * account may change. NULL, a pointer from nowhere, and the same pointer twice. */
#include "common.h"

int main(void)
{
    CUdeviceptr memory;

    open_device();
    say_memory();
    say("null", cuMemFree(0));
    say("nowhere", cuMemFree(0x1234500));
    must(cuMemAlloc(&memory, 8 * MIB));
    say("first", cuMemFree(memory));
    say("second", cuMemFree(memory));
    say("async_nowhere", cuMemFreeAsync(0x1234500, NULL));
    say_memory();
    return 0;
}

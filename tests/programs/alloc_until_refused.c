/* Allocates chunks (bytes, first argument) until refused, then ever smaller ones down to a single byte:
 * the sum is all that there was. With a second argument it then holds them until the test says so. */
#include "common.h"

int main(int argc, char **argv)
{
    size_t chunk = (size_t)number(argc, argv, 1, 64 * (long long)MIB), held = 0;
    CUresult rc = CUDA_SUCCESS;

    open_device();
    say_memory();
    for (; chunk > 0; chunk /= 2) {
        CUdeviceptr memory;
        while ((rc = cuMemAlloc(&memory, chunk)) == CUDA_SUCCESS)
            held += chunk;
    }
    say("held", (long long)held);
    say("refusal", rc);
    say_memory();
    if (argc > 2)
        wait_for_test();
    return 0;
}

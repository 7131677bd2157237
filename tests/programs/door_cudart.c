/* The CUDA runtime, shared or static, of whichever version this was linked to. */
#include <cuda_runtime_api.h>
#include "common.h"

#define WALK_BYTES (64 * MIB)

int main(void)
{
    size_t total, before, after, again;
    void *memory, *more;
    int version;

    must(cudaRuntimeGetVersion(&version));
    say("runtime", version);
    must(cudaFree(NULL));
    must(cudaMemGetInfo(&before, &total));
    must(cudaMalloc(&memory, WALK_BYTES));
    must(cudaMemGetInfo(&after, &total));
    say("total", (long long)total);
    say("charged", (long long)(before - after));
    say("over", cudaMalloc(&more, after + 1));
    must(cudaFree(memory));
    must(cudaMemGetInfo(&again, &total));
    say("returned", (long long)(again - after));
    return 0;
}

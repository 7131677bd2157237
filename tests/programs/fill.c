/* For the eyes, by the CUDA runtime: takes memory in large pieces until refused, says so, and keeps it until
 * its standard input ends. */
#include <cuda_runtime_api.h>
#include <stdio.h>

int main(void)
{
    const size_t piece = 256u << 20;
    size_t left, total, held = 0;
    void *memory;
    cudaError_t rc;

    if ((rc = cudaMemGetInfo(&left, &total)) != cudaSuccess) {
        printf("no memory to ask for: %s\n", cudaGetErrorString(rc));
        return 1;
    }
    printf("the card shows %zu MiB in all, %zu MiB free\n", total >> 20, left >> 20);
    while ((rc = cudaMalloc(&memory, piece)) == cudaSuccess)
        held += piece;
    printf("took %zu MiB in pieces of %zu MiB, then cudaMalloc said: %s\n", held >> 20, piece >> 20, cudaGetErrorString(rc));
    fflush(stdout);
    while (getchar() != EOF)
        ;
    return 0;
}

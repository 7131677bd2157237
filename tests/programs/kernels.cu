// A real fatbin and a <<<>>> launch, compiled by nvcc and linked to each runtime. First argument: seconds.
// Then the rest of what a plain program asks of the runtime: properties, a copy there and back, managed and
// stream-ordered memory, events, a captured graph, a reset.
#include <cstdio>
#include <cstdlib>
#include <ctime>
#ifdef KERNELS_FATBIN
#include "register.h"
#else
#include <cuda_runtime.h>

extern "C" __global__ void busy_5ms(int *out)
{
    if (out)
        *out = 1;
}

static void launch_busy(cudaStream_t stream) { busy_5ms<<<1, 32, 0, stream>>>(nullptr); }
#endif

#define must(call)                                                              \
    do {                                                                        \
        cudaError_t rc = (call);                                                \
        if (rc != cudaSuccess) {                                                \
            printf("failed=%s\nrc=%d\n", #call, (int)rc);                       \
            exit(1);                                                            \
        }                                                                       \
    } while (0)

static double seconds()
{
    timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec + now.tv_nsec / 1e9;
}

static void copies_come_back()
{
    int there[256], back[256] = {}, *device;
    for (int i = 0; i < 256; i++)
        there[i] = i * i;
    must(cudaMalloc((void **)&device, sizeof there));
    must(cudaMemcpy(device, there, sizeof there, cudaMemcpyHostToDevice));
    must(cudaMemcpy(back, device, sizeof back, cudaMemcpyDeviceToHost));
    int same = 1;
    for (int i = 0; i < 256; i++)
        same &= back[i] == there[i];
    printf("copied=%d\n", same);
    must(cudaFree(device));
}

static void graph_replays(cudaStream_t stream)
{
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    must(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
    launch_busy(stream);
    must(cudaStreamEndCapture(stream, &graph));
    must(cudaGraphInstantiateWithFlags(&exec, graph, 0));
    must(cudaGraphLaunch(exec, stream));
    must(cudaStreamSynchronize(stream));
    must(cudaGraphExecDestroy(exec));
    must(cudaGraphDestroy(graph));
    printf("graph=1\n");
}

int main(int argc, char **argv)
{
    double until = seconds() + (argc > 1 ? atof(argv[1]) : 0.1);
    cudaDeviceProp card;
    cudaStream_t stream;
    cudaEvent_t start, stop;
    void *managed, *ordered;
    long launches = 0;
    float ms;

    must(cudaGetDeviceProperties(&card, 0));
    printf("name=%s\ntotal=%zu\n", card.name, card.totalGlobalMem);
    must(cudaStreamCreate(&stream));
    copies_come_back();
    must(cudaMallocManaged(&managed, 1 << 20));
    must(cudaMallocAsync(&ordered, 1 << 20, stream));
    must(cudaFreeAsync(ordered, stream));
    must(cudaFree(managed));
    graph_replays(stream);
    must(cudaEventCreate(&start));
    must(cudaEventCreate(&stop));
    must(cudaEventRecord(start, stream));
    do {
        launch_busy(stream);
        must(cudaGetLastError());
        if (++launches % 4 == 0)
            must(cudaStreamSynchronize(stream));
    } while (seconds() < until);
    must(cudaEventRecord(stop, stream));
    must(cudaEventSynchronize(stop));
    must(cudaEventElapsedTime(&ms, start, stop));
    printf("launches=%ld\nelapsed_us=%.0f\n", launches, ms * 1000);
    must(cudaDeviceReset());
    return 0;
}

/* Streams that share a queue, handles that are used again, an event that nothing is before: STREAMS.
 * In each stream two kernels, one stream after the other. */
#include "common.h"

int main(int argc, char **argv)
{
    enum { MOST = 64 };
    int count = (int)number(argc, argv, 1, 4);
    CUmodule module;
    CUfunction kernel;
    CUstream stream[MOST], again;
    CUevent begin, other;

    open_device();
    must(cuModuleLoadData(&module, ".version 7.0\n.target sm_50\n.address_size 64\n.visible .entry busy_10ms()\n{\n    ret;\n}\n"));
    must(cuModuleGetFunction(&kernel, module, "busy_10ms"));
    must(cuLaunchKernel(kernel, 1, 1, 1, 32, 1, 1, 0, NULL, NULL, NULL));
    for (int i = 0; i < count; i++)
        must(cuStreamCreate(&stream[i], CU_STREAM_NON_BLOCKING));
    must(cuCtxSynchronize());
    double from = seconds();
    for (int i = 0; i < count; i++)
        for (int j = 0; j < 2; j++)
            must(cuLaunchKernel(kernel, 1, 1, 1, 32, 1, 1, 0, stream[i], NULL, NULL));
    must(cuCtxSynchronize());
    say("took_us", (long long)((seconds() - from) * 1e6));

    must(cuEventCreate(&begin, CU_EVENT_DEFAULT));
    must(cuEventRecord(begin, stream[0]));
    say("begun", cuEventQuery(begin));
    must(cuLaunchKernel(kernel, 1, 1, 1, 32, 1, 1, 0, stream[0], NULL, NULL));
    say("begun_before_the_kernel_is_over", cuEventQuery(begin));
    must(cuCtxSynchronize());

    must(cuEventDestroy(begin));
    must(cuEventCreate(&other, CU_EVENT_DEFAULT));
    say("same_event", other == begin);
    CUstream gone = stream[count - 1];
    must(cuStreamDestroy(gone));
    must(cuStreamCreate(&again, CU_STREAM_NON_BLOCKING));
    say("same_stream", again == gone);
    return 0;
}

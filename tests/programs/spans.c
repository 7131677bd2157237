/* Measures a kernel of 100 us with an event before and behind, now and then, and says the median in microseconds. */
#include "common.h"

static int order(const void *a, const void *b)
{
    float left = *(const float *)a, right = *(const float *)b;
    return (left > right) - (left < right);
}

int main(void)
{
    enum { ROUNDS = 41 };
    CUmodule module;
    CUfunction kernel;
    CUevent before, behind;
    float spans[ROUNDS];

    open_device();
    must(cuModuleLoadData(&module, ".version 7.0\n.target sm_50\n.address_size 64\n.visible .entry busy_100us()\n{\n    ret;\n}\n"));
    must(cuModuleGetFunction(&kernel, module, "busy_100us"));
    must(cuEventCreate(&before, CU_EVENT_DEFAULT));
    must(cuEventCreate(&behind, CU_EVENT_DEFAULT));
    for (int i = 0; i < ROUNDS; i++) {
        must(cuEventRecord(before, NULL));
        must(cuLaunchKernel(kernel, 1, 1, 1, 32, 1, 1, 0, NULL, NULL, NULL));
        must(cuEventRecord(behind, NULL));
        must(cuEventSynchronize(behind));
        must(cuEventElapsedTime(&spans[i], before, behind));
        /* A pause of the same length each time could end each time where a time slice does. */
        usleep(2500 + (unsigned)i * 347 % 2000);
    }
    qsort(spans, ROUNDS, sizeof *spans, order);
    say("median_us", (long long)(spans[ROUNDS / 2] * 1000));
    return 0;
}

/* Makes contexts: the primary one, and more up to the first argument's number. Says the answer to each, destroys all but the
 * first, and makes one again. Waits for a line before its end if it was asked for one only. */
#include "common.h"

int main(int argc, char **argv)
{
    long count = number(argc, argv, 1, 1), made = 0;
    CUcontext primary, others[64];
    CUdevice device;
    CUresult rc;
    char line[16];

    must(cuInit(0));
    must(cuDeviceGet(&device, 0));
    rc = cuDevicePrimaryCtxRetain(&primary, device);
    say("rc", rc);
    for (long i = 1; i < count && i < 64; i++) {
        rc = cuCtxCreate(&others[made], NULL, 0, device);
        say("rc", rc);
        made += rc == CUDA_SUCCESS;
    }
    if (count == 1) {
        next_line(line, sizeof line);
        return 0;
    }
    for (long i = 0; i < made; i++)
        must(cuCtxDestroy(others[i]));
    say("again", cuCtxCreate(&others[0], NULL, 0, device));
    return 0;
}

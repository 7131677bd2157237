/* Fills the slice but for what rows of an odd width take, as the driver pads them, and asks for just these rows. */
#include "common.h"

enum { WIDTH = 1025, HEIGHT = 3000, ELEMENT = 4 };

int main(void)
{
    CUdeviceptr rows, rest;
    size_t pitch, left, total;

    open_device();
    must(cuMemAllocPitch(&rows, &pitch, WIDTH, 1, ELEMENT));
    must(cuMemFree(rows));
    must(cuMemGetInfo(&left, &total));
    say_memory();
    must(cuMemAlloc(&rest, left - pitch * HEIGHT));
    say("rc", cuMemAllocPitch(&rows, &pitch, WIDTH, HEIGHT, ELEMENT));
    say_memory();
    say("pitch", (long long)pitch);
    say("over", cuMemAlloc(&rest, 1));
    must(cuMemFree(rows));
    say("over", cuMemAllocPitch(&rows, &pitch, WIDTH, HEIGHT + 1, ELEMENT));
    must(cuMemAlloc(&rows, pitch * HEIGHT));
    return 0;
}

/* A C++ exception that passes through the driver's frames and ours: the driver of `drivers/other.c` calls the program back
 * in the middle of an allocation, and the program throws. */
extern "C" {
#include "common.h"
}

static void (*calls_back)(void (*)(void));

static void throw_it()
{
    calls_back(nullptr);
    throw 42;
}

int main()
{
    size_t left, total;
    CUdeviceptr memory, over;
    open_device();
    calls_back = (void (*)(void (*)(void)))dlsym(RTLD_DEFAULT, "other_calls_back");
    must(calls_back == nullptr);
    calls_back(throw_it);
    try {
        say("rc", cuMemAlloc(&memory, 8 * MIB));
    } catch (int what) {
        say("caught", what);
    }
    must(cuMemGetInfo(&left, &total));
    say("total", (long long)total);
    say("charged", (long long)(total - left));
    say("over", cuMemAlloc(&over, left + 1));
    say("rest", cuMemAlloc(&memory, left));
    must(cuMemFree(memory));
    return 0;
}

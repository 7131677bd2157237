/* Is there a driver? Only dlopen and dlsym: where there is none, nothing may be found. */
#include "common.h"

int main(void)
{
    void *driver = dlopen("libcuda.so.1", RTLD_NOW);
    say("driver", driver != NULL);
    say("global", dlsym(RTLD_DEFAULT, "cuMemAlloc_v2") != NULL);
    say("init", driver ? (int)((CUresult(*)(unsigned))dlsym(driver, "cuInit"))(0) : -1);
    return 0;
}

/* Is there a driver? Only dlopen, dlsym and weak references: where there is none, nothing may be found. An argument is the path
 * of a plugin that asks too. */
#include "common.h"

extern int nvmlInit_v2(void);
#pragma weak cuInit
#pragma weak cuMemAlloc_v2
#pragma weak nvmlInit_v2

static int is_weak_set(void)
{
    static void *volatile const functions[] = { (void *)cuInit, (void *)nvmlInit_v2 };
    return functions[0] != NULL || functions[1] != NULL || cuMemAlloc_v2 != NULL;
}

int main(int argc, char **argv)
{
    say("weak", is_weak_set());
    void *self = dlopen(NULL, RTLD_NOW);
    say("self", dlsym(self, "cuInit") != NULL || dlsym(self, "nvmlInit_v2") != NULL);
    say("error", dlerror() != NULL);
    say("next", dlsym(RTLD_NEXT, "cuMemAlloc_v2") != NULL);
    say("version", dlvsym(self, "cuInit", "GLIBC_2.2.5") != NULL);
    if (argc > 1) {
        void *plugin = dlopen(argv[1], RTLD_NOW);
        must(plugin == NULL);
        say("plugin", ((int (*)(void))dlsym(plugin, "has_driver"))());
    }
    void *driver = dlopen("libcuda.so.1", RTLD_NOW);
    say("driver", driver != NULL);
    say("global", dlsym(RTLD_DEFAULT, "cuMemAlloc_v2") != NULL);
    say("init", driver ? (int)((CUresult(*)(unsigned))dlsym(driver, "cuInit"))(0) : -1);
    return 0;
}

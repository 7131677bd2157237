/* A driver closed and opened anew: pointers taken before must not be left dangling behind the hook. */
#include "walk.h"

static void *driver;

static void *find(const char *name)
{
    return dlsym(driver, name);
}

int main(void)
{
    for (int round = 0; round < 3; round++) {
        must((driver = dlopen("libcuda.so.1", RTLD_NOW)) == NULL);
        struct door door = open_door(find);
        must(walk(&door));
        must(dlclose(driver));
    }
    return 0;
}

/* dlopen and dlsym, as cudart, cudarc and numba do. */
#include "walk.h"

static void *driver;

static void *find(const char *name)
{
    return dlsym(driver, name);
}

int main(void)
{
    must((driver = dlopen("libcuda.so.1", RTLD_NOW)) == NULL);
    struct door door = open_door(find);
    return walk(&door);
}

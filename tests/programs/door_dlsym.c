/* dlopen and dlsym, as cudart, cudarc and numba do; the first argument opens the driver under another name. */
#include "walk.h"

static void *driver;

static void *find(const char *name)
{
    return dlsym(driver, name);
}

int main(int argc, char **argv)
{
    must((driver = dlopen(argc > 1 ? argv[1] : "libcuda.so.1", RTLD_NOW)) == NULL);
    struct door door = open_door(find);
    return walk(&door);
}

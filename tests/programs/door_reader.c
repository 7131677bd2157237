/* The driver's functions by a reader of symbol tables. The first argument says what is read: "opened": the driver that
 * dlopen has opened; "linked": the driver that this program is linked to; "loader": libc, whose own dlopen and dlsym then
 * do the rest. A second argument is the path of another driver to open and to walk through. */
#include "reader.h"
#include "walk.h"

static const struct link_map *driver;
static void *(*own_dlsym)(void *, const char *);

static void *find(const char *name)
{
    return own_dlsym ? own_dlsym((void *)driver, name) : read_symbol(driver, name);
}

int main(int argc, char **argv)
{
    const char *how = argc > 1 ? argv[1] : "opened", *path = argc > 2 ? argv[2] : "libcuda.so.1";

    if (strcmp(how, "linked") == 0) {
        driver = loaded("libcuda.so");
    } else if (strcmp(how, "loader") == 0) {
        /* What was opened before has nothing to do with the driver. */
        must(dlopen(NULL, RTLD_NOW) == NULL);
        const struct link_map *libc = loaded("libc.so.6");
        void *(*own_dlopen)(const char *, int) = (void *(*)(const char *, int))read_symbol(libc, "dlopen");
        own_dlsym = (void *(*)(void *, const char *))read_symbol(libc, "dlsym");
        driver = own_dlopen(path, RTLD_NOW);
    } else {
        driver = dlopen(path, RTLD_NOW);
    }
    must(driver == NULL);
    struct door door = open_door(find);
    return walk(&door);
}

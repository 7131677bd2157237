/* libc's own dlsym, taken in the way that the first argument names; the driver has not been asked for anything before. */
#include "walk.h"

static void *driver;
static void *(*own_dlsym)(void *, const char *);

static void *find(const char *name)
{
    return own_dlsym(driver, name);
}

static void *versioned(void *handle, const char *name)
{
    static const char *const versions[] = { "GLIBC_2.2.5", "GLIBC_2.17", "GLIBC_2.34" };
    void *found = NULL;
    for (unsigned i = 0; i < sizeof versions / sizeof *versions && !found; i++)
        found = dlvsym(handle, name, versions[i]);
    return found;
}

static void *find_versioned(void *handle, const char *name)
{
    return dlvsym(handle, name, "LIBCUDA_1");
}

int main(int argc, char **argv)
{
    const char *how = argc > 1 ? argv[1] : "dlvsym";
    void *libc = dlopen("libc.so.6", RTLD_NOW);
    void *(*open)(const char *, int) = dlopen;

    if (strcmp(how, "dlvsym") == 0)
        own_dlsym = (void *(*)(void *, const char *))versioned(RTLD_DEFAULT, "dlsym");
    else if (strcmp(how, "handle") == 0)
        own_dlsym = (void *(*)(void *, const char *))dlsym(libc, "dlsym");
    else if (strcmp(how, "versioned_handle") == 0)
        own_dlsym = (void *(*)(void *, const char *))versioned(libc, "dlsym");
    else if (strcmp(how, "next") == 0)
        own_dlsym = (void *(*)(void *, const char *))dlsym(RTLD_NEXT, "dlsym");
    else if (strcmp(how, "versioned_next") == 0)
        own_dlsym = (void *(*)(void *, const char *))versioned(RTLD_NEXT, "dlsym");
    else if (strcmp(how, "lookup") == 0)
        own_dlsym = find_versioned;
    else { /* "dlopen": that one too */
        open = (void *(*)(const char *, int))dlsym(libc, "dlopen");
        own_dlsym = (void *(*)(void *, const char *))dlsym(libc, "dlsym");
    }
    must(own_dlsym == NULL);
    must((driver = open(argc > 2 ? argv[2] : "libcuda.so.1", RTLD_NOW)) == NULL);
    struct door door = open_door(find);
    return walk(&door);
}

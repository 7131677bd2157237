/* Two copies of the driver: the program allocates through libcuda.so.1 and walks through the one that the first argument
 * names, found as the second argument says: "dlsym", "reader" or "getproc". The third says when it is opened: "later" than
 * the first one's start, or "before" it. */
#include "reader.h"
#include "walk.h"
#undef cuGetProcAddress

static void *second;
static CUresult (*get_proc_address)(const char *, void **, int, cuuint64_t);

static void *by_dlsym(const char *name)
{
    return dlsym(second, name);
}

static void *by_reader(const char *name)
{
    return read_symbol(second, name);
}

static void *by_proc(const char *name)
{
    char bare[64] = "";
    void *found = NULL;
    strncat(bare, name, strcspn(name, "_"));
    must(get_proc_address(bare, &found, 11030, 0));
    return found;
}

int main(int argc, char **argv)
{
    void *first = dlopen("libcuda.so.1", RTLD_NOW);
    const char *how = argc > 2 ? argv[2] : "dlsym";
    CUresult (*init)(unsigned) = (CUresult(*)(unsigned))dlsym(first, "cuInit");

    if (strcmp(argv[3], "later") == 0)
        must(init(0));
    must((second = dlopen(argv[1], RTLD_NOW)) == NULL);
    must(second == first);
    /* A function that nobody intercepts: both are one driver, so it works without a start of its own. */
    CUresult (*count)(int *) = (CUresult(*)(int *))by_dlsym("cuDeviceGetCount");
    struct door door;
    if (strcmp(how, "reader") == 0) {
        door = (struct door)open_door(by_reader);
    } else if (strcmp(how, "getproc") == 0) {
        get_proc_address = (CUresult(*)(const char *, void **, int, cuuint64_t))by_dlsym("cuGetProcAddress");
        door = (struct door)open_door(by_proc);
    } else {
        door = (struct door)open_door(by_dlsym);
    }
    must(walk(&door));
    int devices;
    say("counted", count(&devices));
    return 0;
}

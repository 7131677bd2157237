/* Loads a plugin (first argument) as the second says: "local" or "deepbind", the latter also when the driver
 * is there before it ("deepbind_later"), and lets it walk, unless it has already walked from its constructor
 * ("constructor"). Is not linked to the driver itself. */
#include "common.h"

int main(int argc, char **argv)
{
    int deep = argc > 2 && strncmp(argv[2], "deepbind", 8) == 0;
    if (argc > 2 && strcmp(argv[2], "deepbind_later") == 0)
        must(dlopen("libcuda.so.1", RTLD_NOW) == NULL);
    void *plugin = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL | (deep ? RTLD_DEEPBIND : 0));
    if (!plugin) {
        fprintf(stderr, "%s\n", dlerror());
        return 1;
    }
    if (argc > 2 && strcmp(argv[2], "constructor") == 0)
        return 0;
    int (*walk)(void) = (int (*)(void))dlsym(plugin, "plugin_walk");
    return walk();
}

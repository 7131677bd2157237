/* Every function that the timed driver exports, by its name: NAMES is the list that the linker's view of it gives. */
#include <stddef.h>
#include <string.h>

#define NAME(name) extern char name[];
#include NAMES
#undef NAME

static const struct { const char *name; void *function; } exported[] = {
#define NAME(name) { #name, name },
#include NAMES
};

void *timed_find(const char *name, const char *suffix)
{
    size_t length = strlen(name);
    for (size_t i = 0; i < sizeof exported / sizeof *exported; i++)
        if (!strncmp(exported[i].name, name, length) && !strcmp(exported[i].name + length, suffix))
            return exported[i].function;
    return NULL;
}

/* A driver that only forwards: each function jumps into another library, which it opens when it is loaded, or with -DLAZY
 * at the first cuInit. The environment names that library. FORWARDED lists its functions. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>

static void *inner;

#ifdef __x86_64__
#define JUMP(name) "jmp *forward_" #name "(%rip)\n"
#else
#define JUMP(name) "adrp x16, forward_" #name "\nldr x16, [x16, :lo12:forward_" #name "]\nbr x16\n"
#endif

#define FORWARD(name)                                                                                     \
    __attribute__((visibility("hidden"))) void *forward_##name;                                           \
    __asm__(".globl " #name "\n.type " #name ",@function\n" #name ":\n" JUMP(name) ".size " #name ", . - " #name "\n");
#include FORWARDED
#undef FORWARD

static void fill(void)
{
    inner = dlopen(getenv("FORWARD_TO"), RTLD_NOW | RTLD_LOCAL);
    if (!inner)
        abort();
#define FORWARD(name) forward_##name = dlsym(inner, #name);
#include FORWARDED
#undef FORWARD
}

#ifdef LAZY
static int first_init(unsigned flags)
{
    fill();
    return ((int (*)(unsigned))forward_cuInit)(flags);
}

__attribute__((constructor)) static void prepare(void)
{
    forward_cuInit = (void *)first_init;
}
#else
__attribute__((constructor)) static void prepare(void)
{
    fill();
}
#endif

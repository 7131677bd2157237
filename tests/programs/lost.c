/* The driver loses an allocation and gives its address again (drivers/other.c can): the books must not keep both. */
#include "common.h"

int main(void)
{
    CUdeviceptr first, second;
    void (*lose)(void) = (void (*)(void))dlsym(RTLD_DEFAULT, "other_loses_all");

    open_device();
    must(lose == NULL);
    say_memory();
    must(cuMemAlloc(&first, 64 * MIB));
    lose();
    must(cuMemAlloc(&second, 32 * MIB));
    must(first != second);
    say_memory();
    must(cuMemFree(second));
    say_memory();
    return 0;
}

/* Forks before the first driver call: the children are the ones who work, each with its own account. */
#include "common.h"

int main(void)
{
    for (int i = 0; i < 3; i++) {
        if (fork() == 0) {
            CUdeviceptr memory;
            open_device();
            must(cuMemAlloc(&memory, 64 * MIB));
            exit(0);
        }
    }
    int status, worst = 0;
    while (wait(&status) > 0)
        worst |= status;
    say("worst", worst);
    open_device();
    say_memory();
    return 0;
}

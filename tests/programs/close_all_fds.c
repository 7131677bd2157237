/* What daemons do first: closes every descriptor above 2, twice; then works on, and holds its memory until
 * the test says so, so that others can look whether it is still counted among the living. */
#include <sys/syscall.h>
#include "common.h"

static void close_all(void)
{
    must(syscall(SYS_close_range, 3u, ~0u, 0));
}

int main(void)
{
    CUdeviceptr memory;

    close_all();
    open_device();
    must(cuMemAlloc(&memory, 64 * MIB));
    close_all();
    say_memory();
    wait_for_test();
    must(cuMemAlloc(&memory, 64 * MIB));
    say_memory();
    return 0;
}

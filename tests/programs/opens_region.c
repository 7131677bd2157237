/* Opens and closes the region's file (first argument) itself, as a monitor or a backup in the container
 * would. POSIX then drops every record lock that the process has on the file; its slot must stay its own. */
#include <fcntl.h>
#include "common.h"

int main(int argc, char **argv)
{
    CUdeviceptr memory;

    if (argc < 2)
        return 2;
    open_device();
    must(cuMemAlloc(&memory, 64 * MIB));
    int file = open(argv[1], O_RDWR);
    must(file < 0);
    must(close(file));
    say_memory();
    wait_for_test();
    say_memory();
    return 0;
}

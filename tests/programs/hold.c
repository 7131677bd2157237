/* Holds memory as the test tells it, line by line: "alloc BYTES" (answers rc), "free" (the newest),
 * "info". Ends when the pipe is closed; ends badly when killed, which is what most tests want of it. "closed" as the first
 * argument: closes every descriptor but the first three, as a daemon does. */
#include "common.h"

int main(int argc, char **argv)
{
    CUdeviceptr held[4096];
    int count = 0;
    char line[64];

    open_device();
    if (argc > 1 && strcmp(argv[1], "closed") == 0)
        for (int fd = 3; fd < 1024; fd++)
            close(fd);
    say("pid", getpid());
    while (next_line(line, sizeof line)) {
        unsigned long long bytes;
        if (sscanf(line, "alloc %llu", &bytes) == 1) {
            CUresult rc = cuMemAlloc(&held[count], bytes);
            count += rc == CUDA_SUCCESS;
            say("rc", rc);
        } else if (strncmp(line, "free", 4) == 0 && count > 0) {
            say("rc", cuMemFree(held[--count]));
        } else {
            say_memory();
        }
    }
    return 0;
}

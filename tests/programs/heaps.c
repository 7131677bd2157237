/* Sets limits of its context, line by line: "set LIMIT VALUE" (rc, and the value afterwards), "alloc BYTES", "info". */
#include "common.h"

int main(void)
{
    CUdeviceptr memory;
    char line[64];
    int limit;
    size_t value;

    open_device();
    while (next_line(line, sizeof line)) {
        if (sscanf(line, "set %d %zu", &limit, &value) == 2) {
            say("rc", cuCtxSetLimit(limit, value));
            must(cuCtxGetLimit(&value, limit));
            say("value", (long long)value);
        } else if (sscanf(line, "alloc %zu", &value) == 1) {
            say("rc", cuMemAlloc(&memory, value));
        } else {
            say_memory();
        }
    }
    return 0;
}

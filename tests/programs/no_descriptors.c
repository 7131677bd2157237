/* Uses up every descriptor before its first call of the driver. */
#include <sys/resource.h>
#include "common.h"

int main(void)
{
    struct rlimit few = { 64, 64 };
    must(setrlimit(RLIMIT_NOFILE, &few));
    while (dup(1) >= 0)
        continue;
    say("init", cuInit(0));
    return 0;
}

/* Has a handler of SIGBUS of its own (first argument: "info", "plain" or "none"), set before the driver is loaded, and a file
 * of its own that it truncates under a mapping. "alloc BYTES" (answers rc), "fault": a fault of its own, "sent": the signal sent
 * by kill. Says "hits": how often its handler was called with what it expects. */
#include <setjmp.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include "common.h"

static sigjmp_buf recover;
static volatile sig_atomic_t hits;
static volatile char *page;

static void with_info(int number, siginfo_t *info, void *machine)
{
    hits += number == SIGBUS && machine != NULL && (info->si_code <= 0 || info->si_addr == (void *)page);
    if (info->si_code > 0)
        siglongjmp(recover, 1);
}

static void plain(int number)
{
    hits += number == SIGBUS;
    siglongjmp(recover, 1);
}

int main(int argc, char **argv)
{
    const char *how = argc > 1 ? argv[1] : "none";
    struct sigaction mine = { .sa_flags = 0 };
    FILE *file = tmpfile();
    CUdeviceptr memory;
    char line[64];

    must(ftruncate(fileno(file), 4096));
    page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fileno(file), 0);
    must(ftruncate(fileno(file), 0));
    if (strcmp(how, "info") == 0) {
        mine.sa_flags = SA_SIGINFO;
        mine.sa_sigaction = with_info;
        must(sigaction(SIGBUS, &mine, NULL));
    } else if (strcmp(how, "plain") == 0) {
        mine.sa_handler = plain;
        must(sigaction(SIGBUS, &mine, NULL));
    }
    open_device();
    say("pid", getpid());
    while (next_line(line, sizeof line)) {
        unsigned long long bytes;
        if (sscanf(line, "alloc %llu", &bytes) == 1) {
            say("rc", cuMemAlloc(&memory, bytes));
        } else if (strncmp(line, "fault", 5) == 0) {
            if (sigsetjmp(recover, 1) == 0)
                *page = 1;
            say("hits", hits);
        } else {
            if (sigsetjmp(recover, 1) == 0)
                raise(SIGBUS);
            say("hits", hits);
        }
    }
    return 0;
}

/* Kills its process just before the n-th store into the quota's region (KILL_AT_STORE=n), or counts the stores. It is preloaded
 * in front of the library. It takes the region's pages away from writing; a store then faults, is counted, and is repeated with
 * the pages writable for one instruction. Without the variable nothing happens. x86-64 alone has the flag for one instruction. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#if defined __x86_64__

enum { ONE_INSTRUCTION = 0x100, MOST_REGIONS = 4 };

static struct { char *at; size_t bytes; } regions[MOST_REGIONS];
static int known;
static unsigned long stores, last;

static void protect(int rights)
{
    for (int i = 0; i < known; i++)
        mprotect(regions[i].at, regions[i].bytes, rights);
}

static void on_store(int signal, siginfo_t *info, void *context)
{
    char *address = info->si_addr;
    for (int i = 0; i < known; i++) {
        if (address < regions[i].at || address >= regions[i].at + regions[i].bytes)
            continue;
        if (++stores == last)
            kill(getpid(), SIGKILL);
        protect(PROT_READ | PROT_WRITE);
        ((ucontext_t *)context)->uc_mcontext.gregs[REG_EFL] |= ONE_INSTRUCTION;
        return;
    }
    struct sigaction usual = { .sa_handler = SIG_DFL };
    sigaction(signal, &usual, NULL);
}

static void behind_store(int signal, siginfo_t *info, void *context)
{
    (void)signal, (void)info;
    ((ucontext_t *)context)->uc_mcontext.gregs[REG_EFL] &= ~ONE_INSTRUCTION;
    protect(PROT_READ);
}

/* The library maps its region by this name. */
void *mmap(void *hint, size_t bytes, int rights, int flags, int file, off_t offset)
{
    void *at = (void *)syscall(SYS_mmap, hint, bytes, rights, flags, file, offset);
    const char *wanted = getenv("KILL_AT_STORE"), *region = getenv("GPUQUOTA_REGION");
    struct stat mapped, named;
    if (wanted && region && at != MAP_FAILED && rights & PROT_WRITE && flags & MAP_SHARED && known < MOST_REGIONS &&
        fstat(file, &mapped) == 0 && stat(region, &named) == 0 && mapped.st_ino == named.st_ino &&
        mapped.st_dev == named.st_dev) {
        struct sigaction store = { .sa_sigaction = on_store, .sa_flags = SA_SIGINFO };
        struct sigaction behind = { .sa_sigaction = behind_store, .sa_flags = SA_SIGINFO };
        last = strtoul(wanted, NULL, 10);
        regions[known].at = at;
        regions[known++].bytes = bytes;
        sigaction(SIGSEGV, &store, NULL);
        sigaction(SIGTRAP, &behind, NULL);
        protect(PROT_READ);
    }
    return at;
}

unsigned long stores_so_far(void)
{
    return stores;
}

#endif

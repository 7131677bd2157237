/* The device of timed.h as a process sees it: the memory file, work that it submits and waits for. */
#include "timed_device.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#ifdef __x86_64__
#define RELAX __builtin_ia32_pause()
#else
#define RELAX __asm__ volatile("yield")
#endif

static struct process *mine;
static memory_check *has_memory;
static uint64_t stamped; /* spans whose stamps this process has written */

uint64_t host_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* The thread's timers are exact meanwhile, as those of a real-time thread are. */
void host_until(uint64_t ns)
{
    enum { INEXACT = 20000 };
    uint64_t now = host_ns();
    if (now + 2 * INEXACT < ns) {
        uint64_t early = ns - INEXACT;
        struct timespec until = { (time_t)(early / 1000000000), (long)(early % 1000000000) };
        int slack = prctl(PR_GET_TIMERSLACK);
        prctl(PR_SET_TIMERSLACK, 1);
        while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == EINTR)
            ;
        prctl(PR_SET_TIMERSLACK, slack);
    }
    while (host_ns() < ns)
        RELAX;
}

/* The stamps of this process's kernels reach its memory. */
static void stamp(void)
{
    for (; stamped < device->spans; stamped++) {
        struct span *one = &device->log[stamped % SPANS];
        if (one->pid != mine->pid || !one->log)
            continue;
        uint64_t *log = (uint64_t *)(uintptr_t)one->log;
        if (has_memory(one->log, 16) && log[1] && has_memory(one->log, 16 + 16 * log[1])) {
            uint64_t at = log[0]++ % log[1];
            log[2 + 2 * at] = one->begin;
            log[3 + 2 * at] = one->end;
        }
    }
}

static void lock(void)
{
    if (pthread_mutex_lock(&device->lock) == EOWNERDEAD)
        pthread_mutex_consistent(&device->lock);
    advance();
    if (mine)
        stamp();
}

static void unlock(void) { pthread_mutex_unlock(&device->lock); }

static uint64_t told(const char *name, uint64_t otherwise)
{
    const char *value = getenv(name);
    return value ? strtoull(value, NULL, 10) : otherwise;
}

struct host_times host;

static void set_up(void)
{
    const char *mode = getenv("TIMED_MODE");
    pthread_mutexattr_t shared;
    pthread_mutexattr_init(&shared);
    pthread_mutexattr_setpshared(&shared, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_setrobust(&shared, PTHREAD_MUTEX_ROBUST);
    pthread_mutex_init(&device->lock, &shared);
    device->slices = mode && !strcmp(mode, "slices");
    /* A clock of its own, with some time behind it. */
    device->epoch = host_ns() - 7000000000;
    device->clock = 7000000000;
#define READ(name, ns) device->how.name = told("TIMED_" #name, ns);
    DEVICE_TIMES(READ)
}

static void forked(void)
{
    mine = NULL;
    device = NULL;
}

static void join(void)
{
    struct process *free = NULL;
    for (int i = 0; i < PROCESSES && !free; i++)
        if (!device->processes[i].pid)
            free = &device->processes[i];
    for (int i = 0; i < PROCESSES && !free; i++)
        if (!device->processes[i].lives)
            free = &device->processes[i];
    if (!free) {
        fprintf(stderr, "the timed device has %d processes, which is all that it has room for\n", PROCESSES);
        abort();
    }
    free->pid = getpid();
    free->lives = true;
    memset(free->cells, 0, sizeof free->cells);
    stamped = device->spans;
    mine = free;
    pthread_atfork(NULL, NULL, forked);
}

void device_open(memory_check *has)
{
    const char *path = getenv("TIMED_DEVICE");
    int file = path ? open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666) : memfd_create("timed", MFD_CLOEXEC);
    struct stat found;
    if (file < 0 || flock(file, LOCK_EX) || fstat(file, &found) || ftruncate(file, sizeof *device))
        abort();
    device = mmap(NULL, sizeof *device, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (device == MAP_FAILED)
        abort();
    if (!found.st_size)
        set_up();
    flock(file, LOCK_UN);
    close(file);
#define READ_HOST(name, ns) host.name = told("TIMED_" #name, ns);
    HOST_TIMES(READ_HOST)
    lock();
    has_memory = has;
    if (has)
        join();
    unlock();
}

bool device_is_mine(void) { return mine != NULL; }

__attribute__((destructor)) static void close_device(void)
{
    if (!mine || mine->pid != getpid())
        return;
    lock();
    leave(mine);
    unlock();
    mine = NULL;
}

/* Waits, with the lock, until then by the device's clock, but not for long: others may change what happens. */
static void pass(uint64_t until)
{
    uint64_t now = device->clock, epoch = device->epoch;
    unlock();
    host_until(sooner(until > now ? until : now + 1000, now + 1000000) + epoch);
    lock();
}

/* Work is not over before what lies before it in its queue has run. */
static uint64_t earliest(uint64_t number)
{
    uint64_t at = device->clock, one = mine->queues[item(mine, number)->queue].head;
    for (;; one = item(mine, one)->next) {
        struct item *it = item(mine, one);
        bool begun = it->state == RUNNING || it->state == STOPPED;
        at += it->work.kind == CALL ? 0 : begun ? it->left : it->work.kind == KERNEL ? it->work.ns : 0;
        at -= it->state == RUNNING && it->work.kind != CALL ? device->clock - it->since : 0;
        if (one == number)
            return later(at, device->next);
    }
}

uint64_t device_submit(unsigned queue, const struct work *work, unsigned count)
{
    lock();
    struct queue *to = &mine->queues[queue % QUEUES];
    for (unsigned i = 0; i < count; i++) {
        while (to->count >= IN_QUEUE || (mine->numbers >= WORKS && !is_done(mine, mine->numbers + 1 - WORKS)))
            pass(device->next);
        uint64_t number = ++mine->numbers;
        struct item *it = item(mine, number);
        *it = (struct item){ .work = work[i], .number = number, .arrives = device->clock, .queue = queue % QUEUES,
                             .state = QUEUED };
        if (it->work.units > device->how.UNITS)
            it->work.units = (uint32_t)device->how.UNITS;
        if (to->count++)
            item(mine, to->tail)->next = number;
        else
            to->head = number;
        to->tail = number;
        mine->busy |= 1ull << (to - mine->queues);
    }
    uint64_t last = mine->numbers;
    unlock();
    return last;
}

bool device_done(uint64_t number)
{
    lock();
    bool done = is_done(mine, number);
    unlock();
    return done;
}

void device_wait(uint64_t number)
{
    lock();
    while (!is_done(mine, number))
        pass(earliest(number));
    unlock();
}

uint64_t device_called(uint64_t *what)
{
    uint64_t number = 0;
    lock();
    EACH(mine, queue, it)
        if (it->work.kind == CALL && it->state == RUNNING) {
            number = it->number;
            *what = it->work.log;
        }
    unlock();
    return number;
}

void device_returned(uint64_t number)
{
    lock();
    EACH(mine, queue, it)
        if (it->number == number)
            finish(mine, queue, it);
    advance();
    unlock();
}

uint64_t device_event(uint32_t cell, uint64_t number)
{
    lock();
    uint64_t at = mine->cells[cell].number == number ? mine->cells[cell].at : 0;
    unlock();
    return at;
}

uint64_t device_spans(uint64_t from, struct span *spans, uint64_t room, uint64_t *now, uint64_t *lost)
{
    uint64_t count = 0;
    lock();
    uint64_t first = device->spans > SPANS ? device->spans - SPANS : 0;
    *now = device->clock;
    *lost = first > from ? first - from : 0;
    for (uint64_t i = later(first, from); i < device->spans && count < room; i++)
        spans[count++] = device->log[i % SPANS];
    for (int i = 0; i < PROCESSES; i++)
        EACH(&device->processes[i], queue, it)
            if (it->state == RUNNING && it->work.kind == KERNEL && count < room)
                spans[count++] = (struct span){ it->since, *now, 0, device->processes[i].pid, 0 };
    unlock();
    return count;
}

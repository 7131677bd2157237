/* The device of timed.h: one front end for all processes, in a memory file. Nobody but the callers moves it on: each call
 * first computes what has happened until now, so that the times are exact however late a caller is. */
#include "timed.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
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

enum { PROCESSES = 64, QUEUES = 64, WORKS = 4096, IN_QUEUE = 1024, CELLS = 8192, SPANS = 1 << 21 };
enum state { QUEUED, READY, RUNNING, STOPPED, DONE };

struct item {
    struct work work;
    uint64_t number, next, arrives, ready, since, left;
    unsigned queue;
    enum state state;
};

struct queue {
    uint64_t head, tail, end; /* numbers, and when the last one ended */
    unsigned count;
    enum kind last;
};

struct process {
    int32_t pid;
    bool lives;
    uint64_t numbers, busy; /* the last number given, and a bit for each queue that is not empty */
    struct queue queues[QUEUES];
    struct item items[WORKS];
    struct { uint64_t number, at; } cells[CELLS];
};

struct device {
    pthread_mutex_t lock;
    struct device_times how;
    bool slices;
    uint64_t epoch, clock, next, looked_at; /* now, when something happens next, when it was looked who lives */
    int owner, heir;
    bool owner_wants;
    uint64_t slice, switched; /* when the owner's slice began, and when the heir has the device, or 0 */
    uint64_t used;            /* units */
    uint64_t spans;           /* how many were written */
    struct process processes[PROCESSES];
    struct span log[SPANS];
};

static struct device *device;
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

static uint64_t later(uint64_t a, uint64_t b) { return a > b ? a : b; }
static uint64_t sooner(uint64_t a, uint64_t b) { return a < b ? a : b; }

static struct item *item(struct process *of, uint64_t number) { return &of->items[number % WORKS]; }

static bool is_done(struct process *of, uint64_t number)
{
    struct item *it = item(of, number);
    return it->number != number || it->state == DONE;
}

/* Each queue of a process that is not empty, and its first work. */
#define EACH(of, queue, it)                                                                                   \
    for (uint64_t bits_ = (of)->busy; bits_; bits_ &= bits_ - 1)                                                \
        for (struct queue *queue = &(of)->queues[__builtin_ctzll(bits_)]; queue; queue = NULL)                  \
            for (struct item *it = item(of, queue->head); it; it = NULL)

static void span(struct process *of, struct item *it, bool last)
{
    struct span *at = &device->log[device->spans++ % SPANS];
    *at = (struct span){ it->since, device->clock, it->work.log, of->pid, last };
}

static void finish(struct process *of, struct queue *queue, struct item *it)
{
    if (it->work.kind == KERNEL) {
        span(of, it, true);
        device->used -= it->work.units;
    }
    if (it->work.kind == EVENT) {
        of->cells[it->work.cell].number = it->number;
        of->cells[it->work.cell].at = device->clock;
    }
    it->state = DONE;
    queue->last = it->work.kind;
    queue->end = device->clock;
    queue->head = it->next;
    if (--queue->count == 0)
        of->busy &= ~(1ull << (queue - of->queues));
}

/* What has arrived and waits for nothing but its time knows when that is. */
static void make_ready(struct process *of)
{
    EACH(of, queue, it) {
        bool waits = it->state != QUEUED;
        for (int i = 0; i < DEPENDENCIES; i++)
            waits |= it->work.waits_for[i] && !is_done(of, it->work.waits_for[i]);
        if (waits)
            continue;
        it->ready = later(device->clock, it->arrives);
        if (it->work.kind == KERNEL) {
            uint64_t gap = queue->last == EVENT ? device->how.EVENT_GAP : device->how.GAP;
            it->ready = later(later(it->arrives, queue->end == device->clock ? 0 : device->clock) + device->how.DISPATCH,
                              queue->end ? queue->end + gap : 0);
        }
        it->state = READY;
    }
}

static bool wants(struct process *of)
{
    EACH(of, queue, it)
        if (!(it->work.kind == CALL && it->state == RUNNING))
            return true;
    return false;
}

/* The owner's kernels stand still. Answers whether there were any. */
static bool stop(struct process *of)
{
    bool any = false;
    EACH(of, queue, it) {
        if (it->state != RUNNING || it->work.kind == CALL)
            continue;
        if (it->work.kind == KERNEL) {
            span(of, it, false);
            device->used -= it->work.units;
            any = true;
        }
        it->left -= device->clock - it->since;
        it->state = STOPPED;
    }
    return any;
}

static void go_on(struct process *of)
{
    EACH(of, queue, it)
        if (it->state == STOPPED) {
            it->state = RUNNING;
            it->since = device->clock;
            device->used += it->work.kind == KERNEL ? it->work.units : 0;
        }
}

/* Who has the device, where one process at a time has it. Answers when that may change by itself. */
static uint64_t take_turns(void)
{
    if (device->switched > device->clock)
        return device->switched;
    if (device->switched) {
        device->owner = device->heir;
        device->slice = device->switched;
        device->switched = 0;
        device->owner_wants = true;
        go_on(&device->processes[device->owner]);
    }
    struct process *owner = &device->processes[device->owner];
    bool wanted = wants(owner);
    if (wanted && !device->owner_wants)
        device->slice = device->clock;
    device->owner_wants = wanted;
    int heir = device->owner;
    for (int i = 1; i < PROCESSES && heir == device->owner; i++)
        if (wants(&device->processes[(device->owner + i) % PROCESSES]))
            heir = (device->owner + i) % PROCESSES;
    uint64_t slice = device->how.SLICE;
    if (heir == device->owner) {
        if (device->clock > device->slice + slice)
            device->slice += (device->clock - device->slice) / slice * slice;
        return UINT64_MAX;
    }
    if (wanted && device->clock < device->slice + slice)
        return device->slice + slice;
    device->heir = heir;
    device->switched = device->clock + (stop(owner) ? device->how.PREEMPT : device->how.SWITCH);
    return device->switched;
}

/* One step of a process that has the device, at the present time; answers when its next one is. `*first` is the kernel that
 * has waited longest for its start. */
static uint64_t step(struct process *of, struct item **first)
{
    uint64_t next = UINT64_MAX;
    EACH(of, queue, it) {
        if (it->state == READY && it->work.kind == KERNEL) {
            *first = *first && (*first)->ready <= it->ready ? *first : it;
        } else if (it->state == READY && it->ready <= device->clock) {
            it->state = RUNNING;
            it->since = device->clock;
            it->left = it->work.kind == EVENT ? device->how.EVENT : 0;
            return device->clock;
        } else if (it->state == READY) {
            next = sooner(next, it->ready);
        } else if (it->state == RUNNING && it->work.kind != CALL) {
            if (it->since + it->left <= device->clock) {
                finish(of, queue, it);
                return device->clock;
            }
            next = sooner(next, it->since + it->left);
        }
    }
    return next;
}

static void leave(struct process *of)
{
    stop(of);
    memset(of->queues, 0, sizeof of->queues);
    memset(of->items, 0, sizeof of->items);
    of->busy = 0;
    of->lives = false;
}

/* Brings the device to the present. */
static void advance(void)
{
    uint64_t now = host_ns() - device->epoch;
    if (now - device->looked_at > 10000000) {
        device->looked_at = now;
        for (int i = 0; i < PROCESSES; i++)
            if (device->processes[i].lives && kill(device->processes[i].pid, 0) && errno == ESRCH)
                leave(&device->processes[i]);
    }
    for (;;) {
        uint64_t next = device->slices ? take_turns() : UINT64_MAX;
        struct item *first = NULL;
        for (int i = 0; i < PROCESSES; i++) {
            struct process *one = &device->processes[i];
            make_ready(one);
            if (one->busy && (!device->slices || (i == device->owner && !device->switched)))
                next = sooner(next, step(one, &first));
        }
        if (next <= device->clock)
            continue;
        /* The front end starts kernels in the order in which they could start; one that finds no room waits for it. */
        if (first && first->ready > device->clock) {
            next = sooner(next, first->ready);
        } else if (first && device->used + first->work.units <= device->how.UNITS) {
            first->state = RUNNING;
            first->since = device->clock;
            first->left = first->work.ns;
            device->used += first->work.units;
            next = device->clock;
        }
        device->next = next;
        if (next > now)
            break;
        device->clock = later(device->clock, next);
    }
    device->clock = now;
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

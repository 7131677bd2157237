/* What lies in the memory file of the timed device (timed.h). Every time is one of the device's clock. */
#pragma once
#include "timed.h"

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

extern struct device *device;

/* timed_front.c: computes what has happened until now; how a process that has gone leaves the device; that work is over. */
void advance(void);
void leave(struct process *of);
void finish(struct process *of, struct queue *queue, struct item *it);

static inline uint64_t later(uint64_t a, uint64_t b) { return a > b ? a : b; }
static inline uint64_t sooner(uint64_t a, uint64_t b) { return a < b ? a : b; }

static inline struct item *item(struct process *of, uint64_t number) { return &of->items[number % WORKS]; }

static inline bool is_done(struct process *of, uint64_t number)
{
    struct item *it = item(of, number);
    return it->number != number || it->state == DONE;
}

/* Each queue of a process that is not empty, and its first work. */
#define EACH(of, queue, it)                                                                                   \
    for (uint64_t bits_ = (of)->busy; bits_; bits_ &= bits_ - 1)                                                \
        for (struct queue *queue = &(of)->queues[__builtin_ctzll(bits_)]; queue; queue = NULL)                  \
            for (struct item *it = item(of, queue->head); it; it = NULL)

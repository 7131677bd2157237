/* A driver that keeps time, written apart from the simulator by NVIDIA's documentation alone. timed_front.c is the
 * device's front end and timed_device.c the way to it: all processes share it through a memory file. timed.c has the start and
 * contexts, timed_memory.c memory and code, timed_streams.c streams and events, timed_launch.c launches, timed_graph.c captures
 * and graphs, and timed_truth.c is a program that tells what the device did.
 *
 * Functions named like busy_50us take that long. The parameters of functions named timed_* and work_* are how long, in
 * nanoseconds, and the address of a log in device memory (number of the next entry, number of entries, entries of begin and
 * end), into which the kernel writes when it ran. It watches the clock: if it was stopped it writes an entry for each piece.
 *
 * The environment says how long things take, in nanoseconds, and how the device is shared:
 *
 *   TIMED_DEVICE      the memory file; without it each process has a device of its own
 *   TIMED_MODE        "mps": kernels of all processes run as they come; "slices": one process at a time has the device
 */
#pragma once
#define _GNU_SOURCE
#include <cuda.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

/* Name, default. Those of the device are what they were for the first process on it. */
#define DEVICE_TIMES(_)                                                                                       \
    _(SLICE, 2091000)   /* how long a process keeps the device while another one waits for it */                \
    _(SWITCH, 137000)   /* from a process without work to another one */                                        \
    _(PREEMPT, 152600)  /* the same from a process whose kernels have to be stopped */                          \
    _(DISPATCH, 500)    /* from a launch on an idle stream to the kernel's begin */                             \
    _(GAP, 1000)        /* between kernels of a stream */                                                       \
    _(EVENT_GAP, 1600)  /* from an event to the kernel behind it */                                             \
    _(EVENT, 700)       /* what an event takes in its stream */                                                 \
    _(UNITS, 132)       /* no time: blocks that run at once; a kernel takes as many, or all */

#define HOST_TIMES(_)                                                                                         \
    _(LAUNCH, 3000)     /* cuLaunchKernel */                                                                    \
    _(GRAPH, 6000)      /* cuGraphLaunch */                                                                     \
    _(RECORD, 800)      /* cuEventRecord */                                                                     \
    _(QUERY, 300)       /* cuEventQuery, cuStreamQuery, cuEventElapsedTime */                                   \
    _(WAKE, 2000)       /* from the end of the work to the return of a call that waits for it */                \
    _(FIRST, 25000)     /* the first launch of a function, on top */                                            \
    _(MODULE, 0)        /* the first launch of any function of a module, on top: code that is loaded late */    \
    _(LAUNCH_SLEEP, 0)  /* a launch sleeps for so long before it reaches the device */                          \
    _(LOAD, 600000)     /* cuModuleLoad */                                                                      \
    _(CONTEXT, 20000000) /* a new context */                                                                    \
    _(INIT, 10000000)   /* cuInit */                                                                            \
    _(CONNECTIONS, 32)  /* no time: hardware queues; streams that have one in common wait for each other */

#define TIME(name, ns) uint64_t name;
struct device_times { DEVICE_TIMES(TIME) };
struct host_times { HOST_TIMES(TIME) };
#undef TIME

extern struct host_times host;

/* What a stream gives to the device. */
enum kind { KERNEL, EVENT, JOIN, CALL };

enum { DEPENDENCIES = 4 };

struct work {
    enum kind kind;
    uint64_t ns;                       /* of a kernel */
    uint32_t units;                    /* of a kernel */
    uint64_t log;                      /* of a kernel: where it writes when it ran, or 0; of a call: which one */
    uint32_t cell;                     /* of an event: where its time goes */
    uint64_t waits_for[DEPENDENCIES];  /* numbers of other work, 0 for none */
};

/* Whether so many bytes from an address on are memory of the device. */
typedef bool memory_check(uint64_t address, uint64_t bytes);

/* The device. A process that gives no check does not join it, but only looks on. */
void device_open(memory_check *has);
bool device_is_mine(void);

/* Gives work to a hardware queue. Answers its number. Waits while the queue is full. */
uint64_t device_submit(unsigned queue, const struct work *work, unsigned count);
bool device_done(uint64_t number);
void device_wait(uint64_t number);
/* The next work of kind CALL whose turn it is, and its `log`, or 0; and that it is over. */
uint64_t device_called(uint64_t *what);
void device_returned(uint64_t number);
/* When the event of this number was, by the device's clock; 0 if it is not over. */
uint64_t device_event(uint32_t cell, uint64_t number);

/* For timed_truth.c. */
struct span {
    uint64_t begin, end, log;
    int32_t pid;
    uint32_t last; /* the kernel was over then */
};
/* What ran from one number of a span on; those that run now end now. Answers how many there are. */
uint64_t device_spans(uint64_t from, struct span *spans, uint64_t room, uint64_t *now, uint64_t *lost);

uint64_t host_ns(void);
/* Keeps the thread until then: asleep as long as that is exact. */
void host_until(uint64_t ns);

/* What the files of the timed driver's host side know of each other. A handle points into a table; the first free place is
 * the next to be given out. */
#pragma once
#include "timed.h"

struct capture;

struct stream {
    long lives;
    struct context *of;
    bool blocking, legacy;
    int priority;
    unsigned flags, queue;
    uint64_t last; /* the number of its last work */
    struct capture *capture;
};

struct context {
    long lives;
    unsigned long long id;
    unsigned flags;
    struct stream legacy;
};

struct event {
    long lives;
    unsigned flags;
    uint64_t number;         /* of its last record, or 0 */
    struct capture *capture; /* if that was captured */
};

struct module {
    long lives;
    bool runs; /* a function of it was launched */
    struct function *functions;
};

struct function {
    struct module *of;
    struct function *next;
    char name[128];
    uint64_t ns;
    uint64_t kept[2]; /* parameters for the oldest calls */
    bool told, runs; /* its parameters say how long it takes; it was launched before */
};

extern struct stream streams[];
extern struct event events[];
enum { STREAMS = 1024, EVENTS = 8192 };

/* The first free place of a table whose structures begin with `long lives`. */
void *timed_free(void *table, size_t size, int most);
#define FREE(table, most) timed_free(table, sizeof *(table), most)

/* The export of this name and suffix, or NULL. */
void *timed_find(const char *name, const char *suffix);

/* Held while handles are given out and work gets its order. */
void timed_lock(void);
void timed_unlock(void);

void timed_passes(uint64_t ns);
bool timed_has_memory(uint64_t address, uint64_t bytes);
struct context *timed_current(void);
bool timed_is_context(struct context *);

/* The stream of a handle, or NULL. */
struct stream *timed_stream(CUstream handle, bool per_thread);
/* Gives work to a stream, behind what it has to wait for. */
uint64_t timed_submit(struct stream *to, struct work *work, unsigned count);
/* Waits for all work of a context, or of all. */
void timed_drain(struct context *of);

/* What a call is forbidden while somebody captures. */
CUresult timed_unsafe(void);
CUresult timed_captures(struct stream *to, const struct work *work, struct function *function);
void timed_capture_event(struct stream *from, struct event *event);
CUresult timed_capture_wait(struct stream *to, struct event *event);
bool timed_is_capturing(struct stream *one);
/* Whether the legacy stream may not be used because a capture is open that it would have to wait for. */
bool timed_legacy_forbidden(struct context *of);

/* What a function does on the device. */
CUresult timed_kernel(struct function *function, uint64_t blocks, void **parameters, void **extra, struct work *work);
/* The time that the host takes to load what has not run before. */
uint64_t timed_first_ns(struct function *function);

#define TWICE(name, parameters, answer)                                                                       \
    CUresult name parameters { enum { OWN = 0 }; return answer; }                                               \
    CUresult name##_ptsz parameters { enum { OWN = 1 }; return answer; }

#define NEED(what, otherwise)                                                                                 \
    do {                                                                                                        \
        if (!(what))                                                                                            \
            return otherwise;                                                                                   \
    } while (0)

#define STARTED NEED(device_is_mine(), CUDA_ERROR_NOT_INITIALIZED)
#define DEVICE(device)                                                                                        \
    STARTED;                                                                                                    \
    NEED((device) == 0, CUDA_ERROR_INVALID_DEVICE)
#define CURRENT                                                                                               \
    STARTED;                                                                                                    \
    NEED(timed_current(), CUDA_ERROR_INVALID_CONTEXT)

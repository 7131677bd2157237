/* The timed driver's streams and events (timed.h). */
#include "timed_host.h"
#include <stdlib.h>
#include <string.h>
#include <time.h>

#undef cuEventElapsedTime

enum { DYING = 2 };

struct stream streams[STREAMS];
struct event events[EVENTS];

/* The per-thread stream of each context that this thread has used. */
static _Thread_local struct { struct stream *stream; unsigned long long of; } own[8];

static struct stream *new_stream(struct context *of, unsigned flags, int priority)
{
    static unsigned made;
    timed_lock();
    for (int i = 0; i < STREAMS; i++)
        if (streams[i].lives == DYING && device_done(streams[i].last))
            streams[i].lives = 0;
    struct stream *one = FREE(streams, STREAMS);
    *one = (struct stream){ .lives = 1, .of = of, .blocking = !(flags & CU_STREAM_NON_BLOCKING), .flags = flags,
                            .priority = priority < -5 ? -5 : priority > 0 ? 0 : priority,
                            /* Queue 0 is that of the legacy streams. */
                            .queue = 1 + made++ % (host.CONNECTIONS ? host.CONNECTIONS : 1) % 63 };
    timed_unlock();
    return one;
}

static struct stream *own_stream(struct context *of)
{
    int at = (int)(of->id % 8);
    if (!own[at].stream || own[at].of != of->id) {
        own[at].stream = new_stream(of, CU_STREAM_DEFAULT, 0);
        own[at].of = of->id;
    }
    return own[at].stream;
}

struct stream *timed_stream(CUstream handle, bool per_thread)
{
    struct context *current = timed_current();
    if (!current)
        return NULL;
    if (handle == CU_STREAM_PER_THREAD || (!handle && per_thread))
        return own_stream(current);
    if (handle == CU_STREAM_LEGACY || !handle)
        return &current->legacy;
    struct stream *one = (struct stream *)handle;
    return one >= streams && one < streams + STREAMS && one->lives == 1 ? one : NULL;
}

uint64_t timed_submit(struct stream *to, struct work *work, unsigned count)
{
    unsigned waits = 0;
    timed_lock();
    if (!to->legacy && to->blocking)
        work->waits_for[DEPENDENCIES - 1] = to->of->legacy.last;
    /* The legacy stream waits for the blocking streams of its context, and they for it. */
    struct work joined = { .kind = JOIN };
    for (int i = 0; i < STREAMS && to->legacy; i++) {
        if (!streams[i].lives || streams[i].of != to->of || !streams[i].blocking || !streams[i].last)
            continue;
        if (device_done(streams[i].last))
            continue;
        joined.waits_for[waits++] = streams[i].last;
        if (waits == DEPENDENCIES) {
            device_submit(to->queue, &joined, 1);
            joined = (struct work){ .kind = JOIN };
            waits = 0;
        }
    }
    if (waits)
        device_submit(to->queue, &joined, 1);
    uint64_t number = to->last = device_submit(to->queue, work, count);
    timed_unlock();
    return number;
}

void timed_drain(struct context *of)
{
    bool waited = false;
    uint64_t last;
    for (int i = 0; i < STREAMS; i++)
        if (streams[i].lives && (!of || streams[i].of == of) && (last = streams[i].last) && !device_done(last)) {
            device_wait(last);
            waited = true;
        }
    if (of && (last = of->legacy.last) && !device_done(last)) {
        device_wait(last);
        waited = true;
    }
    if (waited)
        host_until(host_ns() + host.WAKE);
}

#define STREAM(one, handle)                                                                                   \
    NEED(device_is_mine(), CUDA_ERROR_NOT_INITIALIZED);                                                         \
    NEED(timed_current(), CUDA_ERROR_INVALID_CONTEXT);                                                          \
    struct stream *one = timed_stream(handle, per_thread);                                                      \
    NEED(one, CUDA_ERROR_INVALID_HANDLE)

CUresult cuStreamCreateWithPriority(CUstream *out, unsigned flags, int priority)
{
    NEED(timed_current(), CUDA_ERROR_INVALID_CONTEXT);
    NEED(out && !(flags & ~CU_STREAM_NON_BLOCKING), CUDA_ERROR_INVALID_VALUE);
    *out = (CUstream)new_stream(timed_current(), flags, priority);
    return CUDA_SUCCESS;
}

CUresult cuStreamCreate(CUstream *out, unsigned flags) { return cuStreamCreateWithPriority(out, flags, 0); }

CUresult cuStreamDestroy_v2(CUstream handle)
{
    const bool per_thread = false;
    STREAM(one, handle);
    NEED(!one->legacy && handle != CU_STREAM_PER_THREAD, CUDA_ERROR_INVALID_HANDLE);
    /* What is in it goes on, and who waits for the context waits for it. */
    one->lives = one->last && !device_done(one->last) ? DYING : 0;
    return CUDA_SUCCESS;
}

static CUresult query(CUstream handle, bool per_thread)
{
    STREAM(one, handle);
    NEED(!timed_is_capturing(one), CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    NEED(!one->legacy || !timed_legacy_forbidden(one->of), CUDA_ERROR_STREAM_CAPTURE_IMPLICIT);
    host_until(host_ns() + host.QUERY);
    return !one->last || device_done(one->last) ? CUDA_SUCCESS : CUDA_ERROR_NOT_READY;
}

static CUresult synchronize(CUstream handle, bool per_thread)
{
    STREAM(one, handle);
    CUresult answer = timed_is_capturing(one) ? CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED : timed_unsafe();
    NEED(answer == CUDA_SUCCESS, answer);
    if (one->last && !device_done(one->last)) {
        device_wait(one->last);
        host_until(host_ns() + host.WAKE);
    }
    return CUDA_SUCCESS;
}

static CUresult context_of(CUstream handle, CUcontext *out, bool per_thread)
{
    STREAM(one, handle);
    *out = (CUcontext)one->of;
    return CUDA_SUCCESS;
}

static CUresult flags_of(CUstream handle, unsigned *flags, bool per_thread)
{
    STREAM(one, handle);
    *flags = one->flags;
    return CUDA_SUCCESS;
}

static CUresult priority_of(CUstream handle, int *priority, bool per_thread)
{
    STREAM(one, handle);
    *priority = one->priority;
    return CUDA_SUCCESS;
}

TWICE(cuStreamQuery, (CUstream stream), query(stream, OWN))
TWICE(cuStreamSynchronize, (CUstream stream), synchronize(stream, OWN))
TWICE(cuStreamGetCtx, (CUstream stream, CUcontext *out), context_of(stream, out, OWN))
TWICE(cuStreamGetFlags, (CUstream stream, unsigned *flags), flags_of(stream, flags, OWN))
TWICE(cuStreamGetPriority, (CUstream stream, int *priority), priority_of(stream, priority, OWN))

/* Events. */

static struct event *event_of(CUevent handle)
{
    struct event *one = (struct event *)handle;
    return one >= events && one < events + EVENTS && one->lives ? one : NULL;
}

#define EVENT_(one, handle)                                                                                   \
    NEED(device_is_mine(), CUDA_ERROR_NOT_INITIALIZED);                                                         \
    struct event *one = event_of(handle);                                                                       \
    NEED(one, CUDA_ERROR_INVALID_HANDLE)

CUresult cuEventCreate(CUevent *out, unsigned flags)
{
    NEED(timed_current(), CUDA_ERROR_INVALID_CONTEXT);
    NEED(out, CUDA_ERROR_INVALID_VALUE);
    timed_lock();
    struct event *one = FREE(events, EVENTS);
    *one = (struct event){ .lives = 1, .flags = flags };
    timed_unlock();
    *out = (CUevent)one;
    return CUDA_SUCCESS;
}

CUresult cuEventDestroy_v2(CUevent handle)
{
    EVENT_(one, handle);
    one->lives = 0;
    return CUDA_SUCCESS;
}

static CUresult record(CUevent handle, CUstream stream, bool per_thread)
{
    uint64_t began = host_ns();
    STREAM(to, stream);
    EVENT_(one, handle);
    if (timed_is_capturing(to)) {
        timed_capture_event(to, one);
        return CUDA_SUCCESS;
    }
    NEED(!to->legacy || !timed_legacy_forbidden(to->of), CUDA_ERROR_STREAM_CAPTURE_IMPLICIT);
    host_until(began + host.RECORD);
    struct work work = { .kind = EVENT, .cell = (uint32_t)(one - events) };
    one->capture = NULL;
    one->number = timed_submit(to, &work, 1);
    return CUDA_SUCCESS;
}

TWICE(cuEventRecord, (CUevent event, CUstream stream), record(event, stream, OWN))
TWICE(cuEventRecordWithFlags, (CUevent event, CUstream stream, unsigned flags),
      flags & ~1u ? CUDA_ERROR_INVALID_VALUE : record(event, stream, OWN))

CUresult cuEventQuery(CUevent handle)
{
    uint64_t began = host_ns();
    EVENT_(one, handle);
    NEED(!one->capture, CUDA_ERROR_CAPTURED_EVENT);
    CUresult answer = timed_unsafe();
    NEED(answer == CUDA_SUCCESS, answer);
    host_until(began + host.QUERY);
    return !one->number || device_done(one->number) ? CUDA_SUCCESS : CUDA_ERROR_NOT_READY;
}

CUresult cuEventSynchronize(CUevent handle)
{
    EVENT_(one, handle);
    NEED(!one->capture, CUDA_ERROR_CAPTURED_EVENT);
    CUresult answer = timed_unsafe();
    NEED(answer == CUDA_SUCCESS, answer);
    if (one->number && !device_done(one->number)) {
        device_wait(one->number);
        host_until(host_ns() + host.WAKE);
    }
    return CUDA_SUCCESS;
}

/* By a clock that moves in steps, in float milliseconds. */
CUresult cuEventElapsedTime(float *ms, CUevent from, CUevent to)
{
    enum { STEP = 32 };
    EVENT_(first, from);
    EVENT_(second, to);
    NEED(ms, CUDA_ERROR_INVALID_VALUE);
    NEED(first->number && second->number && !((first->flags | second->flags) & CU_EVENT_DISABLE_TIMING),
         CUDA_ERROR_INVALID_HANDLE);
    NEED(!first->capture && !second->capture, CUDA_ERROR_CAPTURED_EVENT);
    uint64_t start = device_event((uint32_t)(first - events), first->number);
    uint64_t end = device_event((uint32_t)(second - events), second->number);
    NEED(start && end, CUDA_ERROR_NOT_READY);
    *ms = (float)((double)((int64_t)(end / STEP) - (int64_t)(start / STEP)) * STEP / 1e6);
    return CUDA_SUCCESS;
}

CUresult cuEventElapsedTime_v2(float *ms, CUevent from, CUevent to) { return cuEventElapsedTime(ms, from, to); }

static CUresult wait_for(CUstream stream, CUevent handle, bool per_thread)
{
    STREAM(to, stream);
    EVENT_(one, handle);
    if (one->capture || timed_is_capturing(to))
        return timed_capture_wait(to, one);
    if (!one->number || device_done(one->number))
        return CUDA_SUCCESS;
    struct work work = { .kind = JOIN, .waits_for = { one->number } };
    timed_submit(to, &work, 1);
    return CUDA_SUCCESS;
}

TWICE(cuStreamWaitEvent, (CUstream stream, CUevent event, unsigned flags),
      flags & ~1u ? CUDA_ERROR_INVALID_VALUE : wait_for(stream, event, OWN))

/* Functions of the host run in a thread of the driver, in the order of their streams. Copies do too: the device's memory is
 * the process's own. */

struct call {
    CUhostFn function; /* or NULL for a copy */
    void *data, *to;
    const void *from; /* or NULL, to set bytes */
    int value;
    size_t bytes;
    bool once; /* it is in no graph */
};

static void *caller(void *nothing)
{
    for (;;) {
        uint64_t what, number = device_called(&what);
        struct call *one = (struct call *)(uintptr_t)what;
        if (!number) {
            nanosleep(&(struct timespec){ 0, 20000 }, NULL);
            continue;
        }
        if (one->function)
            one->function(one->data);
        else if (one->from)
            memcpy(one->to, one->from, one->bytes);
        else
            memset(one->to, one->value, one->bytes);
        device_returned(number);
        if (one->once)
            free(one);
    }
    return nothing;
}

static void start_caller(void)
{
    pthread_t thread;
    if (pthread_create(&thread, NULL, caller, NULL) == 0)
        pthread_detach(thread);
}

static CUresult call(CUstream stream, struct call what, bool per_thread)
{
    static pthread_once_t runs = PTHREAD_ONCE_INIT;
    STREAM(to, stream);
    struct call *one = malloc(sizeof *one);
    *one = what;
    one->once = !timed_is_capturing(to);
    pthread_once(&runs, start_caller);
    struct work work = { .kind = CALL, .log = (uint64_t)(uintptr_t)one };
    if (!one->once)
        return timed_captures(to, &work, NULL);
    timed_submit(to, &work, 1);
    return CUDA_SUCCESS;
}

static CUresult copy(void *to, const void *from, int value, size_t bytes, CUstream stream, bool per_thread)
{
    return call(stream, (struct call){ .to = to, .from = from, .value = value, .bytes = bytes }, per_thread);
}

TWICE(cuLaunchHostFunc, (CUstream stream, CUhostFn function, void *data),
      function ? call(stream, (struct call){ .function = function, .data = data }, OWN) : CUDA_ERROR_INVALID_VALUE)
TWICE(cuMemcpyHtoDAsync_v2, (CUdeviceptr to, const void *from, size_t bytes, CUstream stream),
      copy((void *)(uintptr_t)to, from, 0, bytes, stream, OWN))
TWICE(cuMemcpyDtoHAsync_v2, (void *to, CUdeviceptr from, size_t bytes, CUstream stream),
      copy(to, (const void *)(uintptr_t)from, 0, bytes, stream, OWN))
TWICE(cuMemsetD8Async, (CUdeviceptr to, unsigned char value, size_t count, CUstream stream),
      copy((void *)(uintptr_t)to, NULL, value, count, stream, OWN))

/* Not every device has these. */
TWICE(cuStreamWriteValue32_v2, (CUstream stream, CUdeviceptr at, cuuint32_t value, unsigned flags),
      ((void)at, (void)value, (void)flags, timed_stream(stream, OWN) ? CUDA_ERROR_NOT_SUPPORTED : CUDA_ERROR_INVALID_HANDLE))
TWICE(cuStreamWaitValue32_v2, (CUstream stream, CUdeviceptr at, cuuint32_t value, unsigned flags),
      ((void)at, (void)value, (void)flags, timed_stream(stream, OWN) ? CUDA_ERROR_NOT_SUPPORTED : CUDA_ERROR_INVALID_HANDLE))

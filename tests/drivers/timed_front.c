/* The front end of the timed device (timed.h). Nobody but the callers moves it on: each call first computes what has happened
 * until now, so that the times are exact however late a caller is. */
#include "timed_device.h"
#include <errno.h>
#include <signal.h>
#include <string.h>

struct device *device;

static void span(struct process *of, struct item *it, bool last)
{
    struct span *at = &device->log[device->spans++ % SPANS];
    *at = (struct span){ it->since, device->clock, it->work.log, of->pid, last };
}

void finish(struct process *of, struct queue *queue, struct item *it)
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

void leave(struct process *of)
{
    stop(of);
    memset(of->queues, 0, sizeof of->queues);
    memset(of->items, 0, sizeof of->items);
    of->busy = 0;
    of->lives = false;
}

/* Brings the device to the present. */
void advance(void)
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

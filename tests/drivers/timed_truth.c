/* Tells in JSON what the timed device did until now, from its log of kernels: [FROM TO]. "busy_ns" is how long at least one
 * kernel ran, of all processes or of one, between FROM and TO by the device's clock. "pieces" counts what ran in one go. */
#include "timed.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum { MOST = 1 << 22 };

static int by_begin(const void *a, const void *b)
{
    const struct span *x = a, *y = b;
    return (x->begin > y->begin) - (x->begin < y->begin);
}

/* The union of the spans of a process, or of all for 0. They are in order. */
static uint64_t busy(const struct span *spans, uint64_t count, int32_t pid, uint64_t from, uint64_t to, uint64_t *kernels)
{
    uint64_t sum = 0, until = from;
    *kernels = 0;
    for (uint64_t i = 0; i < count; i++) {
        if (pid && spans[i].pid != pid)
            continue;
        uint64_t begin = spans[i].begin > until ? spans[i].begin : until;
        uint64_t end = spans[i].end < to ? spans[i].end : to;
        *kernels += spans[i].last && spans[i].end > from && spans[i].end <= to;
        if (end > begin) {
            sum += end - begin;
            until = end;
        }
    }
    return sum;
}

int main(int argc, char **argv)
{
    struct span *spans = malloc(MOST * sizeof *spans);
    uint64_t now, lost, kernels, told = 0;
    int32_t pids[64];
    device_open(NULL);
    uint64_t count = device_spans(0, spans, MOST, &now, &lost);
    uint64_t from = argc > 2 ? strtoull(argv[1], NULL, 10) : 0, to = argc > 2 ? strtoull(argv[2], NULL, 10) : now;
    qsort(spans, count, sizeof *spans, by_begin);
    uint64_t all = busy(spans, count, 0, from, to, &kernels);
    printf("{\"clock_ns\":%" PRIu64 ",\"devices\":[{\"busy_ns\":%" PRIu64 ",\"kernels\":%" PRIu64 ",\"lost\":%" PRIu64
           ",\"processes\":[", now, all, kernels, lost);
    for (uint64_t i = 0; i < count; i++) {
        uint64_t known = 0;
        while (known < told && pids[known] != spans[i].pid)
            known++;
        if (known < told || told == 64)
            continue;
        all = busy(spans, count, pids[told++] = spans[i].pid, from, to, &kernels);
        printf("%s{\"pid\":%d,\"busy_ns\":%" PRIu64 ",\"kernels\":%" PRIu64 "}", told > 1 ? "," : "", spans[i].pid, all, kernels);
    }
    puts("]}]}");
    return 0;
}

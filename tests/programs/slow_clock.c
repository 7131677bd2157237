/* Preloaded where instructions are counted: under callgrind programs run some fifty times slower, and so does the clock here, that
 * they see as much time pass as they would without it. */
#define _GNU_SOURCE
#include <stdint.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { SLOWER = 50 };

static int64_t start;

int clock_gettime(clockid_t clock, struct timespec *time)
{
    int answer = (int)syscall(SYS_clock_gettime, clock, time);
    if (answer == 0 && (clock == CLOCK_MONOTONIC || clock == CLOCK_MONOTONIC_COARSE)) {
        int64_t now = time->tv_sec * 1000000000 + time->tv_nsec, none = 0;
        /* One beginning for both, or they would run apart. */
        __atomic_compare_exchange_n(&start, &none, now, 0, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
        now = start + (now - start) / SLOWER;
        time->tv_sec = now / 1000000000;
        time->tv_nsec = now % 1000000000;
    }
    return answer;
}

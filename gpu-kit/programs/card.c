/* What NVML says of the card, by a process that uses no CUDA:
 *
 *   card watch        samples the card's used memory until its standard input is closed; says the most that it saw
 *   card used         the card's used memory now
 *   card processes    who holds how much
 *   card times        how long NVML's calls take
 */
#define NVML_NO_UNVERSIONED_FUNC_DEFS
#include <nvml.h>
#include <poll.h>
#include "common.h"

static nvmlDevice_t card;

static long long used(void)
{
    nvmlMemory_t told;
    must(nvmlDeviceGetMemoryInfo(card, &told));
    return (long long)told.used;
}

static void watch(void)
{
    struct pollfd in = { .fd = 0, .events = POLLIN };
    long long now, most = 0, times = 0;
    say("used", used());
    do {
        now = used();
        most = now > most ? now : most;
        times++;
    } while (poll(&in, 1, 0) == 0);
    say("most", most);
    say("times", times);
}

static void processes(void)
{
    nvmlProcessInfo_t all[128];
    unsigned count = 128;
    must(nvmlDeviceGetComputeRunningProcesses_v3(card, &count, all));
    for (unsigned i = 0; i < count; i++) {
        say("pid", all[i].pid);
        say("bytes", (long long)all[i].usedGpuMemory);
    }
}

#define measure(name, call)                                                          \
    do {                                                                             \
        double least = 1, most = 0, sum = 0, start, took;                            \
        for (int i = 0; i < 50; i++) {                                               \
            start = seconds();                                                       \
            (void)(call);                                                            \
            took = seconds() - start;                                                \
            least = took < least ? took : least;                                     \
            most = took > most ? took : most;                                        \
            sum += took;                                                             \
        }                                                                            \
        printf("%s_least_ns=%.0f\n%s_mean_ns=%.0f\n%s_most_ns=%.0f\n", name, least * 1e9, name, sum / 50 * 1e9, name, \
               most * 1e9);                                                          \
    } while (0)

static void times(double init)
{
    nvmlProcessInfo_t all[128];
    nvmlMemory_t told;
    nvmlUtilization_t busy;
    unsigned count;
    printf("nvml_init_ns=%.0f\n", init * 1e9);
    measure("nvml_processes", (count = 128, nvmlDeviceGetComputeRunningProcesses_v3(card, &count, all)));
    say("nvml_processes_seen", count);
    measure("nvml_memory", nvmlDeviceGetMemoryInfo(card, &told));
    measure("nvml_utilization", nvmlDeviceGetUtilizationRates(card, &busy));
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "";
    double start = seconds();
    must(nvmlInit_v2());
    start = seconds() - start;
    must(nvmlDeviceGetHandleByIndex_v2(0, &card));
    if (strcmp(what, "watch") == 0)
        watch();
    else if (strcmp(what, "used") == 0)
        say("used", used());
    else if (strcmp(what, "processes") == 0)
        processes();
    else if (strcmp(what, "times") == 0)
        times(start);
    else
        return 2;
    return 0;
}

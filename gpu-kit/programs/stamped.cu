// Kernels that last as long as they are told, and write when they began and ended by the device's own clock: the truth of a
// share of GPU time on a real card, without a profiler.
//
// A log lies in device memory. Each kernel takes the next entry of it, so the kernels of a graph that is launched again and
// again need no argument of their own. All kernels are one block, whose begin and end are those of the launch.
struct entry {
    unsigned long long begin, end;
};

struct stamps {
    unsigned long long next, capacity;
    entry entries[];
};

static __device__ unsigned long long now()
{
    unsigned long long ns;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(ns)::"memory");
    return ns;
}

static __device__ void write(stamps *to, unsigned long long begin)
{
    if (threadIdx.x == 0 && to) {
        unsigned long long at = atomicAdd(&to->next, 1) % to->capacity;
        to->entries[at].begin = begin;
        to->entries[at].end = now();
    }
}

// Lasts `ns` nanoseconds of the clock, also while another process has the device.
static __device__ void spin(unsigned long long ns, stamps *to)
{
    unsigned long long begin = now();
    while (now() - begin < ns)
        ;
    write(to, begin);
}

// Does `rounds` rounds of arithmetic: what another process takes of the device comes on top.
static __device__ void work(unsigned long long rounds, stamps *to)
{
    unsigned long long begin = now(), x = begin | 1;
    for (unsigned long long i = 0; i < rounds; i++)
        x = x * 6364136223846793005ull + 1442695040888963407ull;
    write(x == 0 ? nullptr : to, begin);
}

// One kernel for each length, because a library that predicts how long a kernel takes does it by the kernel.
#define kernels(suffix)                                                                                   \
    extern "C" __global__ void timed_##suffix(unsigned long long ns, stamps *to) { spin(ns, to); }            \
    extern "C" __global__ void work_##suffix(unsigned long long rounds, stamps *to) { work(rounds, to); }

kernels(5us) kernels(10us) kernels(20us) kernels(50us) kernels(100us) kernels(200us) kernels(500us)
kernels(1ms) kernels(5ms) kernels(20ms)

extern "C" __global__ void nothing() {}

// The smallest step of the clock that a program can see, in nanoseconds.
extern "C" __global__ void clock_step(unsigned long long *step)
{
    unsigned long long least = ~0ull;
    for (int i = 0; i < 1000; i++) {
        unsigned long long first = now(), second;
        while ((second = now()) == first)
            ;
        least = min(least, second - first);
    }
    *step = least;
}

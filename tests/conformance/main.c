/* conformance [WORD...]: with --list names all promises; else puts every promise whose name contains one of the words to the test, all without one.
 * Says "name=1" for a promise that was kept, "name=0" for a broken one, "name=skipped: why" for one that this
 * device cannot be asked about. */
#include "promises.h"
#include <sys/socket.h>

static const struct promise *const subjects[] = {
    bad_input, captures, events, graphs, logs, memory, narrow, sharing, streams, virtual_memory,
};

CUdevice device;

void broken(const char *file, int line, const char *what, long long found, long long wanted)
{
    fprintf(stderr, "%s:%d: %s is %lld, not %lld\n", file, line, what, found, wanted);
    _exit(1);
}

void cannot(const char *why)
{
    fprintf(stderr, "%s", why);
    _exit(2);
}

int attribute(CUdevice_attribute which)
{
    int value;
    ok(cuDeviceGetAttribute(&value, which, device));
    return value;
}

size_t free_bytes(void)
{
    size_t left, total;
    ok(cuMemGetInfo(&left, &total));
    return left;
}

/* Spins on the device's clock as long as its argument says; the simulated device reads the name. */
static const char *const source =
    ".version 6.4\n.target sm_50\n.address_size 64\n"
    ".visible .entry spin_%dms(.param .u64 ns)\n{\n"
    "    .reg .u64 %%t<4>;\n    .reg .pred %%p;\n"
    "    ld.param.u64 %%t0, [ns];\n    mov.u64 %%t1, %%globaltimer;\n"
    "again:\n    mov.u64 %%t2, %%globaltimer;\n    sub.u64 %%t3, %%t2, %%t1;\n"
    "    setp.lt.u64 %%p, %%t3, %%t0;\n    @%%p bra again;\n    ret;\n}\n";

/* The kernels of this process, and the time that each spins. */
static struct {
    CUfunction kernel;
    unsigned long long nanoseconds;
} kernels[16];
static size_t known;

CUfunction kernel_of(int milliseconds)
{
    static char text[1024];
    char name[32];
    CUmodule module;
    CUfunction kernel;
    snprintf(text, sizeof text, source, milliseconds);
    snprintf(name, sizeof name, "spin_%dms", milliseconds);
    ok(cuModuleLoadData(&module, text));
    ok(cuModuleGetFunction(&kernel, module, name));
    holds(known < sizeof kernels / sizeof *kernels);
    kernels[known].kernel = kernel;
    kernels[known++].nanoseconds = milliseconds * 1000000ull;
    return kernel;
}

CUresult launch(CUfunction kernel, CUstream stream)
{
    unsigned long long nanoseconds = 0;
    void *parameters[] = { &nanoseconds };
    for (size_t i = 0; i < known; i++)
        if (kernels[i].kernel == kernel)
            nanoseconds = kernels[i].nanoseconds;
    return cuLaunchKernel(kernel, 1, 1, 1, 32, 1, 1, 0, stream, parameters, NULL);
}

CUstream stream_of(unsigned flags)
{
    CUstream stream;
    ok(cuStreamCreate(&stream, flags));
    return stream;
}

CUstream capturing(CUstreamCaptureMode mode)
{
    CUstream stream = stream_of(CU_STREAM_NON_BLOCKING);
    ok(cuStreamBeginCapture(stream, mode));
    return stream;
}

int other_process(const char *part, pid_t *process)
{
    int ends[2];
    char number[16];
    ok(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends));
    *process = fork();
    if (*process == 0) {
        int end = dup(ends[1]);
        snprintf(number, sizeof number, "%d", end);
        execl("/proc/self/exe", "conformance", "--part", part, number, NULL);
        _exit(1);
    }
    close(ends[1]);
    return ends[0];
}

static int play(const char *name, int pipe)
{
    for (const struct part *part = parts; part->name; part++)
        if (strcmp(part->name, name) == 0) {
            device = open_device();
            part->play(pipe);
            return 0;
        }
    return 1;
}

void tell(int pipe, const void *what, size_t size)
{
    same(write(pipe, what, size), size);
}

void hear(int pipe, void *what, size_t size)
{
    same(recv(pipe, what, size, MSG_WAITALL), size);
}

static int wanted(const char *name, int argc, char **argv)
{
    for (int i = 1; i < argc; i++)
        if (strstr(name, argv[i]))
            return 1;
    return argc < 2;
}

/* Runs one promise in a child; what it says of a failure comes back through a pipe. */
static int put_to_the_test(const struct promise *promise)
{
    char why[4096] = "";
    int status, ends[2];
    ssize_t length = 0, more;

    must(pipe(ends));
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        dup2(ends[1], 2);
        device = open_device();
        promise->keep();
        _exit(0);
    }
    close(ends[1]);
    while ((more = read(ends[0], why + length, sizeof why - 1 - length)) > 0)
        length += more;
    close(ends[0]);
    must(waitpid(child, &status, 0) != child);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) {
        printf("%s=1\n", promise->name);
    } else if (WIFEXITED(status) && WEXITSTATUS(status) == 2) {
        printf("%s=skipped: %s\n", promise->name, why);
    } else {
        printf("%s=0\n", promise->name);
        fprintf(stderr, "%s: %s%s\n", promise->name, why, WIFSIGNALED(status) ? strsignal(WTERMSIG(status)) : "");
        return 1;
    }
    return 0;
}

int main(int argc, char **argv)
{
    int bad = 0;
    int list = argc == 2 && strcmp(argv[1], "--list") == 0;
    if (argc == 4 && strcmp(argv[1], "--part") == 0)
        return play(argv[2], atoi(argv[3]));
    for (size_t i = 0; i < sizeof subjects / sizeof *subjects; i++)
        for (const struct promise *promise = subjects[i]; promise->name; promise++)
            if (list)
                puts(promise->name);
            else if (wanted(promise->name, argc, argv))
                bad += put_to_the_test(promise);
    return bad > 0;
}

/* The conformance suite: what a CUDA driver promises, held to the simulated one and, by the same binary, to a
 * real one. One file per subject, one function per promise, each run in a process of its own: it begins with
 * device 0's primary context current, and a crash is a broken promise and nothing more. */
#pragma once
#include "../programs/common.h"

struct promise {
    const char *name;
    void (*keep)(void);
};

#define PROMISE(function) { #function, function }

extern const struct promise bad_input[], captures[], events[], graphs[], logs[], memory[], narrow[], sharing[], streams[], virtual_memory[];

/* Ends the process and says what was expected where, unless `a` is `b`. */
#define same(a, b)                                                                     \
    do {                                                                               \
        long long same_a_ = (long long)(a), same_b_ = (long long)(b);                  \
        if (same_a_ != same_b_)                                                        \
            broken(__FILE__, __LINE__, #a, same_a_, same_b_);                          \
    } while (0)
#define ok(call) same(call, CUDA_SUCCESS)
#define holds(condition) same(!(condition), 0)

/* The assertion that answers a complaint of docs/complaints.md, by the first thread of its row. */
#define promised(complaint, assertion) assertion

void broken(const char *file, int line, const char *what, long long found, long long wanted) __attribute__((noreturn));
/* This device or driver cannot do what the promise is about: it is not put to the test. */
void cannot(const char *why) __attribute__((noreturn));

/* Device 0, whose primary context is current. */
extern CUdevice device;

/* An attribute of device 0. */
int attribute(CUdevice_attribute which);
/* A kernel that does nothing for about so many milliseconds, or, for 0, nothing at all. */
CUfunction kernel_of(int milliseconds);
/* Launches it once, one block of one warp. */
CUresult launch(CUfunction kernel, CUstream stream);
/* A stream of its own, and one that does not wait for the legacy stream and captures. */
CUstream stream_of(unsigned flags);
CUstream capturing(CUstreamCaptureMode mode);

/* A part that a second process plays: it has device 0's primary context current and a pipe to the promise. */
struct part {
    const char *name;
    void (*play)(int pipe);
};
extern const struct part parts[];
/* Starts it; answers the promise's end of the pipe. */
int other_process(const char *part, pid_t *process);
/* Through a pipe, whole or not at all. */
void tell(int pipe, const void *what, size_t size);
void hear(int pipe, void *what, size_t size);

/* The free bytes of device 0. */
size_t free_bytes(void);

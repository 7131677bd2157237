/* COUNT processes that all have a context at the same time, then launch five kernels each and wait for each of them: how many
 * did, and how many got no context, by the error. */
#include "common.h"

static CUresult has_context(CUcontext *context)
{
    CUresult rc = cuInit(0);
    return rc ? rc : cuDevicePrimaryCtxRetain(context, 0);
}

static void work(CUcontext context)
{
    CUmodule module;
    CUfunction kernel;
    must(cuCtxSetCurrent(context));
    must(cuModuleLoadData(&module, ".version 7.0\n.target sm_50\n.address_size 64\n.visible .entry busy_10us()\n{\n    ret;\n}\n"));
    must(cuModuleGetFunction(&kernel, module, "busy_10us"));
    for (int i = 0; i < 5; i++) {
        must(cuLaunchKernel(kernel, 1, 1, 1, 32, 1, 1, 0, NULL, NULL, NULL));
        must(cuCtxSynchronize());
    }
}

int main(int argc, char **argv)
{
    long long count = number(argc, argv, 1, 10), worked = 0, full = 0, other = 0;
    int here[2], go[2], status;
    char byte = 0;
    must(pipe(here) || pipe(go));
    for (int i = 0; i < count; i++) {
        pid_t child = fork();
        must(child < 0);
        if (child)
            continue;
        CUcontext context;
        CUresult rc = has_context(&context);
        close(go[1]);
        must(write(here[1], &byte, 1) != 1);
        /* Ends once the parent has closed the other end. */
        must(read(go[0], &byte, 1) != 0);
        if (rc == CUDA_SUCCESS)
            work(context);
        _exit(rc);
    }
    for (int i = 0; i < count; i++)
        must(read(here[0], &byte, 1) != 1);
    close(go[1]);
    while (wait(&status) > 0) {
        int rc = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
        worked += rc == CUDA_SUCCESS;
        full += rc == CUDA_ERROR_OUT_OF_MEMORY;
        other += rc != CUDA_SUCCESS && rc != CUDA_ERROR_OUT_OF_MEMORY;
    }
    say("worked", worked);
    say("full", full);
    say("other", other);
    return 0;
}

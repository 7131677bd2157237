/* What nvcc's own code does for a kernel, for runtimes older than this nvcc can compile for: registers the fatbin
 * that lies in the file KERNELS_FATBIN, and gives the kernel in it a name on the host. */
#pragma once
#include <cuda_runtime_api.h>

extern "C" {
void **__cudaRegisterFatBinary(const void *wrapper);
void __cudaRegisterFatBinaryEnd(void **handle);
void __cudaUnregisterFatBinary(void **handle);
void __cudaRegisterFunction(void **handle, const char *host, char *device, const char *name, int threads, void *tid,
                            void *bid, void *block, void *grid, int *warp);
extern const char kernels_fatbin[];
}

__asm__(".section .nv_fatbin, \"a\"\n.align 8\n.globl kernels_fatbin\nkernels_fatbin: .incbin \"" KERNELS_FATBIN "\"\n.previous\n");

static struct registered {
    struct {
        int magic, version;
        const void *data, *file;
    } wrapper = { 0x466243b1, 1, kernels_fatbin, nullptr };
    void **handle = __cudaRegisterFatBinary(&wrapper);

    registered(const void *host, const char *name)
    {
        char *device = const_cast<char *>(name);
        __cudaRegisterFunction(handle, static_cast<const char *>(host), device, name, -1, nullptr, nullptr, nullptr, nullptr, nullptr);
        __cudaRegisterFatBinaryEnd(handle);
    }
    ~registered() { __cudaUnregisterFatBinary(handle); }
} registered(&registered, "busy_5ms");

static void launch_busy(cudaStream_t stream)
{
    int *out = nullptr;
    void *parameters[] = { &out };
    cudaLaunchKernel(&registered, dim3(1), dim3(32), parameters, 0, stream);
}

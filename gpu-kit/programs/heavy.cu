// A module that takes memory by being there: 64 MiB of variables, and a kernel that needs 16 KiB of local memory a thread.
__device__ unsigned char variables[64 << 20];

extern "C" __global__ void local_memory(unsigned *out, unsigned seed)
{
    unsigned local[4096];
    for (unsigned i = 0; i < 4096; i++)
        local[i] = seed * i;
    for (unsigned i = 0; i < 64; i++)
        seed = local[(seed ^ i) & 4095] + variables[seed & 1023];
    *out = seed;
}

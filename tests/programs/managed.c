/* Managed memory, line by line: "take BYTES", "give" the last one, "prefetch" all to the device and advise that they lie there,
 * "send TYPE ID" the last one to such a location, "advise TYPE ID" that it lies there, "info". */
#include "common.h"

int main(void)
{
    static struct { CUdeviceptr memory; size_t bytes; } all[64];
    const CUmemLocation device = { .type = CU_MEM_LOCATION_TYPE_DEVICE, .id = 0 };
    CUmemLocation place;
    int count = 0;
    char line[64];

    open_device();
    say_memory();
    while (next_line(line, sizeof line)) {
        CUresult rc = CUDA_SUCCESS;
        if (sscanf(line, "take %zu", &all[count].bytes) == 1) {
            rc = cuMemAllocManaged(&all[count].memory, all[count].bytes, CU_MEM_ATTACH_GLOBAL);
            count += rc == CUDA_SUCCESS;
        } else if (!strncmp(line, "give", 4)) {
            rc = cuMemFree(all[--count].memory);
        } else if (!strncmp(line, "prefetch", 8)) {
            for (int i = 0; i < count && rc == CUDA_SUCCESS; i++) {
                rc = cuMemPrefetchAsync(all[i].memory, all[i].bytes, device, 0, NULL);
                if (rc == CUDA_SUCCESS)
                    rc = cuMemAdvise(all[i].memory, all[i].bytes, CU_MEM_ADVISE_SET_PREFERRED_LOCATION, device);
            }
        } else if (sscanf(line, "send %d %d", (int *)&place.type, &place.id) == 2) {
            rc = cuMemPrefetchAsync(all[count - 1].memory, all[count - 1].bytes, place, 0, NULL);
        } else if (sscanf(line, "advise %d %d", (int *)&place.type, &place.id) == 2) {
            rc = cuMemAdvise(all[count - 1].memory, all[count - 1].bytes, CU_MEM_ADVISE_SET_PREFERRED_LOCATION, place);
        } else {
            say_memory();
        }
        say("rc", rc);
    }
    return 0;
}

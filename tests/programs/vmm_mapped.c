/* Memory of a handle that was released while it is still mapped is held until the mapping is gone. */
#include "common.h"

int main(void)
{
    CUmemAllocationProp where = { .type = CU_MEM_ALLOCATION_TYPE_PINNED, .location.type = CU_MEM_LOCATION_TYPE_DEVICE };
    CUmemGenericAllocationHandle handle;
    CUdeviceptr address;

    open_device();
    say_memory();
    must(cuMemCreate(&handle, 64 * MIB, &where, 0));
    must(cuMemAddressReserve(&address, 64 * MIB, 0, 0, 0));
    must(cuMemMap(address, 64 * MIB, 0, handle, 0));
    must(cuMemRelease(handle));
    say_memory();
    must(cuMemUnmap(address, 64 * MIB));
    say_memory();
    must(cuMemAddressFree(address, 64 * MIB));
    return 0;
}

/* Makes as many arrays of 16 KiB as its argument says, and destroys them. Says what was free before, with them and after. */
#include "common.h"

int main(int argc, char **argv)
{
    enum { MOST = 100000 };
    static CUarray arrays[MOST];
    const CUDA_ARRAY_DESCRIPTOR shape = { 64, 64, CU_AD_FORMAT_FLOAT, 1 };
    long count = number(argc, argv, 1, 100), made = 0;
    CUresult rc = CUDA_SUCCESS;

    open_device();
    say_memory();
    while (made < count && made < MOST && (rc = cuArrayCreate(&arrays[made], &shape)) == CUDA_SUCCESS)
        made++;
    say("rc", rc);
    usleep(10000);
    say_memory();
    while (made)
        must(cuArrayDestroy(arrays[--made]));
    usleep(10000);
    say_memory();
    return 0;
}

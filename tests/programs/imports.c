/* Imports memory of a process of its own, which makes BYTES and as much again that it does not share: by "handle" (legacy IPC),
 * "descriptor" (the virtual memory API) or "pool". Then line by line: "kill" the other process, "take BYTES", "give" the import
 * back, "destroy" the pool, "info". */
#include "common.h"
#include "descriptors.h"

static const CUmemPoolProps shareable_pool = {
    .allocType = CU_MEM_ALLOCATION_TYPE_PINNED,
    .handleTypes = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR,
    .location.type = CU_MEM_LOCATION_TYPE_DEVICE,
};

static void exports(const char *way, size_t bytes, int socket)
{
    CUdeviceptr memory, own;
    CUmemGenericAllocationHandle handle;
    int descriptor;

    open_device();
    must(cuMemAlloc(&own, bytes));
    if (!strcmp(way, "handle")) {
        CUipcMemHandle shared;
        must(cuMemAlloc(&memory, bytes));
        must(cuIpcGetMemHandle(&shared, memory));
        must(write(socket, &shared, sizeof shared) != sizeof shared);
    } else if (!strcmp(way, "descriptor")) {
        must(cuMemCreate(&handle, bytes, &shareable, 0));
        must(cuMemExportToShareableHandle(&descriptor, handle, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0));
        must(!send_descriptor(socket, descriptor));
    } else {
        CUmemoryPool pool;
        CUmemPoolPtrExportData shared;
        must(cuMemPoolCreate(&pool, &shareable_pool));
        must(cuMemPoolExportToShareableHandle(&descriptor, pool, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0));
        must(!send_descriptor(socket, descriptor));
        must(cuMemAllocFromPoolAsync(&memory, bytes, pool, NULL));
        must(cuStreamSynchronize(NULL));
        must(cuMemPoolExportPointer(&shared, memory));
        must(write(socket, &shared, sizeof shared) != sizeof shared);
    }
    pause();
}

static CUdeviceptr imported;
static CUmemoryPool imported_pool;
static CUmemGenericAllocationHandle imported_handle;

static void imports(const char *way, int socket)
{
    if (!strcmp(way, "handle")) {
        CUipcMemHandle shared;
        must(recv(socket, &shared, sizeof shared, MSG_WAITALL) != sizeof shared);
        must(cuIpcOpenMemHandle(&imported, shared, CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS));
        return;
    }
    int descriptor = receive_descriptor(socket);
    if (!strcmp(way, "descriptor")) {
        must(cuMemImportFromShareableHandle(&imported_handle, (void *)(intptr_t)descriptor, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR));
    } else {
        CUmemPoolPtrExportData shared;
        must(cuMemPoolImportFromShareableHandle(&imported_pool, (void *)(intptr_t)descriptor, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0));
        must(cuMemPoolSetAccess(imported_pool, &everything, 1));
        must(recv(socket, &shared, sizeof shared, MSG_WAITALL) != sizeof shared);
        must(cuMemPoolImportPointer(&imported, imported_pool, &shared));
    }
    close(descriptor);
}

static CUresult give(const char *way)
{
    if (!strcmp(way, "handle"))
        return cuIpcCloseMemHandle(imported);
    return strcmp(way, "descriptor") ? cuMemFree(imported) : cuMemRelease(imported_handle);
}

int main(int argc, char **argv)
{
    const char *way = argc > 1 ? argv[1] : "handle";
    size_t bytes = (size_t)number(argc, argv, 2, 64 * MIB), more;
    CUdeviceptr memory;
    int ends[2], status;
    char line[64];

    must(socketpair(AF_UNIX, SOCK_STREAM, 0, ends));
    pid_t other = fork();
    if (other == 0) {
        exports(way, bytes, ends[1]);
        _exit(0);
    }
    open_device();
    imports(way, ends[0]);
    say("imported", (long long)bytes);
    while (next_line(line, sizeof line)) {
        CUresult rc = CUDA_SUCCESS;
        if (!strncmp(line, "kill", 4)) {
            must(kill(other, SIGKILL));
            must(waitpid(other, &status, 0) != other);
        } else if (sscanf(line, "take %zu", &more) == 1) {
            rc = cuMemAlloc(&memory, more);
        } else if (!strncmp(line, "give", 4)) {
            rc = give(way);
        } else if (!strncmp(line, "destroy", 7)) {
            rc = cuMemPoolDestroy(imported_pool);
        } else {
            say_memory();
        }
        say("rc", rc);
    }
    kill(other, SIGKILL);
    return 0;
}

/* Descriptors between processes: one travels through a socket as ancillary data of one byte. And the device memory that can be
 * shared by one. */
#pragma once
#include <cuda.h>
#include <string.h>
#include <sys/socket.h>

static const CUmemAllocationProp shareable = {
    .type = CU_MEM_ALLOCATION_TYPE_PINNED,
    .requestedHandleTypes = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR,
    .location.type = CU_MEM_LOCATION_TYPE_DEVICE,
};
static const CUmemAccessDesc everything = {
    .location.type = CU_MEM_LOCATION_TYPE_DEVICE,
    .flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE,
};

union descriptor_message {
    char bytes[CMSG_SPACE(sizeof(int))];
    struct cmsghdr head;
};

/* Whether it went out. */
static inline int send_descriptor(int socket, int descriptor)
{
    union descriptor_message with;
    struct iovec byte = { .iov_base = "", .iov_len = 1 };
    struct msghdr message = { .msg_iov = &byte, .msg_iovlen = 1, .msg_control = &with, .msg_controllen = sizeof with };
    memset(&with, 0, sizeof with);
    with.head.cmsg_level = SOL_SOCKET;
    with.head.cmsg_type = SCM_RIGHTS;
    with.head.cmsg_len = CMSG_LEN(sizeof descriptor);
    memcpy(CMSG_DATA(&with.head), &descriptor, sizeof descriptor);
    return sendmsg(socket, &message, 0) == 1;
}

/* The one that comes, or -1. */
static inline int receive_descriptor(int socket)
{
    union descriptor_message with;
    char nothing;
    int descriptor;
    struct iovec byte = { .iov_base = &nothing, .iov_len = 1 };
    struct msghdr message = { .msg_iov = &byte, .msg_iovlen = 1, .msg_control = &with, .msg_controllen = sizeof with };
    if (recvmsg(socket, &message, 0) != 1)
        return -1;
    memcpy(&descriptor, CMSG_DATA(&with.head), sizeof descriptor);
    return descriptor;
}

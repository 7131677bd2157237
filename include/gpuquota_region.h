/*
 * The shared region of gpuquota, ABI 1.0: one file per container, mapped by every process under the quota.
 * SPDX-License-Identifier: Apache-2.0
 *
 * This file is the specification; region/src/layout.rs says the same in Rust, and a test holds the two together.
 *
 * - Little-endian, naturally aligned, fixed width. Every word that can change is read and written atomically.
 * - Bytes [0, 2008952) are HAMi's shared region v1.2, kept as a view for monitors that know it. It is written for
 *   them and never read to decide, but for recent_kernel and utilization_switch. Ours begins at 0x1EB000.
 * - Readers outside the container: use pread, not a mapping (a tenant may truncate the file); check magic, major
 *   and state; step by record_bytes, which may be larger in a later minor version; believe nothing.
 * - Nothing in the file is a lock. Liveness: slot i is held while byte GPUQUOTA_SLOT_BYTE + i is write-locked
 *   (OFD, F_OFD_GETLK tells). A process also holds a classic record lock on GPUQUOTA_PID_BYTE + i: F_GETLK gives
 *   its pid translated into the asker's PID namespace (0 if it is not visible from there).
 * - The file is never shrunk, renamed or replaced, and no file is ever put beside it.
 */
#ifndef GPUQUOTA_REGION_H
#define GPUQUOTA_REGION_H

#include <stddef.h>
#include <stdint.h>

#define GPUQUOTA_OURS 0x1EB000u
#define GPUQUOTA_MAGIC 0x41544F5551555047ull /* "GPUQUOTA" */
#define GPUQUOTA_ABI_MAJOR 1u
#define GPUQUOTA_DEVICES 32
#define GPUQUOTA_SLOTS 1024
#define GPUQUOTA_LANES 32
#define GPUQUOTA_EVENTS 256
#define GPUQUOTA_GAPS 14
#define GPUQUOTA_WAIT_TIMES 8
#define GPUQUOTA_SLOT_BYTE (1ull << 44)
#define GPUQUOTA_PID_BYTE (GPUQUOTA_SLOT_BYTE + 0x10000)
#define GPUQUOTA_INIT_BYTE (GPUQUOTA_SLOT_BYTE + 0x20000)

/* One page. */
/* What the container and the node's agent say of turns on a device that others share. */
struct gpuquota_turns {
    uint64_t turn;         /* agent: from (us, 48 bits) | length (16384 ns, 16 bits, all ones: no end); 0: no turns */
    uint64_t told_at;      /* agent: when it last said anything, CLOCK_MONOTONIC ns */
    uint32_t bell;         /* agent: counts changes of turn; a futex */
    uint32_t terms;        /* percent of the turns (8 bits, 0: core_limit), 0x100 borrows, 0x200 only what others leave */
    uint64_t asked_at;     /* when a launch last waited for a turn, CLOCK_MONOTONIC ns */
    uint64_t in_flight_ns; /* predicted GPU time of measured launches in flight */
    uint64_t doubt_ns;     /* by how much that may be wrong */
    uint64_t waited_ns;    /* launches waited for a turn */
    uint64_t held_ns;      /* agent: the container had the device while others waited */
};

struct gpuquota_header {
    uint64_t magic;            /* GPUQUOTA_MAGIC */
    uint32_t abi_major;        /* a reader refuses any other */
    uint32_t abi_minor;        /* a reader accepts larger ones */
    uint64_t length;           /* bytes of the whole file */
    uint32_t record_bytes[4];  /* of a device, slot, lane, event */
    uint32_t record_count[4];  /* lanes are counted per slot */
    uint64_t record_offset[4]; /* from the start of the file */
    uint64_t generation;       /* how often the file was initialised */
    uint64_t boot_id[2];       /* clocks and pids of another boot mean nothing */
    uint64_t time_namespace;   /* inode; virtual times are in its CLOCK_MONOTONIC */
    uint64_t created_at_ns;    /* since 1970 */
    uint32_t state;            /* 1: every field is valid; written last */
    uint32_t spoken;           /* 1: the container's one line on stderr was written */
    uint32_t slot_high;        /* slots [0, slot_high) have been used */
    uint32_t mode;             /* 0 enforce, 1 observe, 2 off */
    uint64_t event_next;       /* events so far; event n lies at n % GPUQUOTA_EVENTS */
    uint64_t fallbacks;        /* incidents survived by the driver's own answer */
    uint32_t shares;           /* not 0 once any device has a core limit */
    uint32_t pad0;
    uint64_t monitor_ns;       /* when HAMi's monitor was last seen at work, CLOCK_MONOTONIC */
    uint64_t pad1[2];
    /* offset 192 */
    struct gpuquota_turns turns[GPUQUOTA_DEVICES]; /* of each device */
    uint64_t reserved[232];
};

struct gpuquota_device {
    uint8_t uuid[96];      /* text as NVML writes it, zero-padded */
    uint32_t state;        /* 0 free, 1 being written, 2 valid */
    uint32_t core_limit;   /* percent of GPU time, 1..100; 0 and 100: none */
    uint64_t memory_limit; /* bytes; 0: none */
    uint64_t memory_total; /* bytes of the real device */
    uint32_t claimed_by;   /* pid while state is 1 */
    uint32_t pad0;
    /* offset 128 */
    uint64_t used;         /* ledger word: bytes 46 bits, last lane 15, turn 3 */
    uint64_t peak;         /* bytes */
    uint64_t denied;       /* requests refused */
    uint64_t would_deny;   /* observe mode */
    uint64_t reaped_at_ns; /* CLOCK_MONOTONIC */
    uint64_t spilled;      /* of `used`, what lies on the host; a word like it */
    uint64_t spills;       /* allocations sent to the host */
    uint64_t physical_limit; /* bytes that do not lie on the host; 0: none */
    /* offset 192 */
    uint64_t virtual_time; /* CLOCK_MONOTONIC ns */
    uint64_t busy_until;   /* CLOCK_MONOTONIC ns */
    uint64_t longest;      /* largest charge, ns */
    uint64_t virtual_rate; /* percent in which the lead of virtual_time is reckoned */
    uint64_t idle_at;      /* when virtual_time was last found behind, CLOCK_MONOTONIC ns */
    uint64_t flight_until; /* when all in flight should be over, CLOCK_MONOTONIC ns */
    uint64_t gaps_from;    /* gaps before this are forgotten, CLOCK_MONOTONIC ns */
    uint64_t idle_ns;      /* by how much virtual_time was found behind, less what has been made up for */
    /* offset 256 */
    uint64_t gpu_time_ns;
    uint64_t waited_ns;        /* for the share, or a higher priority */
    uint64_t launches;         /* under a core limit */
    uint64_t waits;            /* launches that waited, for whatever */
    uint64_t would_wait;       /* observe mode */
    uint64_t clamped;          /* virtual times that no charge explains */
    uint64_t waited_flight_ns; /* for work of the same process that was in flight */
    uint64_t pad1;
    /* offset 320 */
    uint64_t gaps[GPUQUOTA_GAPS];             /* idle before busy_until: start 34 bits, 64 ns | length 22, 256 ns | idle 8, 1/256 */
    uint64_t wait_times[GPUQUOTA_WAIT_TIMES]; /* launches that waited: up to 100 us, 1 ms ... 100 s, and longer */
    uint64_t reserved[2];
};

struct gpuquota_slot {
    uint32_t state;           /* 0 free, 1 taken */
    uint32_t pid;             /* in the process's own namespace */
    uint64_t start_time;      /* clock ticks since boot */
    uint64_t pid_namespace;   /* inode */
    uint32_t host_pid;        /* filled in by the agent; 0 until then */
    uint32_t priority;        /* 0 is the highest */
    uint64_t heartbeat_ns;    /* CLOCK_MONOTONIC */
    uint64_t pad1[3];
    uint8_t lane_device[32];  /* device index + 1; 0: lane not in use */
    uint8_t lane_kind[32];    /* 0 asked for, 1 contexts, 2 code and heaps, 3 pools, 4 graphs; 5 of 0: on the host */
    uint64_t pending_ns[32];  /* GPU time admitted, not settled, by device */
    uint64_t reserved[16];
};

struct gpuquota_lane {
    uint64_t amount;    /* of the operation under way, two's complement */
    uint64_t operation; /* sequence 63 bits << 1 | applied */
    uint64_t held;      /* bytes 48 bits << 16 | low bits of the sequence folded in */
    uint64_t reserving; /* bytes reserved for a call that has not returned */
};

struct gpuquota_event {
    uint64_t stamp;     /* number + 1 once complete */
    uint32_t code;      /* 1 denied, 2 bad limits, 3 reaped, 4 started anew, 5 holder, 6 killed */
    uint32_t pid;
    uint32_t device;    /* index, or 0xffffffff */
    uint32_t pad0;
    uint64_t requested;
    uint64_t used;
    uint64_t limit;
    uint64_t time_ns;   /* since 1970 */
    uint64_t pad1;
};

struct gpuquota_ours {
    struct gpuquota_header header;
    struct gpuquota_device devices[GPUQUOTA_DEVICES];
    struct gpuquota_slot slots[GPUQUOTA_SLOTS];
    struct gpuquota_lane lanes[GPUQUOTA_SLOTS][GPUQUOTA_LANES];
    struct gpuquota_event events[GPUQUOTA_EVENTS];
};

/* HAMi's region v1.2, as far as the view fills it in. */
struct gpuquota_hami_used {
    uint64_t context, module, data, offset, total, unused[3];
};
struct gpuquota_hami_utilization {
    uint64_t dec_enc_sm[3], unused[3];
};
struct gpuquota_hami_process {
    int32_t pid, host_pid;
    struct gpuquota_hami_used used[16];
    uint64_t monitor_used[16];
    struct gpuquota_hami_utilization utilization[16];
    int32_t status; /* 0: a hole */
    uint32_t pad;
    uint64_t sequence, unused[2];
};
struct gpuquota_hami_view {
    int32_t initialized_flag; /* 19920718 */
    uint32_t major, minor;    /* 1, 2 */
    uint32_t sm_init_flag;
    uint64_t owner_pid;
    uint64_t sem[4];          /* inert: value 1 */
    uint64_t device_num;
    uint8_t uuids[16][96];
    uint64_t limit[16], sm_limit[16];
    struct gpuquota_hami_process procs[1024];
    int32_t proc_num, utilization_switch, recent_kernel, priority;
    uint64_t last_kernel_time; /* unix seconds */
    uint64_t sem_postinit[4];
};

#endif

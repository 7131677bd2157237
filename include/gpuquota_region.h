/*
 * The shared region of gpuquota, ABI 1.4: one file per container, mapped by every process under the quota.
 * SPDX-License-Identifier: Apache-2.0
 *
 * This file is the specification, and docs/region.md explains it. region/src/layout.rs says the same in Rust; a test
 * (tests/tests/abi.rs) compares every number, field, offset and length of the two.
 *
 * - Little-endian, naturally aligned, fixed width. Every word that can change is read and written atomically.
 * - Bytes [0, 2008952) are HAMi's shared region v1.2, kept as a view for monitors that know it. gpuquota writes it for
 *   them and reads only recent_kernel and utilization_switch. Ours begins at GPUQUOTA_OURS.
 * - Readers outside the container: use pread, not a mapping (a tenant may truncate the file); check magic, abi_major and
 *   state; step by record_bytes, which may be larger in a later minor version; believe nothing.
 * - Writers: refuse a file unless abi_major is GPUQUOTA_ABI_MAJOR and record_bytes, record_count and record_offset are
 *   what this header says.
 * - Nothing in the file is a lock. Liveness: slot i is held while byte GPUQUOTA_SLOT_BYTE + i is write-locked
 *   (OFD, F_OFD_GETLK tells). A process also holds a classic record lock on GPUQUOTA_PID_BYTE + i: F_GETLK gives
 *   its pid translated into the asker's PID namespace (0 if it is not visible from there).
 * - The file is never shrunk, renamed or replaced. It has a second name in its directory, .NAME.gpuquota, by which it is
 *   found again if its path was removed while processes hold it.
 * - Version rule: a release that gives a meaning to reserved bytes, bits or codes, or takes one away, raises ABI_MINOR;
 *   0 in them means "not known". Any other change raises ABI_MAJOR.
 *   1.1: leases. 1.2: host_pid of a slot and mode of the header, which nothing ever wrote, are reserved;
 *   GPUQUOTA_EVENT_STARTED_ANEW and HAMi's last_kernel_time are written. 1.3: limits, limits_seq, limit_conflicts,
 *   context_bytes, estimated_contexts, maker_user, maker_mounts, maker_pids, shared_told, events 7 to 11; the file is
 *   longer, so an earlier file in use is refused. 1.4: refusals.
 */
#ifndef GPUQUOTA_REGION_H
#define GPUQUOTA_REGION_H

#include <stddef.h>
#include <stdint.h>

/* Version and place. */
#define GPUQUOTA_MAGIC 0x41544F5551555047ull /* "GPUQUOTA" */
#define GPUQUOTA_ABI_MAJOR 1
#define GPUQUOTA_ABI_MINOR 4
#define GPUQUOTA_OURS 0x1EB000        /* where struct gpuquota_ours begins */
#define GPUQUOTA_FILE_BYTES 0x3F5000  /* of the whole file */

/* Counts. */
#define GPUQUOTA_ARRAYS 4       /* kinds of records: device, slot, journal, event */
#define GPUQUOTA_DEVICES 32
#define GPUQUOTA_SLOTS 1024
#define GPUQUOTA_JOURNALS 32    /* of one slot */
#define GPUQUOTA_EVENTS 256
#define GPUQUOTA_LIMIT_ROWS (GPUQUOTA_SLOTS + 8) /* one for each slot, and the operator's; the others are reserved */
#define GPUQUOTA_END_ROW 1031 /* the last word of this row, and of the file, repeats created_at_ns: a file that was cut has lost it */
#define GPUQUOTA_OPERATOR_ROW GPUQUOTA_SLOTS
#define GPUQUOTA_GAPS 14
#define GPUQUOTA_WAIT_TIMES 8
#define GPUQUOTA_UUID_BYTES 96

/* Lock bytes. */
#define GPUQUOTA_SLOT_BYTE (1ull << 44)                        /* + slot: held while its process lives (OFD) */
#define GPUQUOTA_PID_BYTE (GPUQUOTA_SLOT_BYTE + 0x10000)       /* + slot: tells its process's pid (classic) */
#define GPUQUOTA_INIT_BYTE (GPUQUOTA_SLOT_BYTE + 0x20000)      /* held while the file is initialised (OFD) */
#define GPUQUOTA_AGENT_BYTE (GPUQUOTA_SLOT_BYTE + 0x20001)     /* held by the agent that gives leases (OFD) */

/* gpuquota_header.state */
#define GPUQUOTA_STATE_EMPTY 0
#define GPUQUOTA_STATE_READY 1

/* gpuquota_lease.policy */
#define GPUQUOTA_POLICY_REQUEST 0xFF    /* these bits: percent that the container requests; 0: core_limit */
#define GPUQUOTA_POLICY_BURST 0x100     /* it may have what others leave, beyond core_limit */
#define GPUQUOTA_POLICY_IDLE_ONLY 0x200 /* it has only what others leave */

/* gpuquota_header.shares */
#define GPUQUOTA_SHARES_SOME 1          /* a device has or had a core limit, or the agent gives leases */
#define GPUQUOTA_SHARES_NONE 0x80000000 /* this bit: none of these; the others differ between regions */

/* gpuquota_device.state */
#define GPUQUOTA_DEVICE_FREE 0
#define GPUQUOTA_DEVICE_CLAIMED 1 /* a process is writing the record */
#define GPUQUOTA_DEVICE_READY 2

/* gpuquota_device.context_bytes */
#define GPUQUOTA_CONTEXT_BYTES_UNSEEN 1 /* a context was made, and the driver showed nothing that it takes */

/* gpuquota_slot.state */
#define GPUQUOTA_SLOT_FREE 0
#define GPUQUOTA_SLOT_TAKEN 1
#define GPUQUOTA_SLOT_LEFT 2

/* gpuquota_slot.journal_kind */
#define GPUQUOTA_KIND_DATA 0    /* what programs asked for: memory, arrays, physical memory */
#define GPUQUOTA_KIND_CONTEXT 1 /* contexts, as measured */
#define GPUQUOTA_KIND_MODULE 2  /* code, heaps, local memory, as measured */
#define GPUQUOTA_KIND_POOL 3    /* what stream-ordered pools hold, in use or not */
#define GPUQUOTA_KIND_GRAPH 4   /* what graphs hold, in use or not */
#define GPUQUOTA_KINDS 5        /* the kinds before this one add up to what is charged */
#define GPUQUOTA_KIND_SPILLED 5 /* which of KIND_DATA lies on the host */

/* gpuquota_event.code, and what requested, used and limit are */
#define GPUQUOTA_EVENT_DENIED 1       /* a request for memory was refused: bytes, bytes, bytes */
#define GPUQUOTA_EVENT_BAD_LIMITS 2   /* limits could not be understood: how many, -, - */
#define GPUQUOTA_EVENT_REAPED 3       /* a dead process's bytes were given back: -, bytes, - */
#define GPUQUOTA_EVENT_STARTED_ANEW 4 /* the file was of another boot, or half initialised: -, -, - */
#define GPUQUOTA_EVENT_HOLDER 5       /* behind EVENT_DENIED, a holder: its pid, its bytes, KIND_ of most of them */
#define GPUQUOTA_EVENT_KILLED 6       /* a process was killed to make room: its pid, its bytes, its priority */
#define GPUQUOTA_EVENT_LIMIT_DIFFERS 7 /* the writer asked for another limit than holds: asked, LIMIT_KIND_, in force */
#define GPUQUOTA_EVENT_LIMIT_CHANGED 8 /* the writer changed the limit in force: before, LIMIT_KIND_, from now on */
#define GPUQUOTA_EVENT_NAME_RESTORED 9 /* the path had lost the region, which processes held: 1 if it has no name, pid of a holder */
#define GPUQUOTA_EVENT_TWO_REGIONS 10  /* living processes hold another region of this path: -, pid of one of them, - */
#define GPUQUOTA_EVENT_SHARED 11       /* the writer shares the default region: user and mount namespace of its maker */
#define GPUQUOTA_EVENT_CONTENTS_LOST 12 /* the file was truncated or overwritten while processes held it: 1 if the writer made it anew, bytes that it put back, - */
#define GPUQUOTA_REASONS 8                /* reasons of refusals, those that are reserved too */
#define GPUQUOTA_REFUSED_MEMORY_LIMIT 0   /* the cap on memory would have been passed */
#define GPUQUOTA_REFUSED_PHYSICAL_LIMIT 1 /* the physical cap, and not the cap on memory */
#define GPUQUOTA_REFUSED_CONTEXT 2        /* a context does not fit */
#define GPUQUOTA_REFUSED_CODE 3           /* code that was loaded does not fit */
#define GPUQUOTA_REFUSED_UNCOUNTED 4      /* no slot for the process: all are taken, or the file cannot be opened */
#define GPUQUOTA_REFUSED_BY_DRIVER 5      /* not in denied: the limits allowed it, and the driver had no room */

#define GPUQUOTA_LIMIT_KIND_MEMORY 0   /* bytes */
#define GPUQUOTA_LIMIT_KIND_PHYSICAL 1 /* bytes */
#define GPUQUOTA_LIMIT_KIND_CORES 2    /* percent */
#define GPUQUOTA_LIMIT_KIND_REQUEST 3  /* percent */
#define GPUQUOTA_LIMIT_KIND_POLICY 4   /* GPUQUOTA_POLICY_ bits */
#define GPUQUOTA_NO_DEVICE 0xFFFFFFFF /* device of an event that concerns none */

/* Packed words. */
#define GPUQUOTA_USED_MASK 0x3FFFFFFFFFFFull /* the bytes in gpuquota_device.used and .spilled */
#define GPUQUOTA_HELD_SHIFT 16               /* the bytes in gpuquota_journal.held: shifted right by so much */

/* gpuquota_limit.memory and .physical */
#define GPUQUOTA_LIMIT_BYTES 0x3FFFFFFFFFFFull              /* these bits: bytes; 0: no limit */
#define GPUQUOTA_LIMIT_BYTES_FROM_FILE (1ull << 47)         /* the limits file sets them */
#define GPUQUOTA_LIMIT_CORES_SHIFT 48                       /* of memory: the share in percent, 7 bits; 0: none */
#define GPUQUOTA_LIMIT_CORES_FROM_FILE (1ull << 55)         /* of memory: the limits file sets it */
#define GPUQUOTA_LIMIT_REQUEST_SHIFT 56                     /* of memory: the request in percent, 7 bits; 0: none */
#define GPUQUOTA_LIMIT_REQUEST_FROM_FILE (1ull << 63)       /* of memory: the limits file sets it */
#define GPUQUOTA_LIMIT_BURST (1ull << 48)                   /* of physical: the policy is GPUQUOTA_POLICY_BURST */
#define GPUQUOTA_LIMIT_IDLE_ONLY (1ull << 49)               /* of physical: the policy is GPUQUOTA_POLICY_IDLE_ONLY */
#define GPUQUOTA_LIMIT_WRITTEN (1ull << 50)                 /* of physical: the record was written */

/* What a container and the node's agent tell each other about a device that other containers share. */
struct gpuquota_lease {
    uint64_t lease;          /* agent: from (us, 48 bits) | length (16384 ns, 16 bits, all ones: no end; from 2 us on without
                                an end: beside other containers); 0: no leases */
    uint64_t renewed_at_ns;  /* agent: when it last wrote or repeated it, CLOCK_MONOTONIC; older than 50 ms: void */
    uint32_t wake_seq;       /* agent: counts changes of lease; a futex */
    uint32_t policy;         /* container: GPUQUOTA_POLICY_ bits */
    uint64_t asked_at_ns;    /* container: when a launch last waited for a lease, CLOCK_MONOTONIC */
    uint64_t in_flight_ns;   /* container: predicted GPU time of measured launches in flight */
    uint64_t uncertainty_ns; /* container: by how much that may be wrong */
    uint64_t waited_ns;      /* container: launches waited for a lease */
    uint64_t held_ns;        /* agent: the container had the device while others waited */
};

/* One page; the same in every minor version. */
struct gpuquota_header {
    uint64_t magic;            /* GPUQUOTA_MAGIC */
    uint32_t abi_major;        /* readers and writers refuse any other */
    uint32_t abi_minor;        /* of the process that initialised the file */
    uint64_t length;           /* bytes of the whole file */
    uint32_t record_bytes[GPUQUOTA_ARRAYS];  /* of a device, slot, journal, event */
    uint32_t record_count[GPUQUOTA_ARRAYS];  /* journals are counted per slot */
    uint64_t record_offset[GPUQUOTA_ARRAYS]; /* from the start of the file */
    uint64_t generation;       /* how often the file was initialised */
    uint64_t boot_id[2];       /* clocks and pids of another boot mean nothing */
    uint64_t time_namespace;   /* inode; virtual times are in its CLOCK_MONOTONIC */
    uint64_t created_at_ns;    /* since 1970 */
    uint32_t state;            /* GPUQUOTA_STATE_; written last */
    uint32_t warned;           /* 1: the container's one line on stderr about wrong limits was written */
    uint32_t slot_high;        /* slots [0, slot_high) have been used */
    uint32_t pad0;
    uint64_t event_next;       /* events so far; event n lies at n % GPUQUOTA_EVENTS */
    uint64_t fallbacks;        /* incidents survived by the driver's own answer */
    uint32_t shares;           /* GPUQUOTA_SHARES_: whether launches may have to wait */
    uint32_t limits_seq;       /* counts changes of gpuquota_ours.limits */
    uint64_t monitor_ns;       /* when HAMi's monitor was last seen at work, CLOCK_MONOTONIC */
    uint32_t maker_user;       /* effective user of the process that initialised the file */
    uint32_t maker_mounts;     /* inode of its mount namespace; 0: not known */
    uint32_t maker_pids;       /* inode of its PID namespace */
    uint32_t shared_told;      /* 1 once a process of another user or container was told that it shares the region */
    /* offset 192 */
    struct gpuquota_lease leases[GPUQUOTA_DEVICES]; /* of each device */
    uint32_t refusals[GPUQUOTA_DEVICES][GPUQUOTA_REASONS]; /* by GPUQUOTA_REFUSED_; they stop at the highest number */
    uint64_t reserved[104];
};

struct gpuquota_device {
    uint8_t uuid[GPUQUOTA_UUID_BYTES]; /* text as NVML writes it, zero-padded */
    uint32_t state;        /* GPUQUOTA_DEVICE_ */
    uint32_t core_limit;   /* in force: percent of GPU time, 1..100; 0 and 100: none */
    uint64_t memory_limit; /* in force: bytes; 0: none */
    uint64_t memory_total; /* bytes of the real device */
    uint32_t claimed_by;   /* pid while state is GPUQUOTA_DEVICE_CLAIMED */
    uint32_t pad0;
    /* offset 128 */
    uint64_t used;           /* ledger word: bytes 46 bits, last journal 15, low bits of its sequence 3 */
    uint64_t peak;           /* bytes */
    uint64_t denied;         /* requests refused */
    uint64_t would_deny;     /* observe mode */
    uint64_t reaped_at_ns;   /* CLOCK_MONOTONIC */
    uint64_t spilled;        /* of `used`, what lies on the host; a word like it */
    uint64_t spills;         /* allocations sent to the host */
    uint64_t physical_limit; /* bytes that do not lie on the host; 0: none */
    /* offset 192 */
    uint64_t virtual_time_ns;    /* CLOCK_MONOTONIC */
    uint64_t busy_until_ns;      /* measured kernels have occupied the device until then, CLOCK_MONOTONIC */
    uint64_t largest_charge_ns;
    uint64_t virtual_percent;    /* percent at which the lead of virtual_time_ns is reckoned */
    uint64_t idle_at_ns;         /* when virtual_time_ns was last found behind, CLOCK_MONOTONIC */
    uint64_t in_flight_until_ns; /* when all in flight should be over, CLOCK_MONOTONIC */
    uint64_t gaps_from_ns;       /* gaps before this are not remembered, CLOCK_MONOTONIC */
    uint64_t idle_ns;            /* by how much virtual_time_ns was found behind, less what was charged since */
    /* offset 256 */
    uint64_t gpu_time_ns;         /* charged */
    uint64_t waited_ns;           /* for the share, or a higher priority */
    uint64_t launches;            /* under a core limit */
    uint64_t waits;               /* launches that waited, for whatever */
    uint64_t would_wait;          /* observe mode */
    uint64_t clamped;             /* virtual times that no charge explains */
    uint64_t waited_in_flight_ns; /* for work of the same process that was in flight */
    uint64_t limit_conflicts;     /* how often a process was held to another limit than it asked for */
    /* offset 320 */
    uint64_t gaps[GPUQUOTA_GAPS];             /* idle before busy_until_ns: start 34 bits, 64 ns | length 22, 256 ns | idle 8, 1/256 */
    uint64_t wait_times[GPUQUOTA_WAIT_TIMES]; /* launches that waited: up to 100 us, 1 ms ... 100 s, and longer */
    uint64_t context_bytes;      /* what a context takes here, as far as a process or the agent has seen; 0: nobody has made one */
    uint64_t estimated_contexts; /* contexts charged with it, because the driver gave no figure */
};

struct gpuquota_slot {
    uint32_t state;           /* GPUQUOTA_SLOT_ */
    uint32_t pid;             /* in the process's own namespace */
    uint64_t start_time;      /* clock ticks since boot */
    uint64_t pid_namespace;   /* inode */
    uint32_t imports;         /* 1: has opened memory that another process made, and measures what it keeps of it */
    uint32_t priority;        /* 0 is the highest */
    uint64_t last_launch_ns;  /* under a share, or when the slot was taken; CLOCK_MONOTONIC */
    uint64_t exported;        /* bytes that others may have opened, at most */
    uint64_t exporters_lost;  /* how often a process was found dead whose memory this one may keep */
    uint64_t losses_measured; /* how many of those this one had measured */
    uint8_t journal_device[GPUQUOTA_JOURNALS]; /* device index + 1; 0: journal not in use */
    uint8_t journal_kind[GPUQUOTA_JOURNALS];   /* GPUQUOTA_KIND_ */
    uint64_t pending_ns[GPUQUOTA_DEVICES];     /* GPU time admitted and not yet measured, by device */
    uint64_t reserved[16];
};

struct gpuquota_journal {
    uint64_t amount;    /* of the operation under way, two's complement */
    uint64_t operation; /* sequence 63 bits << 1 | applied */
    uint64_t held;      /* bytes 48 bits << GPUQUOTA_HELD_SHIFT | low bits of the sequence folded in */
    uint64_t reserving; /* bytes reserved for a call that has not returned */
};

/* The limits on one device that one process brought, or that the operator set (docs/limits.md). */
struct gpuquota_limit {
    uint64_t memory;   /* cap in bytes, share and request in percent: GPUQUOTA_LIMIT_ bits */
    uint64_t physical; /* physical cap in bytes, policy: GPUQUOTA_LIMIT_ bits */
};

struct gpuquota_event {
    uint64_t stamp;     /* number + 1 once complete; 0 while it is written */
    uint32_t code;      /* GPUQUOTA_EVENT_ */
    uint32_t pid;       /* of the writer, in its own namespace */
    uint32_t device;    /* index, or GPUQUOTA_NO_DEVICE */
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
    struct gpuquota_journal journals[GPUQUOTA_SLOTS][GPUQUOTA_JOURNALS];
    struct gpuquota_event events[GPUQUOTA_EVENTS];
    struct gpuquota_limit limits[GPUQUOTA_LIMIT_ROWS][GPUQUOTA_DEVICES]; /* row i: by the process in slot i */
};

/* HAMi's region v1.2, as far as the view fills it in. */
#define GPUQUOTA_HAMI_MAGIC 19920718
#define GPUQUOTA_HAMI_MAJOR 1
#define GPUQUOTA_HAMI_MINOR 2
#define GPUQUOTA_HAMI_DEVICES 16
#define GPUQUOTA_HAMI_SLOTS 1024

struct gpuquota_hami_used {
    uint64_t context;
    uint64_t module;
    uint64_t data;
    uint64_t offset;    /* 0 */
    uint64_t total;
    uint64_t unused[3];
};

struct gpuquota_hami_utilization {
    uint64_t dec_enc_sm[3]; /* 0: not told here (docs/region.md) */
    uint64_t unused[3];
};

struct gpuquota_hami_process {
    int32_t pid;
    int32_t host_pid;  /* 0: not known */
    struct gpuquota_hami_used used[GPUQUOTA_HAMI_DEVICES];
    uint64_t monitor_used[GPUQUOTA_HAMI_DEVICES]; /* 0 */
    struct gpuquota_hami_utilization utilization[GPUQUOTA_HAMI_DEVICES];
    int32_t status;    /* 0: a hole */
    uint32_t pad;
    uint64_t sequence; /* 0 */
    uint64_t unused[2];
};

struct gpuquota_hami_view {
    int32_t initialized_flag; /* GPUQUOTA_HAMI_MAGIC */
    uint32_t major;           /* GPUQUOTA_HAMI_MAJOR */
    uint32_t minor;           /* GPUQUOTA_HAMI_MINOR */
    uint32_t sm_init_flag;
    uint64_t owner_pid;
    uint64_t sem[4];          /* inert: value 1 */
    uint64_t device_num;
    uint8_t uuids[GPUQUOTA_HAMI_DEVICES][GPUQUOTA_UUID_BYTES];
    uint64_t limit[GPUQUOTA_HAMI_DEVICES];
    uint64_t sm_limit[GPUQUOTA_HAMI_DEVICES];
    struct gpuquota_hami_process procs[GPUQUOTA_HAMI_SLOTS];
    int32_t proc_num;
    int32_t utilization_switch; /* 1 throttle, 0 run free; a monitor writes it */
    int32_t recent_kernel;      /* 2 after a launch; a monitor counts it down, a negative value asks launches to wait */
    int32_t priority;
    uint64_t last_kernel_time;  /* unix seconds of a launch, at most one round of a monitor old; 0: none yet */
    uint64_t sem_postinit[4];
};

/* The whole file. */
struct gpuquota_file {
    struct gpuquota_hami_view hami;
    uint64_t gap[273];
    struct gpuquota_ours ours;
};

#endif

//! What `gpuquota doctor` finds.

use super::message::{Message, message};

macro_rules! findings {
    ($($name:ident = $code:literal, $title:literal, $means:literal, $next:literal;)+) => {
        $(pub static $name: Message = message($code, $title, $means, $next);)+

        /// All of them.
        pub(super) static ALL: &[&Message] = &[$(&$name),+];
    };
}

findings! {
    LIBRARY_FINE = "GQ400", "the library is preloaded",
        "The library is named where the loader reads it, and is there.", "Nothing.";
    NOT_PRELOADED = "GQ401", "the library is not preloaded",
        "Neither /etc/ld.so.preload nor LD_PRELOAD names libgpuquota.so, so programs that are started here are not held.",
        "Use `gpuquota run -- COMMAND`, or name the library in /etc/ld.so.preload of the container.";
    PRELOAD_MISSING = "GQ402", "what is preloaded is not there",
        "The preload file or LD_PRELOAD names a file that does not exist here, so the loader passes over it.",
        "Mount the library at that path, or correct the line.";
    PRELOAD_UNFIT = "GQ403", "what is preloaded does not fit",
        "The file that is preloaded is no shared library of this processor, so the loader passes over it.",
        "Put the library of this processor there.";
    PRELOAD_UNREADABLE = "GQ404", "the preload file cannot be read",
        "/etc/ld.so.preload exists and this user may not read it, or its path is no file: the loader passes over it.",
        "Make it a file that everybody may read (mode 0644).";
    NOT_MAPPED = "GQ405", "a process has the driver without the library",
        "The process has mapped the CUDA driver and not libgpuquota.so: no limit holds it.",
        "Start it again with the library: append to LD_PRELOAD instead of replacing it, or use /etc/ld.so.preload.";
    OTHER_BUILD = "GQ406", "another build of the library",
        "The library that is preloaded or mapped is another build than the one beside this program.",
        "Install both from one release; running programs have to be started again.";
    DELETED = "GQ407", "the mapped library was replaced",
        "The process has a library mapped whose file was deleted or replaced since it was started.",
        "Start the process again to give it the present one.";
    OTHER_QUOTA = "GQ409", "another quota library is loaded too",
        "Another library that interposes the CUDA driver is preloaded or mapped: both count and refuse, and what holds depends on their order.",
        "Take one of the two out of the container.";
    MAPPED_FINE = "GQ410", "the process is held",
        "The process has the library mapped.", "Nothing.";
    STATIC = "GQ411", "a static program",
        "The program is linked statically: no loader runs that could preload the library, so nothing holds it.",
        "Link it dynamically, or hold it by the driver's own limit (`gpuquota limit --driver`).";
    SECURE = "GQ412", "a program with more rights",
        "The program is setuid or setgid or has file capabilities: the loader passes over LD_PRELOAD, and the library believes no variable.",
        "Name the library in /etc/ld.so.preload, and the limits in /etc/gpuquota/limits.";
    OTHER_CLASS = "GQ413", "a program of another kind",
        "The program is not for this processor or not of 64 bits: the loader cannot preload the library into it.",
        "CUDA has no such programs any more. If its children use CUDA, they are held.";
    OTHER_LIBC = "GQ414", "a program of another C library",
        "The program does not run on glibc (musl, for example); NVIDIA's driver needs glibc, so it cannot use CUDA by itself.",
        "Nothing, as long as it does not use CUDA.";
    DLMOPEN = "GQ415", "a program that uses dlmopen",
        "The program calls dlmopen: a driver that is opened in another namespace of the loader is not covered.",
        "Open the driver by dlopen, or hold the program by the driver's own limit (`gpuquota limit --driver`).";
    NO_PROGRAM = "GQ416", "no such program",
        "The command is not found, or cannot be read.", "Write its path.";
    WOULD_NOT_MAP = "GQ417", "the loader would not load the library",
        "The loader was asked what it would load for the program, and the library is not among it.",
        "The finding has the loader's own words.";
    PROGRAM_FINE = "GQ418", "the program would be held",
        "The loader would load the library into the program.", "Nothing.";
    NO_DRIVER = "GQ421", "no CUDA driver",
        "libcuda.so.1 is not found here.",
        "Install NVIDIA's driver, or start the container with its runtime (--gpus, nvidia.com/gpu).";
    NO_NVML = "GQ422", "NVML does not answer",
        "libnvidia-ml.so.1 is not found or gives an error. Without it nothing tells what the cards themselves say.",
        "The finding has its words. After `Driver/library version mismatch` restart the node, so that the kernel module is that of the library.";
    DRIVER_FINE = "GQ423", "the driver answers", "NVML answers and tells of the cards.", "Nothing.";
    CARD_LOST = "GQ424", "a card is lost",
        "NVML counts a card that does not answer.", "Look for an Xid in the kernel's log; reset the card or restart the node.";
    UNKNOWN_ENTRIES = "GQ425", "entries of the driver that the library does not know",
        "The driver exports functions on which this version of the library has no decision: memory that they give and work that they start is not counted.",
        "Use a version of gpuquota that knows this driver; report the names if there is none.";
    COVERED = "GQ426", "the driver's entries are known",
        "The library holds each function that the driver exports, or leaves it alone for a reason.", "Nothing.";
    MPS = "GQ427", "MPS is in use",
        "A control daemon of NVIDIA's MPS is at hand, so programs may run beside each other; their kernels are measured as they run.",
        "Nothing. Shares are less exact beside other clients of one MPS server.";
    MPS_ABSENT = "GQ428", "the MPS pipe is not there",
        "CUDA_MPS_PIPE_DIRECTORY names a directory without a control daemon: programs fall back to run without MPS, or fail.",
        "Mount the daemon's pipe directory at that path, or unset the variable.";
    MIG = "GQ429", "MIG is on",
        "A card is split into MIG instances. Limits hold for each instance by its own UUID.", "Nothing.";
    WSL = "GQ430", "Windows subsystem for Linux",
        "The driver is that of WSL. NVML tells no processes there, so unprotected ones are not found.", "Nothing.";
    ABSENT_DEVICE = "GQ431", "a visible device that is not there",
        "CUDA_VISIBLE_DEVICES names a UUID that no card here has, so CUDA shows none of the devices behind it.",
        "Take the UUID from `nvidia-smi -L`.";
    TRACED = "GQ432", "what the program asked the driver for",
        "The command was run under the library, and each function of the driver that it asked for was told. A function that was asked for was not necessarily called.",
        "Nothing. If it asked for none and uses CUDA, look for GQ401 to GQ418.";
    TRACED_UNKNOWN = "GQ433", "the program asked for functions that the library does not know",
        "This version of the library has no decision on these functions: memory that they give and work that they start is not counted.",
        "Use a version of gpuquota that knows them; report the names if there is none.";
    LIMIT_WRONG = "GQ441", "a limit that cannot be understood",
        "A value cannot be understood. Unless GPUQUOTA_ON_ERROR=open, programs have no GPU here.",
        "The finding says which value it is and what to write.";
    LIMIT_DOUBTFUL = "GQ442", "a limit that is read otherwise",
        "A value is taken in a way that was perhaps not meant.", "The finding says how, and what to write.";
    LIMITS = "GQ443", "the limits of this place",
        "Programs that start here bring these limits.", "Nothing.";
    NO_LIMIT = "GQ444", "no limits here",
        "Neither a limits file (nor one of limits.d, nor vgpu-manager's) nor a variable sets a limit, so programs that start here bring none.",
        "Set GPUQUOTA_MEMORY and GPUQUOTA_CORES, or write /etc/gpuquota/limits.";
    MISSPELT = "GQ445", "a variable that nobody reads",
        "A variable looks like one of the quota's and is none.", "The finding names the one that is nearest.";
    NOT_ENFORCED = "GQ446", "limits are not enforced",
        "The mode is observe or off: nothing is refused or delayed. A note: a file of limits.d exempts this user.",
        "Set GPUQUOTA_MODE=enforce, if limits are to bind.";
    LIMITS_UNREADABLE = "GQ447", "the limits file cannot be read",
        "A file that sets limits (/etc/gpuquota/limits, one of limits.d, vgpu-manager's) exists, and this user cannot read it, or it is damaged or too long: programs of this user have no GPU.",
        "Make it readable for every user of this place; the finding names it.";
    NO_REGION = "GQ451", "no region yet",
        "The region file does not exist: no program has used a GPU here through the library.",
        "Nothing, before the first CUDA program has run. After it: look for GQ401 and GQ405.";
    REGION_UNFIT = "GQ452", "the region cannot be used",
        "The region file is there and cannot be read, is no region, or is of another version.",
        "End what holds it and remove it, or set GPUQUOTA_REGION to another path.";
    REGION_LOCKED = "GQ453", "the region cannot be written",
        "This user may not write the region file, or make it: its programs cannot be counted and have no GPU.",
        "Let the user write there, or set GPUQUOTA_REGION to a path that it may write.";
    REGION_WRONG = "GQ454", "the region's path cannot be used",
        "The variable that names the region is not an absolute path of at most 1023 bytes.", "Write an absolute path.";
    REGION_TOLD = "GQ455", "the region has something to tell",
        "Events of the region say that limits were not understood, or that it is shared, or that there are two.",
        "`gpuquota inspect --events` shows them; `gpuquota messages CODE` explains each.";
    REGION_FINE = "GQ456", "the region is well", "The region can be read and written.", "Nothing.";
    NO_AGENT = "GQ461", "no agent answers",
        "No agent of this node answers. Limits hold without one; containers that share a card keep their own shares and lend nothing.",
        "Start `gpuquota agent` on the node, if containers share cards.";
    OTHER_AGENT = "GQ462", "an agent of another version",
        "The node's agent is of another version than this program.", "Install both from one release.";
    AGENT_FINE = "GQ463", "the agent answers", "The node's agent answers, and is of this version.", "Nothing.";
    TWO_BOOKERS = "GQ464", "two give the same cards away",
        "gpuquota's device plugin or DRA driver is on this node, and another plugin or driver books cards too: each counts by itself, so a card may be given away twice.",
        "Take one of them off the node; or, if they serve different cards, start ours with --beside-others and tell it and the other one which.";
}

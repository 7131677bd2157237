//! Every name under which a limit can be set: one table, read by the reader, the help and the docs.

/// What a knob sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// Device memory, in bytes.
    Memory,
    /// GPU time, in percent.
    Cores,
    /// The part of it that is guaranteed beside other containers, in percent.
    Request,
    /// Whether limits are enforced.
    Mode,
    /// What happens when a limit cannot be understood.
    OnError,
    /// When the share of GPU time binds.
    Policy,
    /// Another engine's switch for no quota at all.
    Off,
    /// The task's priority.
    Priority,
    /// Memory beyond the device's own from the host.
    Oversubscribe,
    /// Device memory, in bytes, beyond which the cap is met from the host.
    Physical,
    /// How long a request over the cap waits for another process's bytes.
    MemoryWait,
    /// Whether a request over the cap may end a process of lower priority.
    OomKill,
    /// Which messages are written to standard error.
    Log,
    /// Where the region is.
    Region,
    /// Which devices another engine's indices mean.
    DeviceMap,
    /// The share that may be had of what others leave; the same engine's share is what is guaranteed then.
    SoftCores,
    /// By how much memory is oversold: the part of it that may lie on the device is the cap divided by it.
    Ratio,
}

impl Key {
    /// The key's name in the limits file, if it may stand there.
    pub const fn file_name(self) -> Option<&'static str> {
        match self {
            Self::Memory => Some("memory"),
            Self::Physical => Some("memory_physical"),
            Self::Oversubscribe => Some("oversubscribe"),
            Self::Cores => Some("cores"),
            Self::Request => Some("cores_request"),
            Self::Mode => Some("mode"),
            Self::OnError => Some("on_error"),
            Self::Policy => Some("policy"),
            Self::MemoryWait => Some("memory_wait"),
            Self::OomKill => Some("oom_kill"),
            Self::Region => Some("region"),
            Self::Log | Self::Off | Self::Priority | Self::DeviceMap | Self::SoftCores | Self::Ratio => None,
        }
    }
}

/// Where a limit comes from. The order is the rank: for each device the first source that sets it is obeyed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// The read-only limits file.
    File,
    /// Our own variables.
    Own,
    /// HAMi's variables, which Volcano, KAI and Koordinator set too.
    Hami,
    /// vgpu-manager's variables.
    VgpuManager,
    /// The variables of NVIDIA's gpu-fractioning, which KAI Scheduler sets.
    Fractioning,
}

impl Source {
    /// Whose names these are, for people.
    pub const fn engines(self) -> &'static str {
        match self {
            Self::File => "the limits file",
            Self::Own => "gpuquota",
            Self::Hami => "HAMi, HAMi DRA, Volcano, KAI with kai-resource-isolator, Koordinator",
            Self::VgpuManager => "vgpu-manager",
            Self::Fractioning => "KAI with NVIDIA's gpu-fractioning",
        }
    }
}

/// One environment variable.
#[derive(Debug)]
pub struct Knob {
    /// Its name.
    pub name: &'static str,
    /// Whose name it is, and with that whose grammar its value has.
    pub source: Source,
    /// What it sets.
    pub key: Key,
    /// Whether `NAME_<i>`, i in 0..=15, sets it for one device.
    pub indexed: bool,
    /// What it means, for the help.
    pub about: &'static str,
    /// What values may be, in which unit and range, for the help.
    pub values: &'static str,
    /// What holds when it is absent, for the help.
    pub default: &'static str,
    /// What to write instead of a wrong value: the end of a sentence that starts with "Write".
    pub write: &'static str,
}

pub(super) const REGION: &str = "GPUQUOTA_REGION";
pub(super) const HAMI_REGION: &str = "CUDA_DEVICE_MEMORY_SHARED_CACHE";
pub(super) const POD_UID: &str = "POD_UID";
pub(super) const CONTAINER_NAME: &str = "CONTAINER_NAME";
pub(super) const VGPU_MOUNT: &str = "CONTAINER_VGPU_MOUNT";
pub(super) const FRACTION_REQUEST: &str = "NVIDIA_GPU_MEMORY_REQUEST";
pub(super) const DEVICE_MAP: &str = "MANAGER_VISIBLE_DEVICES";

const SIZE: &str = "a size such as 2GiB, 1536MiB or 0=2GiB,1=4GiB";
const SHARE: &str = "a percentage from 1 to 100 such as 30%, or 0=30%,1=50%";
const HAMI_SIZE: &str = "a whole number with g, m or k, such as 2g or 1536m";
const HAMI_SHARE: &str = "a whole number from 1 to 100";
const MEBIBYTES: &str = "a whole number of MiB from 1 on, without a unit";
const RATIO: &str = "a number from 1 on such as 1.5";
const BOOL: &str = "true or false";
const WAIT: &str = "a time such as 500ms or 10s, at most 60s";
const POLICY: &str = "fixed-share, burst-share or best-effort";
const POLICIES: &str = "fixed-share (always), burst-share (unless what is idle is lent by the node's agent or HAMi's monitor) or best-effort (never)";
const PATH: &str = "an absolute path of at most 1023 bytes";

const fn knob(source: Source, key: Key, indexed: bool, name: &'static str, text: [&'static str; 4]) -> Knob {
    let [about, values, default, write] = text;
    Knob { name, source, key, indexed, about, values, default, write }
}

/// All variables, in order of rank.
#[rustfmt::skip]
pub static KNOBS: [Knob; 32] = [
    knob(Source::Own, Key::Memory, false, "GPUQUOTA_MEMORY",
        ["device memory that may be held", "SIZE or DEVICE=SIZE, separated by commas; B, KiB, MiB, GiB, TiB; below 64 TiB", "no limit", SIZE]),
    knob(Source::Own, Key::Physical, false, "GPUQUOTA_MEMORY_PHYSICAL",
        ["of it, what may lie on the device: allocations beyond are the host's memory", "as GPUQUOTA_MEMORY", "all of it", SIZE]),
    knob(Source::Own, Key::Oversubscribe, false, "GPUQUOTA_OVERSUBSCRIBE",
        ["whether allocations come from the host's memory when the device itself is full", "true or false", "false", BOOL]),
    knob(Source::Own, Key::Cores, false, "GPUQUOTA_CORES",
        ["share of GPU time", "PERCENT or DEVICE=PERCENT, separated by commas; 1 to 100", "no limit", SHARE]),
    knob(Source::Own, Key::Request, false, "GPUQUOTA_CORES_REQUEST",
        ["of it, what is guaranteed beside other containers; what they leave may be had up to GPUQUOTA_CORES", "as GPUQUOTA_CORES", "all of it", SHARE]),
    knob(Source::Own, Key::Policy, false, "GPUQUOTA_POLICY",
        ["when the share of GPU time binds", POLICIES, "burst-share", POLICY]),
    knob(Source::Own, Key::Mode, false, "GPUQUOTA_MODE",
        ["what limits do", "enforce, observe (count what would be refused) or off", "enforce", "enforce, observe or off"]),
    knob(Source::Own, Key::OnError, false, "GPUQUOTA_ON_ERROR",
        ["what a limit does that cannot be understood", "closed (no GPU) or open (as if it were not given)", "closed", "closed or open"]),
    knob(Source::Own, Key::MemoryWait, false, "GPUQUOTA_MEMORY_WAIT",
        ["how long a request over the cap waits for bytes of other processes", "0 or a time in ms or s; at most 60s", "0", WAIT]),
    knob(Source::Own, Key::OomKill, false, "GPUQUOTA_OOM_KILL",
        ["whether a request over the cap may end a process of lower priority (CUDA_TASK_PRIORITY)", "true or false", "false", BOOL]),
    knob(Source::Own, Key::Log, false, "GPUQUOTA_LOG",
        ["what is said on standard error", "warn (wrong limits, the first refusal) or off", "warn", "warn or off"]),
    knob(Source::Own, Key::Region, false, REGION,
        ["the container's region file", "absolute path, at most 1023 bytes", "see the next ones", PATH]),
    knob(Source::Hami, Key::Memory, true, "CUDA_DEVICE_MEMORY_LIMIT",
        ["device memory that may be held", "whole number with g, m or k (binary), else bytes; 0 is none", "no limit", HAMI_SIZE]),
    knob(Source::Hami, Key::Cores, true, "CUDA_DEVICE_SM_LIMIT",
        ["share of GPU time", "whole number of percent; 0 and 100 are no limit", "no limit", HAMI_SHARE]),
    knob(Source::Hami, Key::Policy, false, "GPU_CORE_UTILIZATION_POLICY",
        ["as GPUQUOTA_POLICY", "default (burst-share), force (fixed-share) or disable (best-effort)", "default", "default, force or disable"]),
    knob(Source::Hami, Key::Priority, false, "CUDA_TASK_PRIORITY",
        ["the task's priority", "whole number, 0 is the highest", "1", "a whole number such as 0 or 1"]),
    knob(Source::Hami, Key::Oversubscribe, false, "CUDA_OVERSUBSCRIBE",
        ["as GPUQUOTA_OVERSUBSCRIBE", "true or false", "false", BOOL]),
    knob(Source::Hami, Key::OomKill, false, "ACTIVE_OOM_KILLER",
        ["as GPUQUOTA_OOM_KILL", "true or false", "false", BOOL]),
    knob(Source::Hami, Key::Off, false, "CUDA_DISABLE_CONTROL",
        ["no quota at all, unless GPUQUOTA_MODE says otherwise", "true or false", "false", BOOL]),
    knob(Source::Hami, Key::Region, false, HAMI_REGION,
        ["the container's region file", "absolute path, at most 1023 bytes", "see the next ones", PATH]),
    knob(Source::Hami, Key::Region, false, POD_UID,
        ["with CONTAINER_NAME: the region is MOUNT/containers/<POD_UID>_<CONTAINER_NAME>", "text", "/tmp/cudevshr.cache", PATH]),
    knob(Source::Hami, Key::Region, false, CONTAINER_NAME,
        ["see POD_UID", "text", "/tmp/cudevshr.cache", PATH]),
    knob(Source::Hami, Key::Region, false, VGPU_MOUNT,
        ["MOUNT of POD_UID", "absolute path", "/usr/local/vgpu", PATH]),
    knob(Source::VgpuManager, Key::Memory, true, "CUDA_MEM_LIMIT",
        ["device memory that may be held", "as CUDA_DEVICE_MEMORY_LIMIT; the index is the host's", "no limit", HAMI_SIZE]),
    knob(Source::VgpuManager, Key::Cores, true, "CUDA_CORE_LIMIT",
        ["share of GPU time", "as CUDA_DEVICE_SM_LIMIT; the index is the host's", "no limit", HAMI_SHARE]),
    knob(Source::VgpuManager, Key::SoftCores, true, "CUDA_CORE_SOFT_LIMIT",
        ["share of GPU time that may be had of what others leave; CUDA_CORE_LIMIT is guaranteed then", "as CUDA_DEVICE_SM_LIMIT; the index is the host's", "CUDA_CORE_LIMIT", HAMI_SHARE]),
    knob(Source::VgpuManager, Key::Ratio, true, "CUDA_MEM_RATIO",
        ["by how much CUDA_MEM_LIMIT is oversold: as GPUQUOTA_MEMORY_PHYSICAL, the cap divided by it", "a number from 1 on with at most two decimals; the index is the host's", "1", RATIO]),
    knob(Source::VgpuManager, Key::Oversubscribe, false, "CUDA_MEM_OVERSOLD",
        ["as GPUQUOTA_OVERSUBSCRIBE", "true or false", "false", BOOL]),
    knob(Source::VgpuManager, Key::Off, false, "DISABLE_VGPU_CONTROL",
        ["no quota at all, unless GPUQUOTA_MODE says otherwise", "true or false", "false", BOOL]),
    knob(Source::VgpuManager, Key::DeviceMap, false, DEVICE_MAP,
        ["the UUIDs behind vgpu-manager's indices", "UUIDs, separated by commas", "indices are the container's", "UUIDs, separated by commas"]),
    knob(Source::Fractioning, Key::Memory, false, "NVIDIA_GPU_MEMORY_LIMIT",
        ["device memory that may be held", "whole number of MiB, no unit", "NVIDIA_GPU_MEMORY_REQUEST", MEBIBYTES]),
    knob(Source::Fractioning, Key::Memory, false, FRACTION_REQUEST,
        ["the same where NVIDIA_GPU_MEMORY_LIMIT is absent", "whole number of MiB, no unit", "no limit", MEBIBYTES]),
];

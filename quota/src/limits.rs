//! What did the operator ask? From the environment and the limits file to one plain [`Limits`].
//!
//! Pure: the environment is a closure, the file a text. Nothing here allocates, panics or trusts its input: it
//! runs inside a host application. A value that cannot be understood is never guessed at; it becomes a
//! [`Problem`] that names the variable, the value and what to write.
//!
//! Three rules decide among many values:
//! 1. For each device, the first source that says anything about it is obeyed: the limits file, our own
//!    variables, HAMi's, vgpu-manager's.
//! 2. Within one source the most specific value wins: UUID, then index, then all.
//! 3. Where there is a limits file, nothing in the environment can switch off what it sets.
//!
//! The files, bottom to top; each uses only earlier ones: `knob` (the names), `problem` (what can be wrong), `types`
//! (the limits), `value` and `path` (grammars), `read`; `persons` (whose file is whose) and `vgpu_config` (vgpu-manager's file).

mod knob;
mod path;
mod persons;
mod problem;
mod read;
#[cfg(test)]
mod tests;
mod types;
mod value;
mod vgpu_config;

pub use knob::{KNOBS, Key, Knob, Source};
pub use path::{DEFAULT_REGION, LIMITS_FILE, LIMITS_FILE_BYTES, Path, RegionPath, region_path};
pub use persons::{DEFAULT_NAME, FilePath, LIMITS_FOLDER, Person};
pub use problem::{Consequence, MAX_PROBLEMS, Origin, Problem, Problems, Reason, Severity};
pub use read::{Reading, read, read_into};
pub use types::{CorePolicy, Entry, Env, Limits, Mode, OnError, Selector, Table, Uuid};
pub use value::{INDEX_MAX, SIZE_END, own_percent, own_size, write_size};
pub use vgpu_config::{
    NoConfig, VGPU_CONFIG, VGPU_CONFIG_BYTES, VGPU_CONFIG_READS, VGPU_LIBRARY, Words, vgpu_config,
};

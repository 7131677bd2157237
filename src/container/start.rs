//! The start of the library in a process: it reads the limits, opens the container's region, and collects problems.

use super::notes::{Note, push_holder};
use crate::driver::loader;
use crate::environment::Environment;
use gpuquota_quota::limits::{
    self, DEFAULT_REGION, LIMITS_FILE, Mode, OnError, Problem, Reading, RegionPath, Severity, Source,
};
use gpuquota_quota::text::{Fixed, Line};
use gpuquota_region::file::Opened;
use gpuquota_region::sys::{self, Errno};
use gpuquota_region::{OpenError, Region, fault, links};

/// A limits file must be shorter than this.
const LIMITS_FILE_BYTES: usize = 8192;

/// The outcome of the start.
pub enum Outcome {
    /// The region is open, and the library keeps the books.
    Ready,
    /// This process has no quota.
    Off,
    /// The library cannot keep the quota, and the operator wants such a process to have no GPU.
    Closed,
}

/// The results of the start.
#[derive(Default)]
pub(super) struct Startup {
    pub region: Option<Region>,
    pub path: limits::Path,
    pub reading: Reading,
    /// Whether allocations may come from the host's memory.
    pub spills: bool,
    /// Whether the limits file sets a share.
    pub has_file_share: bool,
    /// The region's file, until the container keeps it.
    pub file: Option<sys::Descriptor>,
    /// What is to be told about the region's file.
    pub note: Option<Note>,
    error: Option<StartError>,
}

/// Why the library cannot keep a quota that the operator set.
#[derive(Clone, Copy)]
enum StartError {
    /// The limits file exists, and the library cannot read it.
    File(Errno),
    /// The limits file is too long.
    FileTooLong,
    Path(Problem),
    Region(OpenError),
}

impl Startup {
    /// Reads the limits and opens the region.
    pub fn run(&mut self) -> Outcome {
        let environment = Environment::read();
        if let Err(error) = self.read_limits(&environment) {
            self.error = Some(error);
        }
        if self.reading.limits.mode == Mode::Off || !loader::is_first_copy() {
            return Outcome::Off;
        }
        match self.open(&environment) {
            Ok(region) => self.region = Some(region),
            Err(error) if self.error.is_none() && self.has_limits() => self.error = Some(error),
            Err(_) => {}
        }
        let limits = &self.reading.limits;
        self.spills = limits.spills();
        self.has_file_share = limits.cores.iter().any(|limit| limit.source == Source::File);
        let strict = limits.mode == Mode::Enforce && limits.on_error == OnError::Closed;
        match self.region {
            _ if self.reading.closed() => Outcome::Closed,
            _ if strict && self.error.is_some() => Outcome::Closed,
            Some(_) => Outcome::Ready,
            None => Outcome::Off,
        }
    }

    /// Whether the operator set any limit.
    fn has_limits(&self) -> bool {
        let limits = &self.reading.limits;
        limits.memory.iter().next().is_some() || limits.cores.iter().next().is_some()
    }

    fn read_limits(&mut self, environment: &Environment) -> Result<(), StartError> {
        let variable = |name: &str| environment.get(name);
        // Whatever lies there, nothing waits for it.
        let flags = libc::O_RDONLY | libc::O_NOCTTY | libc::O_NONBLOCK;
        // A link that leads nowhere stands for a file that sets something.
        let is_named = || links::look(LIMITS_FILE).is_ok();
        match sys::Descriptor::open(LIMITS_FILE, flags, 0) {
            Ok(file) => self.read_file(&file, &variable),
            Err(Errno(libc::ENOENT | libc::ENOTDIR)) if !is_named() => {
                limits::read_into(&mut self.reading, &variable, None);
                Ok(())
            }
            Err(error) => {
                limits::read_into(&mut self.reading, &variable, Some(b""));
                Err(StartError::File(error))
            }
        }
    }

    #[cold]
    fn read_file(&mut self, file: &sys::Descriptor, variable: limits::Env) -> Result<(), StartError> {
        let mut buffer = [0u8; LIMITS_FILE_BYTES];
        let text = file.read_at(&mut buffer, 0);
        // A damaged file counts as a file without limits, so the environment cannot switch off what the file may set.
        limits::read_into(&mut self.reading, variable, Some(text.unwrap_or_default()));
        match text {
            Err(error) => Err(StartError::File(error)),
            Ok(text) if text.len() >= LIMITS_FILE_BYTES => Err(StartError::FileTooLong),
            Ok(_) => Ok(()),
        }
    }

    fn open(&mut self, environment: &Environment) -> Result<Region, StartError> {
        let priority = self.reading.limits.priority;
        let found = match self.reading.region {
            Some(path) => RegionPath { path, may_fall_back: false },
            None => limits::region_path(&|name| environment.get(name)).map_err(StartError::Path)?,
        };
        self.path = found.path;
        fault::set_handler();
        let mut opened = Region::open_kept(self.path.as_c_str(), priority);
        if opened.is_err() && found.may_fall_back {
            self.path = Fixed::copy_of(DEFAULT_REGION.as_bytes()).unwrap_or_default();
            opened = Region::open_kept(self.path.as_c_str(), priority);
        }
        let Opened { region, file, names, lost } = opened.map_err(StartError::Region)?;
        let lost = lost.map(|holder| Note::Uncounted { holder });
        self.note = lost.or_else(|| Note::of(&region, names, self.path.as_bytes()));
        self.file = Some(file);
        Ok(region)
    }

    /// The number of problems.
    pub fn problems(&self) -> u32 {
        let Reading { problems, .. } = &self.reading;
        problems.errors().saturating_add(problems.warnings()).saturating_add(u32::from(self.error.is_some()))
    }

    /// Writes the line with the worst problem and the number of the others.
    pub fn write_warning(&self, line: &mut Line<900>, closed: bool) {
        line.push_str("gpuquota: ");
        let problems = &self.reading.problems;
        let error = problems.iter().find(|problem| problem.reason.severity() == Severity::Error);
        match (error, self.error, problems.iter().next()) {
            (Some(problem), _, _) | (None, None, Some(problem)) => {
                problem.write(line, self.reading.consequence());
            }
            (None, Some(error), _) => self.write_error(error, line, closed),
            (None, None, None) => {}
        }
        let rest = self.problems().saturating_sub(1);
        if rest > 0 {
            line.push_str(" (and ").push_u64(u64::from(rest)).push_str(" more)");
        }
    }

    fn write_error(&self, error: StartError, line: &mut Line<900>, closed: bool) {
        let reason = match error {
            StartError::Path(problem) => return problem.write(line, self.reading.consequence()),
            StartError::Region(reason) => {
                line.push_str("the quota's region ").push_escaped(self.path.as_bytes(), 200).push_str(": ");
                reason.reason()
            }
            StartError::File(Errno(libc::EACCES | libc::EPERM)) => {
                "limits file /etc/gpuquota/limits: permission denied"
            }
            StartError::File(Errno(libc::EMFILE | libc::ENFILE)) => {
                "limits file /etc/gpuquota/limits: no file descriptor is left to read it"
            }
            StartError::File(_) => "limits file /etc/gpuquota/limits: it cannot be read",
            StartError::FileTooLong => "limits file /etc/gpuquota/limits: it is longer than 8191 bytes",
        };
        line.push_str(reason);
        if let StartError::Region(error) = error
            && let Some(numbers) = error.numbers()
        {
            line.push_str(" (").push_str(numbers.of).push_str(": found ").push_u64(numbers.found);
            line.push_str(", this version writes ").push_u64(numbers.known).push_str(")");
        }
        let holder = if let StartError::Region(error) = error { error.holder() } else { None };
        if let Some(holder) = holder {
            line.push_str("; ");
            push_holder(line, holder);
            line.push_str(" holds it");
        }
        line.push_str(match error {
            StartError::Region(_) => ". Without a region that all processes share there is no quota",
            _ => ". What it sets is not known",
        });
        line.push_str(if closed { ", so there is no GPU here. " } else { "; programs run without it. " });
        line.push_str(match error {
            StartError::Region(_) if holder.is_some() => {
                "End the processes that hold it, set GPUQUOTA_REGION to another path, or GPUQUOTA_ON_ERROR=open."
            }
            StartError::Region(OpenError::Open(Errno(libc::EMFILE | libc::ENFILE)))
            | StartError::File(Errno(libc::EMFILE | libc::ENFILE)) => {
                "Raise the limit of open files (ulimit -n), or close some before the first CUDA call."
            }
            StartError::Region(OpenError::Space(Errno(libc::EFBIG))) => {
                "Raise that limit, or start one program of the container without it."
            }
            StartError::Region(OpenError::Space(Errno(libc::ENOMEM))) => {
                "Raise that limit (ulimit -v), or GPUQUOTA_ON_ERROR=open."
            }
            StartError::Region(_) => {
                "Set GPUQUOTA_REGION to a path that can be written, or GPUQUOTA_ON_ERROR=open."
            }
            _ => "Make it readable for every user of the container.",
        });
    }
}

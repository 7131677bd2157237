//! The start of the library in a process: it reads the limits, opens the container's region, and collects problems.

use super::notes::{Note, push_holder};
use super::source::{self, Place, Unread};
use crate::driver::loader;
use crate::environment::Environment;
use gpuquota_quota::limits::{
    self, DEFAULT_REGION, LIMITS_FILE_BYTES, Mode, OnError, Problem, Reading, RegionPath, Severity, Source,
    Words,
};
use gpuquota_quota::text::{Fixed, Line};
use gpuquota_region::file::Opened;
use gpuquota_region::sys::{self, Errno};
use gpuquota_region::{OpenError, Region, fault};

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
    /// A file that sets limits exists, and the library cannot read it.
    File(Unread, Place),
    /// The limits file is too long.
    FileTooLong(Place),
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
        match source::find() {
            source::Source::File(file, place) => self.read_file(&file, place, &variable),
            source::Source::Unread(error, place) => self.cannot_read(error, place, &variable),
            source::Source::Nothing => self.read_config(&variable),
        }
    }

    /// A damaged file counts as a file without limits, so the environment cannot switch off what the file may set.
    #[cold]
    fn cannot_read(&mut self, error: Unread, place: Place, variable: limits::Env) -> Result<(), StartError> {
        limits::read_into(&mut self.reading, variable, Some(b""));
        Err(StartError::File(error, place))
    }

    /// vgpu-manager's file, or the environment alone.
    fn read_config(&mut self, variable: limits::Env) -> Result<(), StartError> {
        let mut words = Words::new();
        match source::read_config(&mut words) {
            Ok(is_there) => {
                let text = is_there.then_some(words.as_bytes());
                limits::read_into(&mut self.reading, variable, text);
                Ok(())
            }
            Err(error) => self.cannot_read(error, Place::Config, variable),
        }
    }

    #[cold]
    fn read_file(
        &mut self,
        file: &sys::Descriptor,
        place: Place,
        variable: limits::Env,
    ) -> Result<(), StartError> {
        let mut buffer = [0u8; LIMITS_FILE_BYTES];
        let text = match file.read_at(&mut buffer, 0) {
            Ok(text) => text,
            Err(error) => return self.cannot_read(Unread::System(error), place, variable),
        };
        self.reading.limits.composes = place == Place::Folder;
        limits::read_into(&mut self.reading, variable, Some(text));
        let mut fits = text.len() < LIMITS_FILE_BYTES;
        if let (Place::Folder, Some(path)) = (place, self.reading.region) {
            self.reading.region = source::own_region(&path);
            fits &= self.reading.region.is_some();
        }
        if !fits { Err(StartError::FileTooLong(place)) } else { Ok(()) }
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
            StartError::File(error, place) => {
                line.push_str(place.name()).push_str(": ");
                match error {
                    Unread::System(Errno(libc::EACCES | libc::EPERM)) => "permission denied",
                    Unread::System(Errno(libc::EMFILE | libc::ENFILE)) => {
                        "no file descriptor is left to read it"
                    }
                    Unread::System(_) => "it cannot be read",
                    Unread::NoConfig => "it is of no layout that is known here",
                    Unread::NoOne => {
                        "in a user namespace of one's own a user is not known, and there is no file default"
                    }
                }
            }
            StartError::FileTooLong(place) => {
                line.push_str(place.name()).push_str(": ");
                "it is longer than 8191 bytes"
            }
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
            | StartError::File(Unread::System(Errno(libc::EMFILE | libc::ENFILE)), _) => {
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
            StartError::File(Unread::NoOne, _) => "Leave the namespace, or ask the operator for that file.",
            StartError::File(Unread::NoConfig, _) => "Ask the operator for a version that knows it.",
            _ => "Make it readable for every user of the container.",
        });
    }
}

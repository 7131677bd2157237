//! What this process finds when it starts: what was asked, where the container's region is, and what is wrong.

use crate::driver::loader;
use crate::environment::Environment;
use core::ffi::CStr;
use gpuquota_quota::limits::{self, DEFAULT_REGION, Mode, OnError, Problem, Reading, Severity, Source};
use gpuquota_quota::text::{Fixed, Line};
use gpuquota_region::sys::{self, Errno};
use gpuquota_region::{OpenError, Region};

/// The limits file: read-only, mounted by whoever runs the container; it outranks the environment.
const LIMITS_FILE: &CStr = c"/etc/gpuquota/limits";
/// Bytes that a limits file may have.
const LIMITS_FILE_BYTES: usize = 8192;

/// What start comes to.
pub enum Outcome {
    /// There is a region: books are kept.
    Ready,
    /// There is no quota.
    Off,
    /// The quota cannot be kept, and the policy is closed.
    Closed,
}

/// What start found out.
#[derive(Default)]
pub(super) struct Started {
    pub region: Option<Region>,
    pub path: limits::Path,
    pub reading: Reading,
    /// Whether allocations may come from the host's memory.
    pub spills: bool,
    /// Whether the limits file gives a share of time.
    pub has_file_share: bool,
    trouble: Option<Trouble>,
}

/// Why there is no quota although one was asked for.
#[derive(Clone, Copy)]
enum Trouble {
    /// The limits file is there and cannot be read.
    File(Errno),
    /// It is longer than anybody would write.
    FileTooLong,
    Path(Problem),
    Region(OpenError),
}

impl Started {
    /// Reads the limits and opens the region.
    pub fn find_out(&mut self) -> Outcome {
        let environment = Environment::read();
        if let Err(trouble) = self.read_limits(&environment) {
            self.trouble = Some(trouble);
        }
        if self.reading.limits.mode == Mode::Off || !loader::is_first_copy() {
            return Outcome::Off;
        }
        match self.open(&environment) {
            Ok(region) => self.region = Some(region),
            Err(trouble) if self.trouble.is_none() && self.is_asked() => self.trouble = Some(trouble),
            Err(_) => {}
        }
        let limits = &self.reading.limits;
        self.spills = limits.spills();
        self.has_file_share = limits.cores.iter().any(|limit| limit.source == Source::File);
        let strict = limits.mode == Mode::Enforce && limits.on_error == OnError::Closed;
        match self.region {
            _ if self.reading.closed() => Outcome::Closed,
            _ if strict && self.trouble.is_some() => Outcome::Closed,
            Some(_) => Outcome::Ready,
            None => Outcome::Off,
        }
    }

    /// Whether any limit was given.
    fn is_asked(&self) -> bool {
        let limits = &self.reading.limits;
        limits.memory.iter().next().is_some() || limits.cores.iter().next().is_some()
    }

    fn read_limits(&mut self, environment: &Environment) -> Result<(), Trouble> {
        let ask = |name: &str| environment.get(name);
        match sys::Descriptor::open(LIMITS_FILE, libc::O_RDONLY | libc::O_NOCTTY, 0) {
            Ok(file) => self.read_file(&file, &ask),
            Err(Errno(libc::ENOENT | libc::ENOTDIR)) => {
                limits::read_into(&mut self.reading, &ask, None);
                Ok(())
            }
            Err(error) => {
                limits::read_into(&mut self.reading, &ask, Some(b""));
                Err(Trouble::File(error))
            }
        }
    }

    #[cold]
    fn read_file(&mut self, file: &sys::Descriptor, ask: limits::Env) -> Result<(), Trouble> {
        let mut buffer = [0u8; LIMITS_FILE_BYTES];
        let text = file.read_at(&mut buffer, 0);
        // Whatever is wrong with the file: while there is one, the environment cannot switch off what it may set.
        limits::read_into(&mut self.reading, ask, Some(text.unwrap_or_default()));
        match text {
            Err(error) => Err(Trouble::File(error)),
            Ok(text) if text.len() >= LIMITS_FILE_BYTES => Err(Trouble::FileTooLong),
            Ok(_) => Ok(()),
        }
    }

    fn open(&mut self, environment: &Environment) -> Result<Region, Trouble> {
        let priority = self.reading.limits.priority;
        let found = limits::region_path(&|name| environment.get(name)).map_err(Trouble::Path)?;
        self.path = found.path;
        let opened = Region::open(self.path.as_c_str(), priority);
        if opened.is_err() && found.may_fall_back {
            self.path = Fixed::copy_of(DEFAULT_REGION.as_bytes()).unwrap_or_default();
            return Region::open(self.path.as_c_str(), priority).map_err(Trouble::Region);
        }
        opened.map_err(Trouble::Region)
    }

    /// How much is wrong.
    pub fn problems(&self) -> u32 {
        let Reading { problems, .. } = &self.reading;
        problems
            .errors()
            .saturating_add(problems.warnings())
            .saturating_add(u32::from(self.trouble.is_some()))
    }

    /// Writes the line that says what is wrong: the worst of it, and how much more there is.
    pub fn complain(&self, line: &mut Line<900>, closed: bool) {
        line.push_str("gpuquota: ");
        let problems = &self.reading.problems;
        let error = problems.iter().find(|problem| problem.reason.severity() == Severity::Error);
        match (error, self.trouble, problems.iter().next()) {
            (Some(problem), _, _) | (None, None, Some(problem)) => {
                problem.write(line, self.reading.consequence());
            }
            (None, Some(trouble), _) => self.complain_of(trouble, line, closed),
            (None, None, None) => {}
        }
        let rest = self.problems().saturating_sub(1);
        if rest > 0 {
            line.push_str(" (and ").push_u64(u64::from(rest)).push_str(" more)");
        }
    }

    fn complain_of(&self, trouble: Trouble, line: &mut Line<900>, closed: bool) {
        let reason = match trouble {
            Trouble::Path(problem) => return problem.write(line, self.reading.consequence()),
            Trouble::Region(error) => {
                line.push_str("the quota's region ").push_escaped(self.path.as_bytes(), 200).push_str(": ");
                error.reason()
            }
            Trouble::File(Errno(libc::EACCES | libc::EPERM)) => {
                "limits file /etc/gpuquota/limits: permission denied"
            }
            Trouble::File(_) => "limits file /etc/gpuquota/limits: it cannot be read",
            Trouble::FileTooLong => "limits file /etc/gpuquota/limits: it is longer than 8191 bytes",
        };
        line.push_str(reason);
        if let Trouble::Region(error) = trouble
            && let Some(numbers) = error.numbers()
        {
            line.push_str(" (").push_str(numbers.of).push_str(": found ").push_u64(numbers.found);
            line.push_str(", this version writes ").push_u64(numbers.known).push_str(")");
        }
        line.push_str(match trouble {
            Trouble::Region(_) => ". Without a region that all processes share there is no quota",
            _ => ". What it sets is not known",
        });
        line.push_str(if closed { ", so there is no GPU here. " } else { "; programs run without it. " });
        line.push_str(match trouble {
            Trouble::Region(_) => {
                "Set GPUQUOTA_REGION to a path that can be written, or GPUQUOTA_ON_ERROR=open."
            }
            _ => "Make it readable for every user of the container.",
        });
    }
}

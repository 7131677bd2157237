//! Initialisation, the machine behind the library, and handles.

use core::ffi::{CStr, c_char, c_void};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Once, OnceLock};

use cuda_shim_device::machine::MAX_DEVICES;
use cuda_shim_device::{DeviceSpec, Faults, OpenError, Part, State, open_from_env, tell};

use crate::abi::{Code, Error, code};

/// How often `nvmlInit` was called and not undone.
static USERS: AtomicU32 = AtomicU32::new(0);

/// The simulated machine, for a caller that has initialised the library. A forked child gets its own view.
pub fn machine() -> Result<&'static State, Error> {
    if USERS.load(Ordering::Relaxed) == 0 {
        return Err(Error::Uninitialized);
    }
    open()
}

/// The simulated machine, whether or not the library is initialised.
pub fn open() -> Result<&'static State, Error> {
    open_from_env().map_err(|error| {
        static SAID: Once = Once::new();
        SAID.call_once(|| tell(format_args!("simulated NVML: {error}")));
        match error {
            OpenError::NotSimulated => Error::DriverNotLoaded,
            _ => Error::Unknown,
        }
    })
}

/// Does the work of a call, as far as the faults of the machine's script let it.
pub fn met(call: &str, work: impl FnOnce() -> Code) -> Code {
    static FAULTS: OnceLock<Option<Faults>> = OnceLock::new();
    let faults = |state| FAULTS.get_or_init(|| Faults::of(state)).as_ref();
    match open().ok().and_then(|state| faults(state).map(|faults| faults.meet(state, call))) {
        Some(met) => met.answer(work, |error| error as Code),
        None => work(),
    }
}

fn init(call: &str) -> Code {
    met(call, || {
        code(open().map(|state| {
            if USERS.fetch_add(1, Ordering::Relaxed) == 0 {
                state.spend_at_start(|startup| startup.nvml_init_ns);
            }
        }))
    })
}

/// Flags ask for leniency about devices that do not answer; all of ours do.
#[allow(unsafe_code, non_snake_case)]
#[unsafe(no_mangle)]
pub extern "C" fn nvmlInitWithFlags(_flags: u32) -> Code {
    init("nvmlInitWithFlags")
}

/// As [`nvmlInitWithFlags`] without flags.
#[allow(unsafe_code, non_snake_case)]
#[unsafe(no_mangle)]
pub extern "C" fn nvmlInit_v2() -> Code {
    init("nvmlInit_v2")
}

/// The first version, which fails where one device does; here none does.
#[allow(unsafe_code, non_snake_case)]
#[unsafe(no_mangle)]
pub extern "C" fn nvmlInit() -> Code {
    init("nvmlInit")
}

/// Undoes one call of `nvmlInit`.
#[allow(unsafe_code, non_snake_case)]
#[unsafe(no_mangle)]
pub extern "C" fn nvmlShutdown() -> Code {
    let undone = USERS.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |users| users.checked_sub(1));
    code(undone.map(|_| ()).map_err(|_| Error::Uninitialized))
}

/// The texts of driver 535, which tools print.
#[allow(unsafe_code, non_snake_case)]
#[unsafe(no_mangle)]
pub extern "C" fn nvmlErrorString(result: Code) -> *const c_char {
    let text: &CStr = match result {
        0 => c"Success",
        1 => c"Uninitialized",
        2 => c"Invalid Argument",
        3 => c"Not Supported",
        4 => c"Insufficient Permissions",
        5 => c"Already Initialized",
        6 => c"Not Found",
        7 => c"Insufficient Size",
        8 => c"Insufficient External Power",
        9 => c"Driver Not Loaded",
        10 => c"Timeout",
        11 => c"Interrupt Request Issue",
        12 => c"NVML Shared Library Not Found",
        13 => c"Function Not Found",
        14 => c"Corrupted infoROM",
        15 => c"GPU is lost",
        16 => c"GPU requires reset",
        17 => c"GPU access blocked by the operating system",
        18 => c"Driver/library version mismatch",
        19 => c"In use by another client",
        20 => c"Insufficient Memory",
        21 => c"No data",
        22 => c"vGPU ECC not supported",
        23 => c"Insufficient Resources",
        24 => c"Invalid Frequency",
        25 => c"Argument version mismatch",
        26 => c"Requested functionality has been deprecated",
        27 => c"System is not in ready state",
        _ => c"Unknown Error",
    };
    text.as_ptr()
}

/// What handles point into; never read.
static PLACES: [u64; MAX_DEVICES] = [0; MAX_DEVICES];

/// `nvmlDevice_t`, as the caller passes it.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub struct Handle(*mut c_void);

impl Handle {
    /// The handle of the device at `index`, which is below [`MAX_DEVICES`].
    pub fn of(index: usize) -> Self {
        Self((&raw const PLACES[index]).cast_mut().cast())
    }

    /// As NVML's structures hold it.
    pub fn raw(self) -> *mut c_void {
        self.0
    }

    /// The whole device behind it.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for whatever is no handle of a whole device of this machine.
    pub fn device(self) -> Result<Device, Error> {
        self.any().and_then(
            |device| if device.spec.part.is_none() { Ok(device) } else { Err(Error::InvalidArgument) },
        )
    }

    /// The device behind it, if it is not split and no instance: what the driver does not tell of instances.
    ///
    /// # Errors
    /// [`Error::NotSupported`] for the others.
    pub fn unsplit(self) -> Result<Device, Error> {
        let device = self.any()?;
        let is_split = device.spec.part.is_some() || device.instances().next().is_some();
        if is_split { Err(Error::NotSupported) } else { Ok(device) }
    }

    /// The instance behind it.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for everything else.
    pub fn instance(self) -> Result<(Device, Part), Error> {
        let device = self.any()?;
        device.spec.part.map(|part| (device, part)).ok_or(Error::InvalidArgument)
    }

    /// The device behind it, whole or an instance.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for whatever is no handle of a device of this machine.
    pub fn any(self) -> Result<Device, Error> {
        let state = machine()?;
        let offset = self.0.addr().wrapping_sub(PLACES.as_ptr().addr());
        let index = offset / size_of::<u64>();
        match state.machine().devices.get(index) {
            Some(_) if state.is_lost(index) => Err(Error::GpuIsLost),
            Some(spec) if offset.is_multiple_of(size_of::<u64>()) => Ok(Device { state, index, spec }),
            _ => Err(Error::InvalidArgument),
        }
    }
}

/// A device of the machine.
pub struct Device {
    /// The machine.
    pub state: &'static State,
    /// Its place in the machine.
    pub index: usize,
    /// What it is.
    pub spec: &'static DeviceSpec,
}

impl Device {
    /// Places of its instances in the machine.
    pub fn instances(&self) -> impl Iterator<Item = usize> {
        self.state.machine().instances(self.index)
    }
}

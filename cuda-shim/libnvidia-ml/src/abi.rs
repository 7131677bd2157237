//! What C hands in and gets back: results, out-parameters, strings, arrays.
//!
//! # Safety
//! The only room that follows the caller's pointers. NVML's contract is the caller's: a pointer is null or
//! points to as many items of its type as the function says. These types stand for parameters of exported
//! functions, so they are made by C alone; null is told from valid here, anything else cannot be.
#![allow(unsafe_code)]

use core::ffi::{CStr, c_char};

/// `nvmlReturn_t`.
pub type Code = u32;

/// `NVML_SUCCESS`.
pub const SUCCESS: Code = 0;

/// Every other `nvmlReturn_t` that this library gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Error {
    /// `nvmlInit` was not called, or as often undone.
    Uninitialized = 1,
    /// A handle that is none, a null pointer, a value out of range.
    InvalidArgument = 2,
    /// The simulated device does not have it.
    NotSupported = 3,
    /// Only root may.
    NoPermission = 4,
    /// No such device, process or sample.
    NotFound = 6,
    /// The caller's buffer is too small; where it has a count, the count says what is needed.
    InsufficientSize = 7,
    /// There is no simulated machine to speak of.
    DriverNotLoaded = 9,
    /// Nothing happened in time.
    Timeout = 10,
    /// The device is gone from the bus.
    GpuIsLost = 15,
    /// The operating system refused something.
    OperatingSystem = 17,
    /// A structure of a version that the driver does not know.
    ArgumentVersionMismatch = 25,
    /// The machine is there, but cannot be used.
    Unknown = 999,
}

/// What an entry answers before it becomes a [`Code`].
pub type Answer = Result<(), Error>;

/// The code of an answer.
pub fn code(answer: Answer) -> Code {
    answer.map_or_else(|error| error as Code, |()| SUCCESS)
}

/// A place for one or more values: an out-parameter, or an in-out-parameter, of C type `T *`.
#[repr(transparent)]
pub struct Out<T>(*mut T);

impl<T> Clone for Out<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Out<T> {}

#[cfg(test)]
impl<T> From<*mut T> for Out<T> {
    fn from(place: *mut T) -> Self {
        Self(place)
    }
}

impl<T: Copy> Out<T> {
    /// Whether the caller passed none.
    pub fn is_null(self) -> bool {
        self.0.is_null()
    }

    /// The same place as one for another type: for structures whose version decides their size.
    pub fn cast<U>(self) -> Out<U> {
        Out(self.0.cast())
    }

    /// Stores a value.
    pub fn put(self, value: T) -> Answer {
        self.put_at(0, value)
    }

    /// What the caller left there.
    pub fn get(self) -> Result<T, Error> {
        self.get_at(0)
    }

    /// Stores into the array that the caller passed; `index` is below the length that the caller claimed.
    pub fn put_at(self, index: usize, value: T) -> Answer {
        if self.is_null() {
            return Err(Error::InvalidArgument);
        }
        // SAFETY: not null, so by the caller's contract writable for every index that it claimed.
        unsafe { self.0.add(index).write(value) };
        Ok(())
    }

    /// The same for reading.
    pub fn get_at(self, index: usize) -> Result<T, Error> {
        if self.is_null() {
            return Err(Error::InvalidArgument);
        }
        // SAFETY: not null, so by the caller's contract readable for every index that it claimed.
        Ok(unsafe { self.0.add(index).read() })
    }
}

/// NVML's way of handing out lists: `count` comes in as the room in `items` and goes out as their number.
///
/// # Errors
/// [`Error::InsufficientSize`] where the room is too small; `count` then says how much it takes.
pub fn put_list<T: Copy>(count: Out<u32>, items: Out<T>, found: &[T]) -> Answer {
    let room = count.get()? as usize;
    count.put(found.len() as u32)?;
    if room < found.len() {
        return Err(Error::InsufficientSize);
    }
    found.iter().enumerate().try_for_each(|(index, item)| items.put_at(index, *item))
}

/// A string of the caller's.
#[repr(transparent)]
pub struct Text(*const c_char);

impl Text {
    /// A string that a structure of the caller's points to.
    pub fn of(text: *const c_char) -> Self {
        Self(text)
    }
}

#[cfg(test)]
impl From<&CStr> for Text {
    fn from(text: &CStr) -> Self {
        Self(text.as_ptr())
    }
}

impl Text {
    /// The string; one that is not UTF-8 names nothing here.
    pub fn get(&self) -> Result<&str, Error> {
        if self.0.is_null() {
            return Err(Error::InvalidArgument);
        }
        // SAFETY: not null, so by the caller's contract a C string that outlives the call.
        unsafe { CStr::from_ptr(self.0) }.to_str().map_err(|_| Error::NotFound)
    }
}

/// Stores `text` and a NUL into a buffer of `room` bytes.
///
/// # Errors
/// [`Error::InsufficientSize`] where it does not fit; nothing is written then.
pub fn put_text(buffer: Out<c_char>, room: u32, text: impl AsRef<[u8]>) -> Answer {
    let text = text.as_ref();
    if buffer.is_null() {
        return Err(Error::InvalidArgument);
    }
    if room as usize <= text.len() {
        return Err(Error::InsufficientSize);
    }
    let bytes = text.iter().copied().chain([0]);
    bytes.enumerate().try_for_each(|(index, byte)| buffer.put_at(index, byte.cast_signed()))
}

/// `text` as a field of `N` bytes, cut to leave room for the NUL.
pub fn field<const N: usize>(text: impl AsRef<[u8]>) -> [c_char; N] {
    let mut field = [0; N];
    for (cell, byte) in field[..N - 1].iter_mut().zip(text.as_ref()) {
        *cell = byte.cast_signed();
    }
    field
}

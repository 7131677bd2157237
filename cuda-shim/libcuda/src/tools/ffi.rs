//! The border to C: arguments as they come from callers.
//!
//! # Safety
//! Every raw pointer that a caller passes is read or written here and nowhere else but in the rooms that
//! move device memory. Null is refused; that other pointers are valid for their type is the caller's duty,
//! as it is with the real driver. Nothing here panics or unwinds.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char};

use crate::tools::status::{INVALID_VALUE, Outcome};

/// Where a caller wants a result.
#[repr(transparent)]
pub struct Out<T>(*mut T);

impl<T> Clone for Out<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Out<T> {}

impl<T> Out<T> {
    /// Nowhere.
    pub fn none() -> Out<T> {
        Out(std::ptr::null_mut())
    }

    /// Whether the caller wants none.
    pub fn is_null(self) -> bool {
        self.0.is_null()
    }

    /// `INVALID_VALUE` for null.
    pub fn required(self) -> Outcome {
        if self.is_null() { Err(INVALID_VALUE) } else { Ok(()) }
    }

    /// Stores a result.
    #[inline]
    pub fn put(self, value: T) -> Outcome {
        self.required()?;
        // SAFETY: not null; the caller vouches for the rest. C structs may be under-aligned.
        unsafe { self.0.write_unaligned(value) };
        Ok(())
    }

    /// Stores a result if the caller wants one.
    pub fn put_if(self, value: T) {
        if !self.is_null() {
            // SAFETY: as in `put`.
            unsafe { self.0.write_unaligned(value) };
        }
    }

    /// Stores results one after another.
    pub fn put_all(self, values: impl IntoIterator<Item = T>) {
        for (index, value) in values.into_iter().enumerate() {
            if !self.is_null() {
                // SAFETY: the caller promised room for as many.
                unsafe { self.0.add(index).write_unaligned(value) };
            }
        }
    }

    /// The same place as one for another type.
    pub fn cast<U>(self) -> Out<U> {
        Out(self.0.cast())
    }

    /// A place `bytes` further.
    pub fn skip(self, bytes: usize) -> Out<T> {
        Out(self.0.wrapping_byte_add(bytes))
    }

    /// What lies there now.
    pub fn get(self) -> Outcome<T>
    where
        T: Copy,
    {
        In(self.0.cast_const()).get()
    }
}

/// What a caller passes by pointer.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub struct In<T>(*const T);

impl<T: Copy> In<T> {
    /// What lies at an address that a caller passes as a number or within something else.
    pub fn of(address: u64) -> In<T> {
        In(std::ptr::with_exposed_provenance(address as usize))
    }

    /// Whether it is null.
    pub fn is_null(self) -> bool {
        self.0.is_null()
    }

    /// The value.
    #[inline]
    pub fn get(self) -> Outcome<T> {
        self.at(0)
    }

    /// The value at `index` of an array.
    pub fn at(self, index: usize) -> Outcome<T> {
        if self.0.is_null() {
            return Err(INVALID_VALUE);
        }
        // SAFETY: not null; the caller vouches for the rest. C structs may be under-aligned.
        Ok(unsafe { self.0.add(index).read_unaligned() })
    }

    /// An array of `count` values, which may be null if it is empty.
    pub fn list(self, count: usize) -> Outcome<Vec<T>> {
        (0..count).map(|index| self.at(index)).collect()
    }

    /// The address, to be read from elsewhere.
    pub fn exposed(self) -> usize {
        self.0.expose_provenance()
    }
}

/// A C string of a caller.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub struct Text(*const c_char);

impl Text {
    /// The string.
    pub fn get(self) -> Outcome<&'static CStr> {
        if self.0.is_null() {
            return Err(INVALID_VALUE);
        }
        // SAFETY: not null; a C string by the caller's word. It is used within the call only.
        Ok(unsafe { CStr::from_ptr(self.0) })
    }

    /// The string; what is no UTF-8 is replaced.
    pub fn lossy(self) -> Outcome<String> {
        Ok(self.get()?.to_string_lossy().into_owned())
    }
}

/// Stores a C string into a caller's buffer of `length` bytes, cut if need be.
pub fn put_text(out: Out<u8>, length: i32, text: &str) -> Outcome {
    out.required()?;
    let room = usize::try_from(length).ok().filter(|length| *length > 0).ok_or(INVALID_VALUE)? - 1;
    out.put_all(text.bytes().take(room).chain([0]));
    Ok(())
}

/// Which default stream an export means by a null stream.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum NullStream {
    /// The one that all threads of a context share.
    Legacy,
    /// The calling thread's own.
    PerThread,
}

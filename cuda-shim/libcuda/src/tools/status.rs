//! `CUresult`: the codes of this driver, their names and their texts.

use std::ffi::CStr;

/// What a call comes to.
pub type Outcome<T = ()> = Result<T, Status>;

/// A `CUresult` other than success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status(i32);

impl Status {
    /// The status of this number, which is not 0.
    pub fn of(code: i32) -> Status {
        Status(code)
    }

    /// The number that callers get.
    pub fn code(self) -> i32 {
        self.0
    }
}

macro_rules! statuses {
    ($($name:ident = $code:literal $cuda:literal $text:literal;)*) => {
        $(#[allow(dead_code)] pub const $name: Status = Status($code);)*
        const TABLE: &[(i32, &CStr, &CStr)] = &[$(($code, $cuda, $text)),*];
    };
}

cuda_shim_symbols::errors!(statuses);

/// Name and text of a `CUresult` of this driver.
pub fn describe(code: i32) -> Option<(&'static CStr, &'static CStr)> {
    TABLE.iter().find(|(known, ..)| *known == code).map(|(_, name, text)| (*name, *text))
}

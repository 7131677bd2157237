//! Handles: what callers hold is a checked number, never an address, so that a null, wrong or destroyed handle is told and
//! not followed. All kinds of handles are listed here, so that a kind can be named where its object is not known.

use std::marker::PhantomData;

use crate::tools::status::{INVALID_CONTEXT, INVALID_HANDLE, INVALID_VALUE, Outcome, Status};

/// A handle of some `T` as it crosses the border; 0 is null.
#[repr(transparent)]
pub struct Handle<T>(u64, PhantomData<fn() -> T>);

impl<T> Clone for Handle<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Handle<T> {}

impl<T> PartialEq for Handle<T> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl<T> Eq for Handle<T> {}

impl<T> std::hash::Hash for Handle<T> {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl<T> PartialOrd for Handle<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Handle<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.cmp(&other.0)
    }
}

impl<T> Handle<T> {
    /// No object.
    pub const NULL: Handle<T> = Handle(0, PhantomData);

    /// The handle with this number.
    pub const fn of(raw: u64) -> Handle<T> {
        Handle(raw, PhantomData)
    }

    /// The number.
    pub const fn raw(self) -> u64 {
        self.0
    }

    /// Whether it names no object.
    pub fn is_null(self) -> bool {
        self.0 == 0
    }
}

impl<T: Kind> Handle<T> {
    /// The kind's own error for null.
    pub fn given(self) -> Outcome {
        if self.is_null() { Err(T::WRONG) } else { Ok(()) }
    }
}

/// What sets the handles of one kind of object apart from all others.
pub trait Kind {
    /// A small number of its own, at least 1 and below 32.
    const TAG: u64;
    /// The error for a handle that names no such object.
    const WRONG: Status;
}

macro_rules! kinds {
    ($($handle:ident, $kind:ident = $tag:literal $wrong:ident;)*) => {$(
        pub enum $kind {}
        pub type $handle = Handle<$kind>;
        impl Kind for $kind {
            const TAG: u64 = $tag;
            const WRONG: Status = $wrong;
        }
    )*};
}

kinds! {
    ContextHandle, ContextKind = 1 INVALID_CONTEXT;
    StreamHandle, StreamKind = 2 INVALID_HANDLE;
    EventHandle, EventKind = 3 INVALID_HANDLE;
    CaptureHandle, CaptureKind = 4 INVALID_HANDLE;
    ModuleHandle, ModuleKind = 5 INVALID_HANDLE;
    LibraryHandle, LibraryKind = 6 INVALID_HANDLE;
    KernelHandle, KernelKind = 7 INVALID_HANDLE;
    GraphHandle, GraphKind = 9 INVALID_VALUE;
    GraphExecHandle, GraphExecKind = 10 INVALID_VALUE;
    NodeHandle, NodeKind = 11 INVALID_VALUE;
    PoolHandle, PoolKind = 20 INVALID_VALUE;
    PhysicalHandle, PhysicalKind = 21 INVALID_VALUE;
    ArrayHandle, ArrayKind = 22 INVALID_HANDLE;
    MipmapHandle, MipmapKind = 23 INVALID_HANDLE;
    TextureHandle, TextureKind = 24 INVALID_VALUE;
    SurfaceHandle, SurfaceKind = 25 INVALID_VALUE;
    UserObjectHandle, UserObjectKind = 26 INVALID_VALUE;
}

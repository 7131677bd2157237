//! Macros that hold a record or a list of constants to what is published of it.
//!
//! Both leave a table behind ([`Record`], `NUMBERS`), which `tests/tests/abi.rs` compares with the C header, the Python
//! reader and `docs/region.md`. A field or constant that is left out of its list does not compile, or fails that test.

/// One field of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// Its name, as in C but for underscores in front.
    pub name: &'static str,
    /// Where it begins within the record.
    pub offset: usize,
    /// How many bytes it takes.
    pub bytes: usize,
}

/// One kind of record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// The name of its struct in C.
    pub name: &'static str,
    /// How many bytes it takes.
    pub bytes: usize,
    /// All its fields in order, the reserved ones too: they cover every byte.
    pub fields: &'static [Field],
}

/// Bytes of a field, from a function that borrows it.
pub(crate) const fn field_bytes<T, F>(_borrow: fn(&T) -> &F) -> usize {
    size_of::<F>()
}

/// Whether the fields follow each other and cover the whole record, so that no byte is hidden padding.
pub const fn covers(record: &Record) -> bool {
    let (mut end, mut index) = (0, 0);
    while index < record.fields.len() {
        let field = &record.fields[index];
        if field.offset != end {
            return false;
        }
        end += field.bytes;
        index += 1;
    }
    end == record.bytes
}

/// Asserts a record's length, its fields and their offsets, and makes its table.
macro_rules! record {
    ($type:ident as $name:literal, $bytes:expr; $($field:ident: $offset:expr),+ $(,)?) => {
        impl $type {
            /// Its length and its fields.
            pub const RECORD: $crate::check::Record = $crate::check::Record {
                name: $name,
                bytes: core::mem::size_of::<$type>(),
                fields: &[$($crate::check::Field {
                    name: stringify!($field),
                    offset: core::mem::offset_of!($type, $field),
                    bytes: $crate::check::field_bytes::<$type, _>(|record| &record.$field),
                }),+],
            };
        }
        const _: () = {
            assert!(core::mem::size_of::<$type>() == $bytes);
            $(assert!(core::mem::offset_of!($type, $field) == $offset);)+
            assert!($crate::check::covers(&$type::RECORD));
        };
    };
}
pub(crate) use record;

/// Makes public constants, and a table of them under their names in C.
macro_rules! numbers {
    ($prefix:literal; $($(#[$about:meta])* $name:ident: $type:ty = $value:expr;)+) => {
        $($(#[$about])* pub const $name: $type = $value;)+
        /// The constants of this module that are part of the ABI, each with its name in the C header.
        #[allow(clippy::cast_lossless, clippy::cast_sign_loss, reason = "`From` is not const, and none is negative")]
        pub const NUMBERS: &[(&str, u64)] = &[$((concat!($prefix, stringify!($name)), $name as u64)),+];
    };
}
pub(crate) use numbers;

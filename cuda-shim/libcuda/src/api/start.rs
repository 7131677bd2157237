//! How a process gets in: `cuInit`, versions, which devices are visible, where the functions are, what
//! errors mean.
//!
//! # Safety
//! Exports symbols.
#![allow(unsafe_code)]

use std::ffi::{c_char, c_void};
use std::sync::Mutex;

use cuda_shim_symbols::Found;

use crate::api::export::export;
use crate::api::symbols::get_proc_address;
use crate::model::operations::private_tables;
use crate::model::operations::start::{machine_version, start};
use crate::model::world::{Driver, driver};
use crate::tools::ffi::{In, Out, Text};
use crate::tools::status::{INVALID_VALUE, NOT_FOUND, Outcome, describe};

export! {
    early fn cuInit(flags: u32) {
        static STARTING: Mutex<()> = Mutex::new(());
        if flags != 0 {
            return Err(INVALID_VALUE);
        }
        if !Driver::was_published() {
            let _guard = STARTING.lock();
            if !Driver::was_published() {
                start()?;
            }
        }
        let driver = driver()?;
        driver.state.reap_sometimes();
        Ok(())
    }

    early fn cuDriverGetVersion(version: Out<i32>) {
        version.required()?;
        version.put(machine_version())
    }

    early fn cuGetErrorName(code: i32, text: Out<*const c_char>) {
        error_text(code, text, |(name, _)| name)
    }

    early fn cuGetErrorString(code: i32, text: Out<*const c_char>) {
        error_text(code, text, |(_, text)| text)
    }

    early fn cuGetProcAddress(symbol: Text, function: Out<*const c_void>, version: i32, flags: u64) {
        match get_proc_address(symbol.get()?, version, flags) {
            Found::Export(address) => function.put(address),
            Found::InvalidFlags => Err(INVALID_VALUE),
            Found::NotFound | Found::VersionNotSufficient => Err(NOT_FOUND),
        }
    }

    early fn cuGetProcAddress_v2(
        symbol: Text, function: Out<*const c_void>, version: i32, flags: u64, status: Out<u32>,
    ) {
        let (address, found) = match get_proc_address(symbol.get()?, version, flags) {
            Found::Export(address) => (address, 0),
            Found::NotFound => (std::ptr::null(), 1),
            Found::VersionNotSufficient => (std::ptr::null(), 2),
            Found::InvalidFlags => return Err(INVALID_VALUE),
        };
        status.put_if(found);
        function.put(address)
    }

    early fn cuGetExportTable(table: Out<*const c_void>, id: In<[u8; 16]>) {
        table.required()?;
        table.put(private_tables::export_table(&id.get()?).ok_or(INVALID_VALUE)?)
    }
}

fn error_text(
    code: i32,
    text: Out<*const c_char>,
    pick: impl Fn((&'static std::ffi::CStr, &'static std::ffi::CStr)) -> &'static std::ffi::CStr,
) -> Outcome {
    match describe(code) {
        Some(known) => text.put(pick(known).as_ptr()),
        None => {
            text.put_if(std::ptr::null());
            Err(INVALID_VALUE)
        }
    }
}

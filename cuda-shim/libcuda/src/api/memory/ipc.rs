//! Memory of other processes, by handles that programs pass around. A handle says in which process and in which
//! of its files the memory lies; as with the real driver, whoever opens it must see that process, in the same
//! PID namespace and under the same user.
//!
//! # Safety
//! Exports symbols.
#![allow(unsafe_code)]

use crate::api::export::export;
use crate::model::objects::ipc_handle::IpcHandle;
use crate::model::objects::region::Backing;
use crate::model::operations::sharing::{self, Place};
use crate::model::world::world;
use crate::tools::ffi::Out;
use crate::tools::status::{INVALID_VALUE, Outcome};

/// `CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS`, the only flags there are.
const LAZY_PEER_ACCESS: u32 = 1;

fn open(out: Out<u64>, handle: &IpcHandle, flags: u32) -> Outcome {
    out.required()?;
    let mut world = world()?;
    world.current()?;
    if flags != LAZY_PEER_ACCESS {
        return Err(INVALID_VALUE);
    }
    out.put(sharing::open(&mut world, &Place::of(handle)?)?)
}

export! {
    early fn cuIpcGetMemHandle(out: Out<IpcHandle>, address: u64) {
        out.required()?;
        let mut world = world()?;
        world.current()?;
        out.put(sharing::offer(&mut world, address)?)
    }

    early fn cuIpcOpenMemHandle = cuIpcOpenMemHandle_v2(out: Out<u64>, handle: IpcHandle, flags: u32) {
        open(out, &handle, flags)
    }

    fn cuIpcCloseMemHandle(address: u64) {
        let mut world = world()?;
        world.current()?;
        match world.regions.at(address).map(|region| region.backing) {
            Some(Backing::Opened { lent: false, .. }) => sharing::close(&mut world, address),
            _ => Err(INVALID_VALUE),
        }
    }
}

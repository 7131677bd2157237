//! The first versions of calls, from before CUDA 3.2: sizes and addresses of devices are 32-bit numbers.
//!
//! A driver of today wants a context of that time for them, and answers `INVALID_CONTEXT` in every other (seen of driver
//! 580). No context of the simulated driver is one.
//!
//! # Safety
//! Exports symbols.
#![allow(unsafe_code)]

use crate::api::export::export;
use crate::model::objects::array::Extent;
use crate::model::objects::handle::{ArrayHandle, ModuleHandle};
use crate::model::operations::{arrays, modules};
use crate::model::world::{driver, world};
use crate::tools::ffi::{In, Out, Text};
use crate::tools::status::{INVALID_CONTEXT, OUT_OF_MEMORY, Outcome};

/// `CUDA_ARRAY_DESCRIPTOR_v1`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Flat {
    width: u32,
    height: u32,
    format: u32,
    channels: u32,
}

/// `CUDA_ARRAY3D_DESCRIPTOR_v1`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Box {
    width: u32,
    height: u32,
    depth: u32,
    format: u32,
    channels: u32,
    flags: u32,
}

/// The value as far as 32 bits go.
fn clamped(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

/// What all answer that work in a context: none is of their time.
const OTHER_CONTEXT: Outcome = Err(INVALID_CONTEXT);

export! {
    fn cuDeviceTotalMem(bytes: Out<u32>, device: i32) {
        bytes.put(clamped(world()?.device(device)?.1.spec.total_bytes))
    }

    fn cuMemAlloc(_out: Out<u32>, _size: u32) {
        OTHER_CONTEXT
    }

    fn cuMemAllocPitch(_out: Out<u32>, _pitch: Out<u32>, _width: u32, _height: u32, _element: u32) {
        OTHER_CONTEXT
    }

    fn cuMemFree(_address: u32) {
        OTHER_CONTEXT
    }

    fn cuMemGetInfo(_free: Out<u32>, _total: Out<u32>) {
        OTHER_CONTEXT
    }

    early fn cuMemGetAddressRange(base: Out<u32>, size: Out<u32>, _address: u32) {
        if base.is_null() && size.is_null() {
            return Ok(());
        }
        driver()?;
        OTHER_CONTEXT
    }

    fn cuMemAllocHost(_out: Out<u64>, _length: u32) {
        OTHER_CONTEXT
    }

    fn cuMemHostGetDevicePointer(_out: Out<u32>, _address: u64, _flags: u32) {
        OTHER_CONTEXT
    }

    fn cuModuleGetGlobal(address: Out<u32>, size: Out<u32>, module: ModuleHandle, name: Text) {
        let (start, length) = modules::named_variable(module, name)?;
        if !address.is_null() {
            address.put(u32::try_from(start).map_err(|_| OUT_OF_MEMORY)?)?;
        }
        size.put_if(clamped(length));
        Ok(())
    }

    fn cuArrayCreate(_out: Out<ArrayHandle>, _flat: In<Flat>) {
        OTHER_CONTEXT
    }

    fn cuArray3DCreate(_out: Out<ArrayHandle>, _extent: In<Box>) {
        OTHER_CONTEXT
    }

    early fn cuArrayGetDescriptor(out: Out<Flat>, handle: ArrayHandle) {
        let Extent { width, height, format, channels, .. } = arrays::extent(handle)?;
        out.put(Flat { width: clamped(width), height: clamped(height), format, channels })
    }

    early fn cuArray3DGetDescriptor(out: Out<Box>, handle: ArrayHandle) {
        let Extent { width, height, depth, format, channels, flags } = arrays::extent(handle)?;
        out.put(Box { width: clamped(width), height: clamped(height), depth: clamped(depth), format, channels, flags })
    }
}

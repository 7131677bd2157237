//! The first versions of calls, from before CUDA 3.2: sizes and addresses of devices are 32-bit numbers.
//!
//! All memory of the simulated devices lies above 4 GiB, so no such number names any: a request for memory that would have
//! to is out of memory. Arrays have handles and can be made.
//!
//! # Safety
//! Exports symbols.
#![allow(unsafe_code)]

use crate::array::{self, Array, Extent};
use crate::ffi::{In, Out, Outcome, Text, export};
use crate::kernel::Module;
use crate::memory::{self, host};
use crate::module;
use crate::status::{INVALID_VALUE, NOT_FOUND, OUT_OF_MEMORY};
use crate::table::Handle;
use crate::world::world;

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

/// What is asked for cannot be told in 32 bits, if all else is right.
fn no_memory(asked: bool) -> Outcome {
    world()?.current()?;
    Err(if asked { OUT_OF_MEMORY } else { INVALID_VALUE })
}

export! {
    fn cuDeviceTotalMem(bytes: Out<u32>, device: i32) {
        bytes.put(clamped(world()?.device(device)?.1.spec.total_bytes))
    }

    early fn cuMemAlloc(out: Out<u32>, size: u32) {
        crate::world::driver()?;
        out.required()?;
        no_memory(size > 0)
    }

    fn cuMemAllocPitch(out: Out<u32>, pitch: Out<u32>, width: u32, height: u32, element: u32) {
        out.required()?;
        pitch.required()?;
        no_memory(memory::row_of(width.into(), height.into(), element).is_ok())
    }

    early fn cuMemFree(address: u32) {
        memory::free(address.into())
    }

    early fn cuMemGetInfo(free: Out<u32>, total: Out<u32>) {
        let (has_free, has_total) = memory::info()?;
        free.put_if(clamped(has_free));
        total.put_if(clamped(has_total));
        Ok(())
    }

    early fn cuMemGetAddressRange(base: Out<u32>, size: Out<u32>, _address: u32) {
        if base.is_null() && size.is_null() {
            return Ok(());
        }
        world()?.current()?;
        Err(NOT_FOUND)
    }

    fn cuMemAllocHost(out: Out<u64>, length: u32) {
        host::allocate(out, length.into(), host::DEVICE_MAP)
    }

    fn cuMemHostGetDevicePointer(out: Out<u32>, address: u64, flags: u32) {
        out.required()?;
        out.put(u32::try_from(host::device_address(address, flags)?).map_err(|_| INVALID_VALUE)?)
    }

    fn cuModuleGetGlobal(address: Out<u32>, size: Out<u32>, module: Handle<Module>, name: Text) {
        let (start, length) = module::variable(module, name)?;
        if !address.is_null() {
            address.put(u32::try_from(start).map_err(|_| OUT_OF_MEMORY)?)?;
        }
        size.put_if(clamped(length));
        Ok(())
    }

    fn cuArrayCreate(out: Out<Handle<Array>>, flat: In<Flat>) {
        let Flat { width, height, format, channels } = flat.get()?;
        array::create(out, Extent::flat(width.into(), height.into(), format, channels))
    }

    fn cuArray3DCreate(out: Out<Handle<Array>>, extent: In<Box>) {
        let Box { width, height, depth, format, channels, flags } = extent.get()?;
        let flat = Extent::flat(width.into(), height.into(), format, channels);
        array::create(out, Extent { depth: depth.into(), flags, ..flat })
    }

    early fn cuArrayGetDescriptor(out: Out<Flat>, handle: Handle<Array>) {
        let Extent { width, height, format, channels, .. } = array::extent(handle)?;
        out.put(Flat { width: clamped(width), height: clamped(height), format, channels })
    }

    early fn cuArray3DGetDescriptor(out: Out<Box>, handle: Handle<Array>) {
        let Extent { width, height, depth, format, channels, flags } = array::extent(handle)?;
        out.put(Box { width: clamped(width), height: clamped(height), depth: clamped(depth), format, channels, flags })
    }
}

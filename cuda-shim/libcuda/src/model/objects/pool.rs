//! Pools of stream-ordered memory and what they hold.

use std::fs::File;

use cuda_shim_device::SharedKey;

use crate::model::objects::handle::PoolKind;
use crate::model::objects::table::Item;

/// A memory pool.
pub struct Pool {
    pub device: usize,
    pub is_default: bool,
    /// Its part of the heap for small allocations, once it has one.
    pub purse: Option<usize>,
    /// The three reuse policies.
    pub reuse: [u32; 3],
    pub threshold: u64,
    /// Most bytes that it may hold; 0 for no limit.
    pub limit: u64,
    /// Bytes that allocations asked for.
    pub used: u64,
    pub used_high: u64,
    /// Physical bytes that it holds, and how many of them serve no allocation.
    pub reserved: u64,
    pub reserved_high: u64,
    pub idle: u64,
    /// Other devices that may reach it: ordinal and flags.
    pub access: Vec<(usize, u32)>,
    /// As what it may be exported: `CUmemAllocationHandleType` bits.
    pub handle_types: u32,
    /// The memory of the process whose pool it is, if that is another one: nothing is allocated from it here.
    pub lender: Option<File>,
    /// What this process holds of that one's memory until the pool is destroyed.
    pub borrowed: Vec<SharedKey>,
}

impl Item for Pool {
    type Kind = PoolKind;
}

impl Pool {
    pub fn new(device: usize, is_default: bool, limit: u64) -> Pool {
        Pool {
            device,
            is_default,
            purse: None,
            reuse: [1; 3],
            threshold: 0,
            limit,
            used: 0,
            used_high: 0,
            reserved: 0,
            reserved_high: 0,
            idle: 0,
            access: Vec::new(),
            handle_types: 0,
            lender: None,
            borrowed: Vec::new(),
        }
    }

    /// A device's own pool.
    pub fn default_of(device: usize) -> Pool {
        Pool::new(device, true, 0)
    }

    /// A pool of another process.
    pub fn of_lender(device: usize, memory: File) -> Pool {
        Pool { lender: Some(memory), ..Pool::new(device, false, 0) }
    }

    /// Takes back an allocation and the physical bytes that came free with it.
    pub fn give(&mut self, size: u64, physical: u64) {
        self.used -= size;
        self.idle += physical;
    }

    pub fn take(&mut self, size: u64, physical: u64, fresh: u64) {
        self.used += size;
        self.used_high = self.used_high.max(self.used);
        self.idle -= physical - fresh;
        self.reserved += fresh;
        self.reserved_high = self.reserved_high.max(self.reserved);
    }
}

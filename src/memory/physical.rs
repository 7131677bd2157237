//! Physical memory of the virtual memory API: it lives until its last handle, its last mapping and its last binding to a
//! multicast object are gone.
//!
//! A driver may give a handle out again as soon as its last use is released, also while a mapping keeps the old memory. So
//! the books do not know memory by its handle: each piece of memory, and each multicast object, gets a number that is never
//! used again. A handle is a holding of its own, which tells that number. It leaves the table before the driver's call that
//! may free it, as in `Memory::free`. References are added before the call that makes them, and removed after the call that
//! drops them, so the bytes stay charged meanwhile.

use super::books::Books;
use super::holdings::{Holding, Key, Kind};

/// The bytes of a multicast object; no physical memory has so few.
const MULTICAST: u64 = 0;

/// A use of a handle that was taken out of the table.
pub struct Release {
    handle: Key,
    number: u64,
    /// Whether it was the last one.
    last: bool,
}

impl Books<'_> {
    /// A number for new physical memory, as the key of its holding. The holding's owner is the number of its references.
    pub fn new_physical(self) -> Option<Key> {
        Key::new(Kind::Physical, self.accounts.holdings.next_number())
    }

    /// Records a handle of physical memory.
    pub fn record_handle(self, handle: u64, memory: Key) {
        let uses = Holding { bytes: 1, device: 0, journal: 0, owner: memory.value() };
        let Some(key) = Key::new(Kind::Handle, handle) else { return };
        if let Ok(Some(before)) = self.accounts.holdings.insert(key, uses) {
            // It was released by a call that the library did not see.
            self.drop_physical(before.owner);
        }
    }

    /// Records a multicast object, which has a handle and no memory of its own.
    pub fn record_multicast(self, handle: u64) {
        let Some(key) = self.new_physical() else { return };
        let object = Holding { bytes: MULTICAST, device: 0, journal: 0, owner: 1 };
        self.record_holding(Some(key), object);
        self.record_handle(handle, key);
    }

    /// The number behind a handle.
    pub fn physical_of(self, handle: u64) -> Option<u64> {
        let handle = Key::new(Kind::Handle, handle)?;
        Some(self.accounts.holdings.get(handle)?.owner)
    }

    /// The bytes of the memory behind a handle.
    pub fn bytes_of_handle(self, handle: u64) -> Option<u64> {
        let memory = Key::new(Kind::Physical, self.physical_of(handle)?)?;
        Some(self.accounts.holdings.get(memory)?.bytes)
    }

    /// The number of the memory that is mapped at an address.
    pub fn physical_at(self, address: u64) -> Option<u64> {
        let mapping = Key::new(Kind::Mapping, address)?;
        Some(self.accounts.holdings.get(mapping)?.owner)
    }

    /// The device on which memory lies.
    pub fn device_of_physical(self, number: u64) -> Option<u8> {
        let memory = Key::new(Kind::Physical, number)?;
        Some(self.accounts.holdings.get(memory)?.device)
    }

    /// Adds a reference to memory; answers its holding. `None` if there is no such memory.
    pub fn keep_physical(self, number: u64) -> Option<Holding> {
        let key = Key::new(Kind::Physical, number)?;
        self.accounts.holdings.change(key, |holding| {
            holding.owner = holding.owner.saturating_add(1);
            true
        })
    }

    /// Removes a reference. The last one gives the bytes back.
    pub fn drop_physical(self, number: u64) {
        let last = Key::new(Kind::Physical, number).and_then(|key| {
            self.accounts.holdings.change(key, |holding| {
                holding.owner = holding.owner.saturating_sub(1);
                holding.owner != 0
            })
        });
        match last {
            Some(Holding { bytes: MULTICAST, owner: 0, .. }) => {
                let each = |_, binding: Holding| self.drop_physical(binding.bytes);
                self.accounts.holdings.remove_owned(&[Kind::Binding], number, each);
            }
            Some(Holding { bytes, device, journal, owner: 0 }) => self.give_back(device, journal, bytes),
            _ => {}
        }
    }

    /// The program has got a further use of a handle, of memory to which the caller has added a reference.
    pub fn use_handle(self, handle: u64, number: u64) {
        let more = |uses: &mut Holding| {
            let same = uses.owner == number;
            uses.bytes = uses.bytes.saturating_add(u64::from(same));
            true
        };
        let known = Key::new(Kind::Handle, handle).and_then(|key| self.accounts.holdings.change(key, more));
        match (known, Key::new(Kind::Physical, number)) {
            // All uses of a handle are one reference.
            (Some(uses), _) if uses.owner == number => self.drop_physical(number),
            (_, Some(memory)) => self.record_handle(handle, memory),
            _ => {}
        }
    }

    /// The program has got a further use of a handle; the library does not know where the memory is mapped.
    pub fn use_known_handle(self, handle: u64) {
        let more = |uses: &mut Holding| {
            uses.bytes = uses.bytes.saturating_add(1);
            true
        };
        Key::new(Kind::Handle, handle).and_then(|key| self.accounts.holdings.change(key, more));
    }

    /// Before the driver releases a use of a handle: the last one leaves the table.
    pub fn release_handle(self, handle: u64) -> Option<Release> {
        let handle = Key::new(Kind::Handle, handle)?;
        let uses = self.accounts.holdings.change(handle, |uses| {
            uses.bytes = uses.bytes.saturating_sub(1);
            uses.bytes != 0
        })?;
        Some(Release { handle, number: uses.owner, last: uses.bytes == 0 })
    }

    /// Whether the driver has released it.
    pub fn finish_release(self, release: Option<Release>, done: bool) {
        let Some(Release { handle, number, last }) = release else { return };
        match (done, last, Key::new(Kind::Physical, number)) {
            (true, true, _) => self.drop_physical(number),
            (true, false, _) => {}
            (false, true, Some(memory)) => self.record_handle(handle.value(), memory),
            (false, ..) => self.use_known_handle(handle.value()),
        }
    }

    /// Records a mapping of memory to which the caller has added a reference.
    pub fn record_mapping(self, address: u64, bytes: u64, number: u64) {
        let mapping = Holding { bytes, device: 0, journal: 0, owner: number };
        match Key::new(Kind::Mapping, address).map(|key| self.accounts.holdings.insert(key, mapping)) {
            Some(Ok(Some(before))) => self.drop_physical(before.owner),
            Some(Ok(None)) => {}
            // The reference stays, because an error must never charge too little.
            Some(Err(_)) | None => self.container().count_fallback(),
        }
    }

    /// Removes the mappings of a range, which covers each of them wholly.
    pub fn remove_mappings(self, address: u64, bytes: u64) {
        let end = address.saturating_add(bytes);
        let mut at = address;
        while at < end {
            let mapping = Key::new(Kind::Mapping, at).and_then(|key| self.accounts.holdings.remove(key));
            let Some(mapping) = mapping else { return };
            self.drop_physical(mapping.owner);
            at = at.saturating_add(mapping.bytes.max(1));
        }
    }

    /// Records a binding to a multicast object of memory to which the caller has added a reference.
    pub fn record_binding(self, object: u64, device: u8, offset: u64, number: u64) {
        let binding = Holding { bytes: number, device: 0, journal: 0, owner: object };
        let key = binding_key(object, device, offset);
        if key.is_none_or(|key| self.accounts.holdings.insert(key, binding).is_err()) {
            self.container().count_fallback();
        }
    }

    /// Removes a binding.
    pub fn remove_binding(self, object: u64, device: u8, offset: u64) {
        let binding = binding_key(object, device, offset).and_then(|key| self.accounts.holdings.remove(key));
        if let Some(binding) = binding {
            self.drop_physical(binding.bytes);
        }
    }
}

/// The key of a binding: a hash of the multicast object, the device and the offset.
fn binding_key(object: u64, device: u8, offset: u64) -> Option<Key> {
    let word = object.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(32) ^ offset ^ u64::from(device);
    Key::new(Kind::Binding, word.wrapping_mul(0xD6E8_FEB8_6659_FD93) >> 4)
}

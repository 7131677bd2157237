//! The blocks of an allocation, by its address. Pure arithmetic.

/// The blocks of an allocation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Extent {
    /// Bytes of the blocks that it fills.
    pub whole: u64,
    /// The blocks that it fills in part, by number.
    pub shared: [Option<u64>; 2],
}

impl Extent {
    /// The extent of `bytes` at an address, in blocks of `1 << shift` bytes.
    #[inline]
    pub fn of(address: u64, bytes: u64, shift: u32) -> Self {
        let (mask, end) = (mask(shift), address.saturating_add(bytes));
        let (first, last) = (address >> shift, end >> shift);
        let (begins_inside, ends_inside) = (address & mask != 0, end & mask != 0);
        if first == last {
            // An empty one at the border of a block takes nothing.
            return Self { whole: 0, shared: [Some(first).filter(|_| bytes != 0), None] };
        }
        let whole = last.wrapping_sub(first).wrapping_sub(u64::from(begins_inside)) << shift;
        Self { whole, shared: [Some(first).filter(|_| begins_inside), Some(last).filter(|_| ends_inside)] }
    }

    /// The same without holes.
    pub fn shared_blocks(self) -> impl Iterator<Item = u64> {
        self.shared.into_iter().flatten()
    }
}

/// The bits of an address within a block.
#[inline(always)]
pub fn mask(shift: u32) -> u64 {
    (1u64 << (shift & 63)).wrapping_sub(1)
}

/// Whether an allocation lies in one block; it does not fill it.
#[inline(always)]
pub fn is_in_one_block(address: u64, bytes: u64, shift: u32) -> bool {
    (address ^ address.wrapping_add(bytes).wrapping_sub(1)) >> (shift & 63) == 0
}

/// `bytes` in whole blocks.
#[inline(always)]
pub fn rounded(bytes: u64, shift: u32) -> u64 {
    bytes.checked_add(mask(shift)).map_or(u64::MAX, |sum| sum & !mask(shift))
}

#[cfg(test)]
mod tests;

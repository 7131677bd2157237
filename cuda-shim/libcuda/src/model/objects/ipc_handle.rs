//! What programs pass around for memory and events of other processes.

/// `CUipcMemHandle` and `CUipcEventHandle`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct IpcHandle([u8; 64]);

impl IpcHandle {
    /// A handle that carries these words.
    pub fn of(words: [u64; 6]) -> IpcHandle {
        let mut bytes = [0; 64];
        for (place, word) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(words) {
            *place = word.to_le_bytes();
        }
        IpcHandle(bytes)
    }

    /// The words of a handle, whoever made it.
    pub fn words(&self) -> [u64; 6] {
        let words = self.0.as_chunks::<8>().0;
        std::array::from_fn(|index| words.get(index).map_or(0, |bytes| u64::from_le_bytes(*bytes)))
    }
}

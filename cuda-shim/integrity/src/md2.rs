//! MD2 (RFC 1319) and HMAC (RFC 2104) over it. Broken as cryptography; here it is only an answer.

/// Bytes in a block and in a digest.
const BLOCK: usize = 16;

/// "Random" bytes made of the digits of pi, from RFC 1319 section 3.2.
#[rustfmt::skip]
const PI: [u8; 256] = [
    41, 46, 67, 201, 162, 216, 124, 1, 61, 54, 84, 161, 236, 240, 6, 19,
    98, 167, 5, 243, 192, 199, 115, 140, 152, 147, 43, 217, 188, 76, 130, 202,
    30, 155, 87, 60, 253, 212, 224, 22, 103, 66, 111, 24, 138, 23, 229, 18,
    190, 78, 196, 214, 218, 158, 222, 73, 160, 251, 245, 142, 187, 47, 238, 122,
    169, 104, 121, 145, 21, 178, 7, 63, 148, 194, 16, 137, 11, 34, 95, 33,
    128, 127, 93, 154, 90, 144, 50, 39, 53, 62, 204, 231, 191, 247, 151, 3,
    255, 25, 48, 179, 72, 165, 181, 209, 215, 94, 146, 42, 172, 86, 170, 198,
    79, 184, 56, 210, 150, 164, 125, 182, 118, 252, 107, 226, 156, 116, 4, 241,
    69, 157, 112, 89, 100, 113, 135, 32, 134, 91, 207, 101, 230, 45, 168, 2,
    27, 96, 37, 173, 174, 176, 185, 246, 28, 70, 97, 105, 52, 64, 126, 15,
    85, 71, 163, 35, 221, 81, 175, 58, 195, 92, 249, 206, 186, 197, 234, 38,
    44, 83, 13, 110, 133, 40, 132, 9, 211, 223, 205, 244, 65, 129, 77, 82,
    106, 220, 55, 200, 108, 193, 171, 250, 36, 225, 123, 8, 12, 189, 177, 74,
    120, 136, 149, 139, 227, 99, 232, 109, 233, 203, 213, 254, 59, 0, 29, 57,
    242, 239, 183, 14, 102, 88, 208, 228, 166, 119, 114, 248, 235, 117, 75, 10,
    49, 68, 80, 180, 143, 237, 31, 26, 219, 153, 141, 51, 159, 17, 131, 20,
];

/// A message being hashed.
struct Md2 {
    state: [u8; BLOCK],
    checksum: [u8; BLOCK],
    pending: [u8; BLOCK],
    /// Bytes in `pending`, always fewer than a block.
    filled: usize,
}

impl Md2 {
    const fn new() -> Self {
        Self { state: [0; BLOCK], checksum: [0; BLOCK], pending: [0; BLOCK], filled: 0 }
    }

    const fn update(&mut self, message: &[u8]) {
        let mut next = 0;
        while next < message.len() {
            self.pending[self.filled] = message[next];
            self.filled += 1;
            if self.filled == BLOCK {
                self.sum();
                self.mix(self.pending);
                self.filled = 0;
            }
            next += 1;
        }
    }

    const fn finish(mut self) -> [u8; BLOCK] {
        let padding = BLOCK - self.filled;
        self.update([padding as u8; BLOCK].split_at(padding).0);
        self.mix(self.checksum);
        self.state
    }

    /// Takes the pending block into the checksum.
    const fn sum(&mut self) {
        let mut last = self.checksum[BLOCK - 1];
        let mut at = 0;
        while at < BLOCK {
            self.checksum[at] ^= PI[(self.pending[at] ^ last) as usize];
            last = self.checksum[at];
            at += 1;
        }
    }

    /// Takes a block into the state.
    const fn mix(&mut self, block: [u8; BLOCK]) {
        let mut wide = [0; 3 * BLOCK];
        let mut at = 0;
        while at < BLOCK {
            wide[at] = self.state[at];
            wide[BLOCK + at] = block[at];
            wide[2 * BLOCK + at] = block[at] ^ self.state[at];
            at += 1;
        }
        let mut carried = 0_u8;
        let mut round = 0_u8;
        while round < 18 {
            let mut at = 0;
            while at < wide.len() {
                wide[at] ^= PI[carried as usize];
                carried = wide[at];
                at += 1;
            }
            carried = carried.wrapping_add(round);
            round += 1;
        }
        let mut at = 0;
        while at < BLOCK {
            self.state[at] = wide[at];
            at += 1;
        }
    }
}

/// HMAC-MD2 of a message under a key of one block.
pub const fn hmac_md2(key: &[u8; BLOCK], message: &[u8]) -> [u8; BLOCK] {
    let (mut inner_pad, mut outer_pad) = (*key, *key);
    let mut at = 0;
    while at < BLOCK {
        inner_pad[at] ^= 0x36;
        outer_pad[at] ^= 0x5c;
        at += 1;
    }
    let mut inner = Md2::new();
    inner.update(&inner_pad);
    inner.update(message);
    let mut outer = Md2::new();
    outer.update(&outer_pad);
    outer.update(&inner.finish());
    outer.finish()
}

/// The test suite of RFC 1319, appendix A.5, held at every build.
const _: () = {
    const fn hashes_to(message: &[u8], digest: u128) -> bool {
        let mut hash = Md2::new();
        hash.update(message);
        u128::from_be_bytes(hash.finish()) == digest
    }
    assert!(hashes_to(b"", 0x8350e5a3e24c153df2275c9f80692773));
    assert!(hashes_to(b"abc", 0xda853b0d3f88d99b30283a69e6ded6bb));
    assert!(hashes_to(b"message digest", 0xab4f496bfb2a530b219ff33031fe06b0));
    assert!(hashes_to(
        b"12345678901234567890123456789012345678901234567890123456789012345678901234567890",
        0xd5976f79d83d3a0dc9806c3c66f3efd8
    ));
};

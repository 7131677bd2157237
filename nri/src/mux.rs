//! NRI's two connections over one socket: each frame has a head of eight bytes, the connection's number and the length.
//!
//! containerd reads the parts of a message into buffers as long as what it still expects, and refuses a frame that is longer than
//! its buffer. So a message begins with a frame of its own, and its frames are cut as containerd's own side cuts them.

use crate::error::Error;
use crate::ttrpc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

/// The runtime calls the plugin.
pub const PLUGIN: u32 = 1;
/// The plugin calls the runtime.
pub const RUNTIME: u32 = 2;

const HEAD: usize = 8;
/// Bytes of a frame.
const LONGEST: usize = ttrpc::HEAD + ttrpc::LONGEST;
/// Bytes of a message's first frame: what containerd reads at once.
const FIRST: usize = 4096;
/// How long the rest of a frame may take to come, or the other side to read one.
const STALLED: Duration = Duration::from_secs(10);

/// The next frame. Waits for its beginning without limit, for the rest no longer than a stalled runtime should take.
pub async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Result<(u32, Vec<u8>), Error> {
    let first = stream.read_u8().await?;
    let rest = async {
        let mut head = [first; HEAD];
        stream.read_exact(&mut head[1..]).await?;
        let [a, b, c, d, e, f, g, h] = head;
        let length = u32::from_be_bytes([e, f, g, h]) as usize;
        if length > LONGEST {
            return Err(Error::Protocol(format!("a frame of {length} bytes")));
        }
        let mut bytes = Vec::new();
        // Room is made for what comes, not for what is announced.
        stream.take(length as u64).read_to_end(&mut bytes).await?;
        if bytes.len() < length { Err(Error::Closed) } else { Ok((u32::from_be_bytes([a, b, c, d]), bytes)) }
    };
    timeout(STALLED, rest).await.unwrap_or(Err(Error::Silent("send the rest of a frame")))
}

/// Writes one message in its frames.
pub async fn write(
    stream: &mut (impl AsyncWrite + Unpin),
    connection: u32,
    message: &[u8],
) -> Result<(), Error> {
    let (first, rest) = message.split_at(message.len().min(FIRST));
    let mut framed = Vec::with_capacity(message.len() + 2 * HEAD);
    for part in [first, rest].into_iter().filter(|part| !part.is_empty()) {
        framed.extend_from_slice(&connection.to_be_bytes());
        framed.extend_from_slice(&u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
        framed.extend_from_slice(part);
    }
    let written = async {
        stream.write_all(&framed).await?;
        Ok(stream.flush().await?)
    };
    timeout(STALLED, written).await.unwrap_or(Err(Error::Silent("read a message")))
}

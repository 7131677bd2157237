//! Messages of ttrpc: a head of ten bytes, then a request or a response. Calls of one message each way are all that NRI has.

use crate::error::{Error, Status, code};
use prost::Message;

/// Bytes of a message's head.
pub const HEAD: usize = 10;
/// Bytes of a message behind its head.
pub const LONGEST: usize = 4 << 20;

const REQUEST: u8 = 1;
const RESPONSE: u8 = 2;

/// A call.
#[derive(Clone, PartialEq, Message)]
pub struct Request {
    #[prost(string, tag = "1")]
    pub service: String,
    #[prost(string, tag = "2")]
    pub method: String,
    #[prost(bytes = "vec", tag = "3")]
    pub payload: Vec<u8>,
    #[prost(int64, tag = "4")]
    pub timeout_nano: i64,
}

#[derive(Clone, PartialEq, Message)]
struct WireStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
}

#[derive(Clone, PartialEq, Message)]
struct Response {
    #[prost(message, optional, tag = "1")]
    status: Option<WireStatus>,
    #[prost(bytes = "vec", tag = "2")]
    payload: Vec<u8>,
}

/// The answer to a call.
pub type Answer = Result<Vec<u8>, Status>;

/// A message of that kind.
pub fn decode<M: Message + Default>(payload: &[u8]) -> Result<M, Status> {
    M::decode(payload).map_err(|error| Status::new(code::INVALID_ARGUMENT, format!("no message: {error}")))
}

/// What the other side has sent.
#[derive(Debug, PartialEq)]
pub enum Received {
    /// A call, by the number of its stream.
    Request(u32, Request),
    /// The answer to the call of this number.
    Response(u32, Answer),
    /// A call that is no message; so it must be told.
    Nonsense(u32),
    /// Something that concerns nobody here.
    Other,
}

fn framed(stream: u32, kind: u8, message: &impl Message) -> Vec<u8> {
    let mut bytes = vec![0; HEAD];
    // Writing into a vector does not fail.
    let _ = message.encode(&mut bytes);
    let length = u32::try_from(bytes.len() - HEAD).unwrap_or(u32::MAX);
    bytes[..4].copy_from_slice(&length.to_be_bytes());
    bytes[4..8].copy_from_slice(&stream.to_be_bytes());
    bytes[8] = kind;
    bytes
}

/// A call as it is sent.
pub fn request(stream: u32, request: &Request) -> Vec<u8> {
    framed(stream, REQUEST, request)
}

/// An answer as it is sent. One that is too long becomes a refusal.
pub fn response(stream: u32, answer: Answer) -> Vec<u8> {
    let response = match answer {
        Ok(payload) if payload.len() <= LONGEST - 64 => Response { status: None, payload },
        Ok(payload) => {
            let message = format!("the plugin's answer has {} bytes, more than ttrpc allows", payload.len());
            let status = WireStatus { code: code::INTERNAL, message };
            Response { status: Some(status), payload: Vec::new() }
        }
        Err(status) => {
            let message = status.message.chars().take(1 << 16).collect();
            Response { status: Some(WireStatus { code: status.code, message }), payload: Vec::new() }
        }
    };
    framed(stream, RESPONSE, &response)
}

/// What has come of one logical connection and is no whole message yet.
#[derive(Default)]
pub struct Buffer(Vec<u8>);

impl Buffer {
    /// Takes what has come.
    pub fn push(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// The next message, if it is here as a whole.
    pub fn next(&mut self) -> Result<Option<Received>, Error> {
        let Some(head) = self.0.first_chunk::<HEAD>() else { return Ok(None) };
        let [a, b, c, d, e, f, g, h, kind, _flags] = *head;
        let (length, stream) = (u32::from_be_bytes([a, b, c, d]) as usize, u32::from_be_bytes([e, f, g, h]));
        if length > LONGEST {
            return Err(Error::Protocol(format!("a message of {length} bytes")));
        }
        let Some(body) = self.0.get(HEAD..HEAD + length) else { return Ok(None) };
        let received = match kind {
            REQUEST => match Request::decode(body) {
                Ok(request) => Received::Request(stream, request),
                Err(_) => Received::Nonsense(stream),
            },
            RESPONSE => {
                let Response { status, payload } = Response::decode(body)
                    .map_err(|error| Error::Protocol(format!("a response that is none: {error}")))?;
                let refused = status.filter(|status| status.code != 0);
                let answer =
                    refused.map_or(Ok(payload), |status| Err(Status::new(status.code, status.message)));
                Received::Response(stream, answer)
            }
            _ => Received::Other,
        };
        self.0.drain(..HEAD + length);
        Ok(Some(received))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call() -> Request {
        Request { service: "s".into(), method: "m".into(), payload: vec![1, 2, 3], timeout_nano: 5 }
    }

    #[test]
    fn a_message_is_read_however_it_is_cut() {
        let bytes = [request(7, &call()), response(9, Ok(vec![4])), request(11, &call())].concat();
        for size in 1..bytes.len() {
            let (mut buffer, mut received) = (Buffer::default(), Vec::new());
            for part in bytes.chunks(size) {
                buffer.push(part);
                while let Some(message) = buffer.next().expect("right") {
                    received.push(message);
                }
            }
            let expected = [
                Received::Request(7, call()),
                Received::Response(9, Ok(vec![4])),
                Received::Request(11, call()),
            ];
            assert_eq!(received, expected);
        }
    }

    #[test]
    fn an_answer_that_is_too_long_is_told_as_a_refusal() {
        let mut buffer = Buffer::default();
        buffer.push(&response(1, Ok(vec![0; LONGEST])));
        let Ok(Some(Received::Response(1, Err(status)))) = buffer.next() else { panic!("no refusal") };
        assert_eq!(status.code, code::INTERNAL);
    }

    #[test]
    fn what_is_no_message_is_an_error_and_never_a_panic() {
        for length in 0..64_u32 {
            for seed in 0..400_u32 {
                let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(length);
                let mut bytes: Vec<u8> = (0..length)
                    .map(|_| {
                        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                        (state >> 24) as u8
                    })
                    .collect();
                // A head that fits, so that the body is looked at.
                if seed % 2 == 0 && bytes.len() >= HEAD {
                    let body = (bytes.len() - HEAD) as u32;
                    bytes[..4].copy_from_slice(&body.to_be_bytes());
                    bytes[8] = 1 + (seed % 3) as u8;
                }
                let mut buffer = Buffer::default();
                buffer.push(&bytes);
                while let Ok(Some(_)) = buffer.next() {}
            }
        }
    }
}

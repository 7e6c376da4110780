//! How messages are put on the wire: prost, with small buffers.
//!
//! tonic gives each direction of each call a buffer of 8 KiB for as long as the call lasts. A session lasts for weeks and its messages
//! have some hundred bytes: with ten thousand of them those buffers are most of a coordinator's memory. They grow where more is said.

use std::marker::PhantomData;

use prost::Message;
use tonic::codec::{BufferSettings, Codec};
use tonic_prost::{ProstDecoder, ProstEncoder};

/// Bytes of a buffer to begin with: an ordinary report.
const BUFFER: usize = 1 << 10;
/// What is ready is sent at this size at the latest; tonic's own default.
const YIELD: usize = 32 << 10;

/// The codec of every service here. `T` is sent, `U` is received.
#[derive(Debug)]
pub struct SmallBuffers<T, U>(PhantomData<fn(T) -> U>);

// Derived, it would want `T: Default, U: Default`.
impl<T, U> Default for SmallBuffers<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> Codec for SmallBuffers<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = ProstDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstEncoder::new(BufferSettings::new(BUFFER, YIELD))
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstDecoder::new(BufferSettings::new(BUFFER, YIELD))
    }
}

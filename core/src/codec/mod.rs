//! Values as bytes. Owns: postcard encoding of values, packed runs of values, arguments with holes. Must not know: who sends
//! them where.
//!
//! A value is its postcard encoding, but for long lists of integers (see [`encode_value`]). Values of consecutive items lie back to back
//! in a [`Run`]; the arguments of consecutive items are [`Args`]: a run, plus [`Hole`]s where the value of another key is to be read.

mod args;
mod bulk;
mod encoded;
mod run;
mod value;

pub use args::{Args, Hole, Source, Span};
pub use encoded::Encoded;
pub use run::{Lens, Run, RunBuilder};
pub use value::{Sink, decode_shared, decode_value, encode_value, is_shared, take_value};

use serde::{Serialize, de::DeserializeOwned};

/// Appends the postcard encoding of `value` to `out`: for everything but arguments and results.
///
/// # Errors
/// When the value's own `Serialize` fails, or a sequence does not know its length. `out` is then as it was before.
pub fn encode_into<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) -> Result<(), postcard::Error> {
    value::serialize(value, out)
}

/// Decodes what [`encode_into`] wrote and takes up all of `bytes`.
///
/// # Errors
/// When the bytes are no encoding of a `T`, or some are left over.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, postcard::Error> {
    match postcard::take_from_bytes(bytes)? {
        (value, []) => Ok(value),
        _ => Err(postcard::Error::DeserializeBadEncoding),
    }
}

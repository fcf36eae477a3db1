//! Values as bytes. Owns: postcard encoding of values, packed runs of values, arguments with holes. Must not know: who sends
//! them where.
//!
//! A value is its postcard encoding. Values of consecutive items lie back to back in a [`Run`]; the arguments of consecutive
//! items are [`Args`]: a run, plus [`Hole`]s where the value of another key is to be read.

mod args;
mod run;

pub use args::{Args, Hole, Source, Span};
pub use run::{Lens, Run, RunBuilder};

use postcard::ser_flavors::Flavor;
use serde::{Serialize, de::DeserializeOwned};

/// Appends the encoding of `value` to `out`.
///
/// # Errors
/// When the value's own `Serialize` fails, or a sequence does not know its length. `out` is then as it was before.
pub fn encode_into<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) -> Result<(), postcard::Error> {
    let before = out.len();
    let result = postcard::serialize_with_flavor(value, Append(out));
    if result.is_err() {
        out.truncate(before);
    }
    result
}

/// Decodes a value that takes up all of `bytes`.
///
/// # Errors
/// When the bytes are no encoding of a `T`, or some are left over.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, postcard::Error> {
    match postcard::take_from_bytes(bytes)? {
        (value, []) => Ok(value),
        _ => Err(postcard::Error::DeserializeBadEncoding),
    }
}

// Inlined into the callers' crates: a number is a few bytes, and calling for each of them costs more than to write them.
struct Append<'a>(&'a mut Vec<u8>);

impl Flavor for Append<'_> {
    type Output = ();

    #[inline]
    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.push(byte);
        Ok(())
    }

    #[inline]
    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    #[inline]
    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

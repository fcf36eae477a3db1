//! The form of a value: an argument or a result. Owns: which values are written in bulk, and the sinks that they are written to.
//! Must not know: tasks, or who asks.
//!
//! A value is its postcard encoding. Two kinds of lists do not go through serde an element at a time, if they are the whole argument
//! or result, as `Vec` or slice ([`bulk`](super::bulk) has the details): those of bytes and floats, whose postcard encoding is already
//! their memory behind a count; and long ones of integers, which have a form of their own, the packed one.

use bytes::Bytes;
use postcard::ser_flavors::Flavor;
use serde::{Serialize, de::DeserializeOwned};

use super::bulk;
use crate::pages;

/// Longer [`Bytes`] are not copied. A value of more travels alone.
const SHARED_FROM: usize = 64 << 10;

/// Where encodings are appended to.
pub trait Sink {
    /// Number of bytes so far.
    fn len(&self) -> usize;

    /// Whether there is nothing.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Makes room for so many more bytes at once.
    fn reserve(&mut self, more: usize);

    /// Appends.
    fn append(&mut self, bytes: &[u8]);

    /// Cuts back to `len` bytes.
    fn truncate(&mut self, len: usize);
}

impl Sink for Vec<u8> {
    fn len(&self) -> usize {
        self.len()
    }

    fn reserve(&mut self, more: usize) {
        pages::reserve(self, more);
    }

    #[inline]
    fn append(&mut self, bytes: &[u8]) {
        if bytes.len() < SHORT {
            bytes.iter().for_each(|&byte| self.push(byte));
        } else {
            self.extend_from_slice(bytes);
        }
    }

    fn truncate(&mut self, len: usize) {
        self.truncate(len);
    }
}

/// Fewer bytes than this are appended one by one. A copy of unknown length is a call, in a guest one out of the sandbox, and it reads as
/// words what was written as bytes a moment ago, for which processors wait.
const SHORT: usize = 16;

/// Appends a value to `out`.
///
/// # Errors
/// As [`encode_into`](super::encode_into).
#[inline]
pub fn encode_value<T: Serialize + ?Sized>(value: &T, out: &mut impl Sink) -> Result<(), postcard::Error> {
    if bulk::put(value, out) { Ok(()) } else { serialize(value, out) }
}

/// Reads a value that takes up all of `bytes`.
///
/// # Errors
/// When the bytes are no form of a `T`, or some are left over.
#[inline]
pub fn decode_value<T: DeserializeOwned>(mut bytes: &[u8]) -> Result<T, postcard::Error> {
    let value = take_value(&mut bytes)?;
    if bytes.is_empty() { Ok(value) } else { Err(postcard::Error::DeserializeBadEncoding) }
}

/// As [`decode_value`], of bytes that the value may share: [`Bytes`] that are [shared](is_shared) are a part of them.
///
/// # Errors
/// As [`decode_value`].
#[inline]
pub fn decode_shared<T: DeserializeOwned>(bytes: &Bytes) -> Result<T, postcard::Error> {
    if is_shared::<T>(bytes.len()) { bulk::share(bytes) } else { decode_value(bytes) }
}

/// Whether [`decode_shared`] makes a `T` of an encoding of so many bytes that keeps them all. What is shorter may lie among others, which it
/// would keep, too.
#[inline]
#[must_use]
pub fn is_shared<T>(len: usize) -> bool {
    len > SHARED_FROM && bulk::is::<Bytes, T>()
}

/// Reads the value that `bytes` begin with, and takes it off them.
///
/// # Errors
/// When they do not begin with a form of a `T`; nothing is taken then.
#[inline]
pub fn take_value<T: DeserializeOwned>(bytes: &mut &[u8]) -> Result<T, postcard::Error> {
    if let Some(value) = bulk::take(bytes) {
        return value;
    }
    let (value, rest) = postcard::take_from_bytes(bytes)?;
    *bytes = rest;
    Ok(value)
}

/// Appends the postcard encoding of `value`; nothing on failure.
#[inline]
pub(super) fn serialize<T: Serialize + ?Sized>(value: &T, out: &mut impl Sink) -> Result<(), postcard::Error> {
    let before = out.len();
    let result = postcard::serialize_with_flavor(value, Append(out));
    if result.is_err() {
        out.truncate(before);
    }
    result
}

struct Append<'a, S>(&'a mut S);

impl<S: Sink> Flavor for Append<'_, S> {
    type Output = ();

    #[inline]
    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.append(&[byte]);
        Ok(())
    }

    #[inline]
    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.0.append(bytes);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_of_any_number_are_appended() {
        let bytes: Vec<u8> = (0..40).collect();
        for len in 0..bytes.len() {
            let mut out = vec![255];
            Sink::append(&mut out, &bytes[..len]);
            assert_eq!((out[0], &out[1..]), (255, &bytes[..len]));
        }
    }
}

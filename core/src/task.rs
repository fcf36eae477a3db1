//! What a task is to the library. Owns: the [`Task`] trait that `#[task]` implements, and the reading of arguments and writing of
//! results that native and sandboxed execution share. Must not know: who calls it.

use std::fmt::Display;

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    abi::HoleValue,
    codec::{Sink, decode_shared, decode_value, encode_value, is_shared, take_value},
    guest,
    manifest::TaskInfo,
};

/// A function that can run on a fleet; implemented by `#[task]`, for the unit struct that stands for the function.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a task",
    label = "not a task",
    note = "put `#[task]` on the function and pass its name; closures and plain functions cannot be shipped"
)]
pub trait Task: Copy + Send + Sync + 'static {
    /// The parameters as a tuple of owned types: `(i64, Vec<f64>)` for `(i64, &[f64])`.
    type Args;
    /// The result's type; of a task that returns `Result<T, E>`, this is `T`.
    type Output: Value;

    /// Name, identity and limits.
    #[doc(hidden)]
    fn info() -> &'static TaskInfo;

    /// Reads one item's arguments, calls the function, writes the result.
    #[doc(hidden)]
    fn run_item(args: &mut ArgReader<'_>, out: &mut Output) -> Result<(), ItemFailure>;
}

/// What can be an argument or a result: anything owned that serde can write and read back. Implemented for all of them.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be an argument or result of a task",
    label = "cannot be encoded and decoded",
    note = "values travel: they need `#[derive(serde::Serialize, serde::Deserialize)]`, all of their parts too, and must be `Send`",
    note = "for types of other crates see whether the crate has a `serde` feature"
)]
pub trait Value: Serialize + DeserializeOwned + Send + 'static {}

#[diagnostic::do_not_recommend]
impl<T: Serialize + DeserializeOwned + Send + 'static> Value for T {}

/// A `Result`, whatever alias it goes by.
pub trait Fallible {
    /// What there is if it went well.
    type Value;
}

impl<T, E> Fallible for Result<T, E> {
    type Value = T;
}

/// [`ArgReader::next`] for the macros' output, with the bound whose violation is explained.
///
/// # Errors
/// As [`ArgReader::next`].
#[inline]
pub fn read<T: Value>(args: &mut ArgReader<'_>, name: &'static str) -> Result<T, ItemFailure> {
    args.next(name)
}

/// [`Output::value`] for the macros' output.
///
/// # Errors
/// As [`Output::value`].
#[inline]
pub fn write<T: Task>(value: &T::Output, out: &mut Output) -> Result<(), ItemFailure> {
    out.value(value)
}

/// [`Output::result`] for the macros' output.
///
/// # Errors
/// As [`Output::result`].
#[inline]
pub fn write_result<T: Task, E: Display>(result: Result<T::Output, E>, out: &mut Output) -> Result<(), ItemFailure> {
    out.result(result)
}

/// How an item failed without a panic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ItemFailure {
    /// An argument did not decode.
    Argument {
        /// The parameter.
        name: &'static str,
        /// What the decoder said.
        message: String,
    },
    /// The task returned `Err`.
    Returned {
        /// The error, displayed.
        message: String,
    },
    /// The result has no encoding.
    Result {
        /// What the encoder said.
        message: String,
    },
}

/// The values for an item's holes.
#[derive(Clone, Copy, Debug)]
pub enum HoleValues<'a> {
    /// In this process: field and value, by ascending field.
    Native(&'a [(u32, Bytes)]),
    /// In a guest: addresses of its own memory.
    Guest(&'a [HoleValue]),
}

impl<'a> HoleValues<'a> {
    /// Reads the first value, if it is for `field`; then it is taken off.
    fn take<T: DeserializeOwned>(&mut self, field: u32) -> Option<Result<T, postcard::Error>> {
        match self {
            Self::Native(values) => {
                let ((at, value), rest) = values.split_first()?;
                (*at == field).then(|| {
                    *values = rest;
                    decode_shared(value)
                })
            }
            Self::Guest(values) => {
                let (value, rest) = values.split_first()?;
                (value.field == field).then(|| {
                    *values = rest;
                    match is_shared::<T>(value.len as usize) {
                        true => decode_shared(&guest::share(value)),
                        false => decode_value(guest::slice_at(value)),
                    }
                })
            }
        }
    }

    fn is_empty(&self) -> bool {
        match self {
            Self::Native(values) => values.is_empty(),
            Self::Guest(values) => values.is_empty(),
        }
    }
}

/// Reads the fields of one item's arguments in order.
#[derive(Debug)]
pub struct ArgReader<'a> {
    inline: &'a [u8],
    holes: HoleValues<'a>,
    field: u32,
}

impl<'a> ArgReader<'a> {
    /// Reads from an item's inline bytes and the values of its holes.
    #[must_use]
    pub fn new(inline: &'a [u8], holes: HoleValues<'a>) -> Self {
        Self { inline, holes, field: 0 }
    }

    /// The next field, which belongs to the parameter `name`.
    ///
    /// # Errors
    /// When the bytes are no encoding of a `T`; a number that is too large for the guest's 32-bit `usize` is one such case.
    #[inline]
    pub fn next<T: DeserializeOwned>(&mut self, name: &'static str) -> Result<T, ItemFailure> {
        let field = self.field;
        self.field += 1;
        let decoded = match self.holes.take(field) {
            Some(decoded) => decoded,
            None => take_value(&mut self.inline),
        };
        decoded.map_err(|error| ItemFailure::Argument {
            name,
            message: format!("its bytes do not read as `{}`: {error}", std::any::type_name::<T>()),
        })
    }

    /// Asserts that nothing is left over; `last` is the last parameter's name.
    ///
    /// # Errors
    /// When bytes or values are left.
    #[inline]
    pub fn finish(&mut self, last: &'static str) -> Result<(), ItemFailure> {
        if self.inline.is_empty() && self.holes.is_empty() {
            return Ok(());
        }
        Err(ItemFailure::Argument { name: last, message: format!("{} bytes are left over", self.inline.len()) })
    }
}

/// Where results are written, back to back. Growing keeps the old buffer until the item ends, so that whoever reads the finished
/// items' bytes at their last told address still finds them there when a later item traps.
#[derive(Debug, Default)]
pub struct Output {
    buffer: Vec<u8>,
    retired: Vec<Vec<u8>>,
}

impl Output {
    /// An empty one.
    #[must_use]
    pub const fn new() -> Self {
        Self { buffer: Vec::new(), retired: Vec::new() }
    }

    /// Writes an infallible task's result.
    ///
    /// # Errors
    /// When it has no encoding.
    #[inline]
    pub fn value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), ItemFailure> {
        encode_value(value, self).map_err(|error| ItemFailure::Result { message: error.to_string() })
    }

    /// Writes a fallible task's result.
    ///
    /// # Errors
    /// When it is an `Err`, or has no encoding.
    #[inline]
    pub fn result<T: Serialize, E: Display>(&mut self, result: Result<T, E>) -> Result<(), ItemFailure> {
        match result {
            Ok(value) => self.value(&value),
            Err(error) => Err(ItemFailure::Returned { message: format!("{error:#}") }),
        }
    }

    /// Everything written so far.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.buffer
    }

    /// Ends an item: buffers that were outgrown during it are freed.
    #[inline]
    pub fn end_item(&mut self) {
        if !self.retired.is_empty() {
            self.retired.clear();
        }
    }

    /// Takes everything written out and starts anew.
    pub fn take(&mut self) -> Vec<u8> {
        self.retired.clear();
        std::mem::take(&mut self.buffer)
    }

    /// Empties it, and gives room back that exceeds `keep` bytes.
    pub fn clear(&mut self, keep: usize) {
        self.retired.clear();
        self.buffer.clear();
        self.buffer.shrink_to(keep);
    }

    #[cold]
    fn grow(&mut self, more: usize) {
        let mut larger = Vec::with_capacity((self.buffer.len() + more).max(self.buffer.capacity() * 2).max(64));
        larger.extend_from_slice(&self.buffer);
        self.retired.push(std::mem::replace(&mut self.buffer, larger));
    }
}

impl Sink for Output {
    fn len(&self) -> usize {
        self.buffer.len()
    }

    #[inline]
    fn reserve(&mut self, more: usize) {
        if self.buffer.capacity() - self.buffer.len() < more {
            self.grow(more);
        }
    }

    #[inline]
    fn append(&mut self, bytes: &[u8]) {
        self.reserve(bytes.len());
        Sink::append(&mut self.buffer, bytes);
    }

    fn truncate(&mut self, len: usize) {
        self.buffer.truncate(len);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_stand_for_whole_fields() {
        // (unit, hole, i64, hole): a field of no bytes before a hole must not swallow the hole.
        let mut inline = Vec::new();
        crate::codec::encode_into(&((), 7_i64), &mut inline).expect("encodes");
        let mut hole = Vec::new();
        crate::codec::encode_into("text", &mut hole).expect("encodes");
        let holes = [(1, Bytes::from(hole.clone())), (3, Bytes::from(hole))];
        let mut reader = ArgReader::new(&inline, HoleValues::Native(&holes));
        assert_eq!(reader.next::<()>("a"), Ok(()));
        assert_eq!(reader.next::<String>("b"), Ok("text".into()));
        assert_eq!(reader.next::<i64>("c"), Ok(7));
        assert_eq!(reader.next::<String>("d"), Ok("text".into()));
        assert_eq!(reader.finish("d"), Ok(()));
    }

    #[test]
    fn what_does_not_decode_names_the_parameter() {
        let mut reader = ArgReader::new(&[0xff], HoleValues::Native(&[]));
        let Err(ItemFailure::Argument { name, .. }) = reader.next::<i64>("x") else { panic!("decoded") };
        assert_eq!(name, "x");
        let mut reader = ArgReader::new(&[0], HoleValues::Native(&[]));
        assert!(matches!(reader.finish("y"), Err(ItemFailure::Argument { name: "y", .. })));
    }

    #[test]
    fn growing_keeps_the_finished_bytes_in_place_until_the_item_ends() {
        let mut out = Output::default();
        out.append(&[1; 60]);
        let told = out.bytes().as_ptr();
        out.end_item();
        out.append(&[2; 60]);
        assert_eq!(out.retired.len(), 1);
        assert_eq!(out.retired[0].as_ptr(), told);
        out.end_item();
        assert!(out.retired.is_empty());
    }
}

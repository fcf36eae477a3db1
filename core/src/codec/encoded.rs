//! The encoding of one value that is on its way out. Owns: which values go out without a copy. Must not know: where to.

use bytes::Bytes;
use serde::Serialize;

use super::{bulk, encode_value, is_shared};
use crate::pages;

/// A value's encoding: in one piece, or in two, of which the second is the value's own memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Encoded {
    head: Bytes,
    body: Bytes,
}

impl Encoded {
    /// Encodes a value. Large [`Bytes`] are shared, not copied.
    ///
    /// # Errors
    /// As [`encode_value`].
    pub fn of<T: Serialize>(value: &T) -> Result<Self, postcard::Error> {
        let mut head = Vec::new();
        if let Some(body) = bulk::as_bytes(value).filter(|body| is_shared::<T>(body.len())) {
            bulk::put_count(body.len(), &mut head);
            return Ok(Self { head: head.into(), body: body.clone() });
        }
        encode_value(value, &mut head)?;
        Ok(pages::share(head).into())
    }

    /// Length of the encoding in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.head.len() + self.body.len()
    }

    /// Whether the encoding is of no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The pieces, one after the other. The second may be empty.
    #[must_use]
    pub fn pieces(&self) -> [&Bytes; 2] {
        [&self.head, &self.body]
    }

    /// The encoding in one piece; copied if it is in two.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        if self.body.is_empty() { self.head } else { [self.head, self.body].concat().into() }
    }
}

impl<B: Into<Bytes>> From<B> for Encoded {
    fn from(bytes: B) -> Self {
        Self { head: bytes.into(), body: Bytes::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{decode_shared, decode_value};

    #[test]
    fn large_bytes_are_shared_on_both_ends() {
        for len in [0, 1, 64 << 10, (64 << 10) + 1, 3 << 20] {
            let value = Bytes::from(vec![7; len]);
            let encoded = Encoded::of(&value).expect("encodes");
            let is_large = len > 64 << 10;
            let [_, body] = encoded.pieces();
            assert!(body.is_empty() != is_large && (!is_large || body.as_ptr() == value.as_ptr()), "{len}");
            let bytes = encoded.clone().into_bytes();
            assert_eq!((bytes.len(), bytes.is_empty()), (encoded.len(), encoded.is_empty()));
            assert_eq!(bytes, postcard::to_stdvec(&value).expect("encodes"));
            let back: Bytes = decode_shared(&bytes).expect("decodes");
            assert_eq!((&back, decode_value(&bytes)), (&value, Ok(value.clone())));
            assert_eq!(bytes.as_ptr_range().contains(&back.as_ptr()), bytes.len() > 64 << 10, "{len}");
        }
    }

    #[test]
    fn shared_bytes_are_checked() {
        let encoded = Encoded::of(&Bytes::from(vec![7; 100_000])).expect("encodes").into_bytes();
        assert!(decode_shared::<Bytes>(&encoded.slice(..encoded.len() - 1)).is_err());
        assert!(decode_shared::<Bytes>(&[&encoded[..], b"7"].concat().into()).is_err());
        assert!(decode_shared::<Bytes>(&vec![0xff; 100_000].into()).is_err());
        assert_eq!(decode_shared::<Vec<u8>>(&encoded).map(|list| list.len()), Ok(100_000));
    }
}

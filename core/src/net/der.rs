//! Just enough DER to find one's way in a certificate or signing request. Must not know what it is looked through for.

/// Universal `SEQUENCE`.
pub(crate) const SEQUENCE: u8 = 0x30;
/// Universal `INTEGER`.
pub(crate) const INTEGER: u8 = 0x02;
/// Universal `BIT STRING`.
pub(crate) const BIT_STRING: u8 = 0x03;
/// Universal `OCTET STRING`.
pub(crate) const OCTET_STRING: u8 = 0x04;
/// Universal `OBJECT IDENTIFIER`.
pub(crate) const OID: u8 = 0x06;

/// Elements back to back. Every read is checked: the bytes may be anybody's.
#[derive(Clone, Copy)]
pub(crate) struct Der<'a>(pub(crate) &'a [u8]);

/// One element.
#[derive(Clone, Copy)]
pub(crate) struct Element<'a> {
    pub(crate) tag: u8,
    pub(crate) content: &'a [u8],
    /// Tag, length and content.
    pub(crate) whole: &'a [u8],
}

impl<'a> Der<'a> {
    /// The next element, which must have this tag.
    pub(crate) fn expect(&mut self, tag: u8) -> Option<Element<'a>> {
        self.next().filter(|element| element.tag == tag)
    }

    /// The content of the next element, which must be a sequence.
    pub(crate) fn sequence(&mut self) -> Option<Der<'a>> {
        Some(Der(self.expect(SEQUENCE)?.content))
    }
}

impl<'a> Iterator for Der<'a> {
    type Item = Element<'a>;

    fn next(&mut self) -> Option<Element<'a>> {
        let bytes = self.0;
        let (&tag, &first) = (bytes.first()?, bytes.get(1)?);
        let (header, len) = match first {
            short if short < 0x80 => (2, usize::from(short)),
            0x81 => (3, usize::from(*bytes.get(2)?)),
            0x82 => (4, usize::from(u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?]))),
            _ => return None,
        };
        let content = bytes.get(header..header + len)?;
        self.0 = &bytes[header + len..];
        Some(Element { tag, content, whole: &bytes[..header + len] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_come_in_order_and_no_further_than_the_bytes_go() {
        let mut der = Der(&[0x30, 3, 2, 1, 7, 4, 0x81, 1, 9]);
        let mut sequence = der.sequence().expect("a sequence");
        assert_eq!(sequence.expect(INTEGER).expect("an integer").content, [7]);
        assert_eq!(der.expect(OCTET_STRING).expect("octets").content, [9]);
        assert!(der.next().is_none());
        for bad in [&[0x30][..], &[0x30, 5, 0], &[0x30, 0x82, 1], &[0x30, 0x84, 0, 0, 0, 1, 0]] {
            assert!(Der(bad).next().is_none(), "{bad:?}");
        }
    }
}

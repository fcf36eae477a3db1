//! Lists of numbers as blocks of memory. Owns: which types these are, their two forms, and what is checked of them. Must not know: what
//! else a value can be.
//!
//! *Plain*, for `u8`, `i8`, `f32` and `f64`: a varint count, then the elements, little-endian. It is postcard's encoding, byte for byte.
//!
//! *Packed*, for wider integers, from [`PACKED_FROM`] elements on: [`MARK`], the elements' width in bytes (1, 2, 4 or 8), a zero, the
//! count as a `u32`, then the elements, little-endian, two's complement if the type is signed. The width is the least that all of them
//! fit into, so that the form is never larger than the list in memory, and small numbers stay small. Postcard's form, a varint an
//! element, is read as well: shorter lists have it, and lists that are put together of other calls' results, which whoever does so
//! cannot decode. No postcard encoding of a list begins like the mark, which would be a zero in two bytes.
//!
//! *Rows*, lists of such lists: a varint count, then the lists, each in its own form. That is also what a list of calls' results comes to,
//! if each of them is a list.
#![expect(unsafe_code, reason = "a generic value is looked at as the list that its type says it is, and a list as bytes")]

use std::{
    any::TypeId,
    marker::PhantomData,
    mem::{self, ManuallyDrop},
    ptr, slice,
};

use bytes::Bytes;
use postcard::Error;
use serde::{Serialize, de::DeserializeOwned};

use super::value::{Sink, serialize, take_value};
use crate::pages;

/// Lists of at least so many integers are packed; for shorter ones the head would be longer than what it saves.
const PACKED_FROM: usize = 64;
/// What packed lists begin with.
const MARK: [u8; 2] = [0x80, 0];
/// Mark, width, zero, count.
const HEAD_BYTES: usize = 8;
/// A varint count, at most.
const COUNT_BYTES: usize = 10;
/// Elements that are converted at a time.
const PIECE: usize = 512;
/// Room that is made for rows before they are read, at most; it is more than what announces them.
const AHEAD_ROWS: usize = 4096;

/// Writes `value` if it is a list that is written in bulk.
#[inline]
pub(super) fn put<T: ?Sized>(value: &T, out: &mut impl Sink) -> bool {
    macro_rules! try_each {
        ($($element:ty)*) => {$(
            if let Some(list) = list_in::<$element, T>(value) {
                return <$element as Element>::put(list, out);
            }
            if let Some(rows) = list_in::<Vec<$element>, T>(value) {
                return put_rows(rows, out);
            }
        )*};
    }
    try_each!(u8 i8 f32 f64 u16 i16 u32 i32 u64 i64 usize isize);
    as_bytes(value).is_some_and(|bytes| <u8 as Element>::put(bytes, out))
}

/// Takes a `T` off the front of `bytes` if it is a list in one of these forms; `None` leaves it to postcard.
#[inline]
pub(super) fn take<T>(bytes: &mut &[u8]) -> Option<Result<T, Error>> {
    macro_rules! try_each {
        ($($element:ty)*) => {$(
            if is::<Vec<$element>, T>() {
                return <$element as Element>::take(bytes).map(|list| list.map(into_value));
            }
            if is::<Vec<Vec<$element>>, T>() {
                return Some(take_rows::<$element>(bytes).map(into_value));
            }
        )*};
    }
    try_each!(u8 i8 f32 f64 u16 i16 u32 i32 u64 i64 usize isize);
    None
}

/// The value as [`Bytes`], if it is that.
#[inline]
pub(super) fn as_bytes<T: ?Sized>(value: &T) -> Option<&Bytes> {
    // SAFETY: `T` is `Bytes`.
    is::<Bytes, T>().then(|| unsafe { &*ptr::from_ref(value).cast::<Bytes>() })
}

/// Reads a `T`, which is [`Bytes`], as a part of `bytes`, of which it has to take up all.
pub(super) fn share<T>(bytes: &Bytes) -> Result<T, Error> {
    let (count, rest) = postcard::take_from_bytes::<usize>(bytes)?;
    if rest.len() != count {
        return Err(if rest.len() < count { Error::DeserializeUnexpectedEnd } else { Error::DeserializeBadEncoding });
    }
    Ok(into_value(bytes.slice_ref(rest)))
}

/// Whether `T` is `U`. Differences of lifetimes are not seen, so `U` is to be a type that has none in it.
#[inline]
pub(super) fn is<U: ?Sized + 'static, T: ?Sized>() -> bool {
    trait Typed {
        fn id(&self) -> TypeId
        where
            Self: 'static;
    }

    impl<T: ?Sized> Typed for PhantomData<T> {
        #[inline]
        fn id(&self) -> TypeId
        where
            Self: 'static,
        {
            TypeId::of::<T>()
        }
    }

    let of_it: &dyn Typed = &PhantomData::<T>;
    // SAFETY: the bound of the object is all that changes. What is called reads nothing but the vtable, and makes no use of any
    // lifetime: those are erased before ids are made.
    let of_it: &(dyn Typed + 'static) = unsafe { mem::transmute(of_it) };
    of_it.id() == TypeId::of::<U>()
}

/// The value as a list of `E`, if it is a `Vec` or a slice of such.
#[inline]
fn list_in<E: 'static, T: ?Sized>(value: &T) -> Option<&[E]> {
    if is::<Vec<E>, T>() {
        // SAFETY: `T` is `Vec<E>`.
        return Some(unsafe { &*ptr::from_ref(value).cast::<Vec<E>>() });
    }
    // SAFETY: `T` is `[E]`, so that these are the same reference.
    is::<[E], T>().then(|| unsafe { mem::transmute_copy::<&T, &[E]>(&value) })
}

/// The value as a `T`, which is what it is.
#[inline]
fn into_value<U: 'static, T>(value: U) -> T {
    assert!(is::<U, T>(), "asked for the value's own type");
    let value = ManuallyDrop::new(value);
    // SAFETY: `T` is `U`, and the original is not used any more, nor dropped.
    unsafe { mem::transmute_copy::<ManuallyDrop<U>, T>(&value) }
}

/// A number that lists are written in bulk of.
trait Element: Copy + Default + Serialize + DeserializeOwned + 'static {
    /// Writes the list; false, and nothing, if it is better left to postcard.
    fn put(list: &[Self], out: &mut impl Sink) -> bool;

    /// Takes a list off the front of `bytes`; `None` if it has postcard's form.
    fn take(bytes: &mut &[u8]) -> Option<Result<Vec<Self>, Error>>;
}

macro_rules! plain {
    ($($number:ident)*) => {$(
        impl Element for $number {
            fn put(list: &[Self], out: &mut impl Sink) -> bool {
                out.reserve(list.len() * size_of::<Self>() + COUNT_BYTES);
                put_count(list.len(), out);
                put_memory(list, Self::to_le_bytes, out);
                true
            }

            fn take(bytes: &mut &[u8]) -> Option<Result<Vec<Self>, Error>> {
                Some(take_plain(bytes, Self::from_le_bytes))
            }
        }
    )*};
}

plain!(u8 i8 f32 f64);

macro_rules! packed {
    ($($number:ident as $wide:ident: $one:ident $two:ident $four:ident $eight:ident, $bits:expr;)*) => {$(
        impl Element for $number {
            fn put(list: &[Self], out: &mut impl Sink) -> bool {
                let Ok(count) = u32::try_from(list.len()) else { return false };
                if list.len() < PACKED_FROM {
                    return false;
                }
                // All the bits that some element needs; for signed ones without the sign.
                let used: $number = list.iter().fold(0, |used, &x| used | $bits(x));
                let used = used as $wide;
                let width: u8 = match () {
                    () if used <= $one::MAX as $wide => 1,
                    () if used <= $two::MAX as $wide => 2,
                    () if used <= $four::MAX as $wide => 4,
                    () => 8,
                };
                out.reserve(HEAD_BYTES + list.len() * usize::from(width));
                out.append(&MARK);
                out.append(&[width, 0]);
                out.append(&count.to_le_bytes());
                match usize::from(width) {
                    width if width == size_of::<Self>() => put_memory(list, Self::to_le_bytes, out),
                    1 => put_each(list, |x| (x as $one).to_le_bytes(), out),
                    2 => put_each(list, |x| (x as $two).to_le_bytes(), out),
                    4 => put_each(list, |x| (x as $four).to_le_bytes(), out),
                    _ => put_each(list, |x| (x as $eight).to_le_bytes(), out),
                }
                true
            }

            fn take(bytes: &mut &[u8]) -> Option<Result<Vec<Self>, Error>> {
                let rest = bytes.strip_prefix(&MARK)?;
                Some(take_head(rest).and_then(|(width, count, rest)| {
                    let (list, rest) = match width {
                        width if usize::from(width) == size_of::<Self>() => {
                            split(rest, count).map(|(elements, rest)| (take_memory(elements, Self::from_le_bytes), rest))
                        }
                        1 => take_each(rest, count, $one::from_le_bytes, |x| x as Self, |x| Self::try_from(x).is_ok()),
                        2 => take_each(rest, count, $two::from_le_bytes, |x| x as Self, |x| Self::try_from(x).is_ok()),
                        4 => take_each(rest, count, $four::from_le_bytes, |x| x as Self, |x| Self::try_from(x).is_ok()),
                        8 => take_each(rest, count, $eight::from_le_bytes, |x| x as Self, |x| Self::try_from(x).is_ok()),
                        _ => Err(Error::DeserializeBadEncoding),
                    }?;
                    *bytes = rest;
                    Ok(list)
                }))
            }
        }
    )*};
}

packed! {
    u16 as u64: u8 u16 u32 u64, |x| x;
    u32 as u64: u8 u16 u32 u64, |x| x;
    u64 as u64: u8 u16 u32 u64, |x| x;
    usize as u64: u8 u16 u32 u64, |x| x;
    i16 as i64: i8 i16 i32 i64, |x: i16| x ^ (x >> (i16::BITS - 1));
    i32 as i64: i8 i16 i32 i64, |x: i32| x ^ (x >> (i32::BITS - 1));
    i64 as i64: i8 i16 i32 i64, |x: i64| x ^ (x >> (i64::BITS - 1));
    isize as i64: i8 i16 i32 i64, |x: isize| x ^ (x >> (isize::BITS - 1));
}

fn put_rows<E: Element>(rows: &[Vec<E>], out: &mut impl Sink) -> bool {
    let start = out.len();
    put_count(rows.len(), out);
    for row in rows {
        if !E::put(row, out) && serialize(row, out).is_err() {
            out.truncate(start);
            return false;
        }
    }
    true
}

pub(super) fn put_count(count: usize, out: &mut impl Sink) {
    let mut varint = [0; COUNT_BYTES];
    if let Ok(varint) = postcard::to_slice(&count, &mut varint) {
        out.append(varint);
    }
}

/// Writes elements as they lie in memory, where that is little-endian.
fn put_memory<const W: usize, E: Element>(list: &[E], to_le: impl Fn(E) -> [u8; W], out: &mut impl Sink) {
    if cfg!(target_endian = "big") {
        return put_each(list, to_le, out);
    }
    // SAFETY: numbers have no padding, and any memory can be looked at as bytes for as long as it is borrowed.
    out.append(unsafe { slice::from_raw_parts(list.as_ptr().cast(), size_of_val(list)) });
}

fn put_each<const W: usize, E: Element>(list: &[E], to_le: impl Fn(E) -> [u8; W], out: &mut impl Sink) {
    let mut piece = [[0; W]; PIECE];
    for part in list.chunks(PIECE) {
        for (place, &x) in piece.iter_mut().zip(part) {
            *place = to_le(x);
        }
        out.append(piece[..part.len()].as_flattened());
    }
}

fn take_plain<const W: usize, E: Element>(bytes: &mut &[u8], from_le: impl Fn([u8; W]) -> E) -> Result<Vec<E>, Error> {
    let (count, rest) = postcard::take_from_bytes::<usize>(bytes)?;
    let (elements, rest) = split(rest, count)?;
    *bytes = rest;
    Ok(take_memory(elements, from_le))
}

/// Reads elements as they lie in memory, where that is little-endian.
fn take_memory<const W: usize, E: Element>(elements: &[[u8; W]], from_le: impl Fn([u8; W]) -> E) -> Vec<E> {
    const { assert!(W == size_of::<E>(), "an element is as wide as its bytes") };
    if cfg!(target_endian = "big") {
        return elements.iter().map(|&x| from_le(x)).collect();
    }
    let mut list: Vec<E> = pages::with_capacity(elements.len());
    // SAFETY: there is room for so many elements, which are as many bytes, and any bytes make a number. Bytes have no alignment.
    unsafe {
        ptr::copy_nonoverlapping(elements.as_ptr().cast(), list.as_mut_ptr().cast::<u8>(), size_of_val(elements));
        list.set_len(elements.len());
    }
    list
}

fn take_rows<E: Element>(bytes: &mut &[u8]) -> Result<Vec<Vec<E>>, Error> {
    let (count, mut rest) = postcard::take_from_bytes::<usize>(bytes)?;
    let mut rows = Vec::with_capacity(count.min(rest.len()).min(AHEAD_ROWS));
    for _ in 0..count {
        rows.push(take_value(&mut rest)?);
    }
    *bytes = rest;
    Ok(rows)
}

/// What stands between the mark and the elements: their width, and number.
fn take_head(bytes: &[u8]) -> Result<(u8, usize, &[u8]), Error> {
    let (&[width, zero, a, b, c, d], rest) = bytes.split_first_chunk().ok_or(Error::DeserializeUnexpectedEnd)?;
    let count = usize::try_from(u32::from_le_bytes([a, b, c, d])).map_err(|_| Error::DeserializeBadEncoding)?;
    if zero == 0 { Ok((width, count, rest)) } else { Err(Error::DeserializeBadEncoding) }
}

fn take_each<const W: usize, N: Copy, E: Element>(
    bytes: &[u8],
    count: usize,
    from_le: impl Fn([u8; W]) -> N,
    convert: impl Fn(N) -> E,
    fits: impl Fn(N) -> bool,
) -> Result<(Vec<E>, &[u8]), Error> {
    let (elements, rest) = split(bytes, count)?;
    // Two passes, the first of which is none where every `N` is an `E`: the compiler makes blocks of each.
    if !elements.iter().all(|&x| fits(from_le(x))) {
        return Err(Error::DeserializeBadVarint);
    }
    let mut list = vec![E::default(); count];
    for (place, &x) in list.iter_mut().zip(elements) {
        *place = convert(from_le(x));
    }
    Ok((list, rest))
}

/// The first `count` elements of `W` bytes; nothing is allocated for more than what is there.
fn split<const W: usize>(bytes: &[u8], count: usize) -> Result<(&[[u8; W]], &[u8]), Error> {
    let len = count.checked_mul(W).ok_or(Error::DeserializeUnexpectedEnd)?;
    let (elements, rest) = bytes.split_at_checked(len).ok_or(Error::DeserializeUnexpectedEnd)?;
    Ok((elements.as_chunks().0, rest))
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use proptest::prelude::*;

    use super::*;
    use crate::codec::{decode_value, encode_value};

    fn form<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
        let mut out = b"before".to_vec();
        encode_value(value, &mut out).expect("encodes");
        out.split_off(6)
    }

    fn postcard_form<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
        postcard::to_stdvec(value).expect("encodes")
    }

    /// Reads it back in every way: alone, before something else, from any address; and nothing that is cut off or goes on.
    fn check<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &T, bytes: &[u8]) {
        assert_eq!(decode_value::<T>(bytes).as_ref(), Ok(value));
        for shift in 0..8 {
            let moved = [&vec![7; shift], bytes, b"after"].concat();
            let mut rest = &moved[shift..];
            assert_eq!(take_value::<T>(&mut rest).as_ref(), Ok(value));
            assert_eq!(rest, b"after");
            assert!(decode_value::<T>(&moved[shift..]).is_err(), "bytes are left over");
        }
        for end in (0..bytes.len()).step_by(bytes.len() / 100 + 1) {
            let mut cut = &bytes[..end];
            assert!(take_value::<T>(&mut cut).is_err(), "{end} of {} bytes", bytes.len());
            assert_eq!(cut.len(), end, "nothing is taken off on failure");
        }
    }

    macro_rules! round_trips {
        ($($name:ident $number:ident $is_plain:literal;)*) => {$(
            proptest! {
                #![proptest_config(ProptestConfig::with_cases(40))]
                #[test]
                fn $name(
                    mut list in prop::collection::vec(any::<$number>(), 0..300),
                    shift in 0..9_u32,
                    rows in prop::collection::vec(prop::collection::vec(any::<$number>(), 0..90), 0..4),
                ) {
                    // Of any magnitude, so that every width comes up.
                    list.iter_mut().for_each(|x| *x = (*x as i128 >> (8 * shift)) as $number);
                    let bytes = form(&list);
                    check(&list, &bytes);
                    check(&list, &postcard_form(&list));
                    prop_assert_eq!(form(&list[..]), &bytes[..]);
                    if $is_plain || list.len() < PACKED_FROM {
                        prop_assert_eq!(&bytes, &postcard_form(&list));
                    } else {
                        prop_assert!(bytes.len() <= HEAD_BYTES + size_of_val(&list[..]));
                    }
                    check(&rows, &form(&rows));
                    check(&rows, &postcard_form(&rows));
                }
            }
        )*};
    }

    round_trips! {
        lists_of_u8 u8 true; lists_of_i8 i8 true; lists_of_f32 f32 true; lists_of_f64 f64 true;
        lists_of_u16 u16 false; lists_of_i16 i16 false; lists_of_u32 u32 false; lists_of_i32 i32 false;
        lists_of_u64 u64 false; lists_of_i64 i64 false; lists_of_usize usize false; lists_of_isize isize false;
    }

    #[test]
    fn the_width_is_the_least_that_all_fit_into() {
        let width = |x: i64| form(&[vec![0; 99], vec![x]].concat())[2];
        let widths =
            [0, 127, 128, -128, -129, 1 << 15, -(1 << 15), 1 << 31, -(1 << 31), (1 << 31) - 1, i64::MIN, i64::MAX].map(width);
        assert_eq!(widths, [1, 1, 2, 1, 2, 4, 2, 8, 4, 4, 8, 8]);
        let width = |x: u32| form(&[vec![0; 99], vec![x]].concat())[2];
        assert_eq!([255, 256, 65_535, 65_536, u32::MAX].map(width), [1, 2, 2, 4, 4]);
    }

    #[test]
    fn a_packed_list_is_as_described() {
        let bytes = form(&vec![-2_i32; 64]);
        assert_eq!(bytes[..8], [0x80, 0, 1, 0, 64, 0, 0, 0]);
        assert_eq!(bytes[8..], [0xfe; 64]);
        assert_eq!(form(&vec![-2_i32; 63])[..3], [63, 3, 3]);
    }

    #[test]
    fn floats_keep_their_bits() {
        let list = [f64::NAN, -0.0, f64::from_bits(0x7ff0_0000_0000_0001), f64::INFINITY];
        let back: Vec<f64> = decode_value(&form(&list[..])).expect("decodes");
        assert!(back.iter().map(|x| x.to_bits()).eq(list.iter().map(|x| x.to_bits())));
    }

    #[test]
    fn other_values_are_left_to_postcard() {
        let bytes = form(&(vec![1_i64; 100], "text"));
        assert_eq!(bytes, postcard_form(&(vec![1_i64; 100], "text")));
        assert_eq!(form("text"), postcard_form("text"));
        assert_eq!(form(&vec![true; 100]), postcard_form(&vec![true; 100]));
        assert_eq!(form(&[1_u16; 20]), postcard_form(&[1_u16; 20]), "an array is no list");
    }

    #[test]
    fn results_of_calls_put_together_are_rows() {
        let rows = [vec![1_i64; 3], vec![1 << 40; 200], vec![]];
        let mut list = vec![3];
        rows.iter().for_each(|row| list.extend(form(row)));
        assert_eq!(decode_value::<Vec<Vec<i64>>>(&list).as_deref(), Ok(&rows[..]));
        assert_eq!(form(&rows[..]), list);
    }

    #[test]
    fn claims_that_are_not_true_are_refused_before_room_is_made() {
        let varint = |count: u64| postcard_form(&count);
        let head = |width, zero, count: u32| [&[0x80, 0, width, zero][..], &count.to_le_bytes()].concat();
        fn refuse<T: DeserializeOwned + Debug>(bytes: &[u8]) {
            assert!(decode_value::<T>(bytes).is_err(), "{bytes:?} as {}", std::any::type_name::<T>());
        }
        for count in [1, 1 << 20, u64::from(u32::MAX), 1 << 61, u64::MAX] {
            refuse::<Vec<u8>>(&varint(count));
            refuse::<Vec<f64>>(&varint(count));
            refuse::<Vec<i64>>(&varint(count));
            refuse::<Vec<Vec<f64>>>(&varint(count));
            refuse::<Vec<Vec<i64>>>(&[varint(count), head(8, 0, u32::MAX)].concat());
        }
        refuse::<Vec<f64>>(&[0xff; 11]);
        for width in 0..=u8::MAX {
            refuse::<Vec<u32>>(&head(width, 0, u32::MAX));
        }
        for (width, zero) in [(0, 0), (3, 0), (16, 0), (1, 1)] {
            refuse::<Vec<i16>>(&[&head(width, zero, 1)[..], &[0; 16][..usize::from(width)]].concat());
        }
        refuse::<Vec<i16>>(&[&head(4, 0, 1)[..], &70_000_i32.to_le_bytes()].concat());
        refuse::<Vec<u64>>(&[0x80, 0]);
        assert_eq!(decode_value::<Vec<i16>>(&[&head(4, 0, 1)[..], &(-7_i32).to_le_bytes()].concat()), Ok(vec![-7]));
    }
}

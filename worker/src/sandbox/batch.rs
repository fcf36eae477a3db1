//! A batch as the guest will see it: one room with the header, the holes, the lengths, the inline bytes and the holes' values.
//! Must not know: wasmtime.

use std::{collections::HashMap, ops::Range};

use quicsand::{
    abi::{Batch, HoleValue},
    codec::{Lens, Run},
};

use super::runner::{HoleInput, Job};

const BATCH_BYTES: u64 = size_of::<Batch>() as u64;
const HOLE_BYTES: u64 = size_of::<HoleValue>() as u64;

/// Where everything of a batch goes, counted from the start of its room. Kept between batches for its allocations.
#[derive(Debug, Default)]
pub(crate) struct Layout {
    /// Where each hole's value is.
    values: Vec<u32>,
    /// Where each distinct buffer is, by address and length.
    buffers: HashMap<(usize, usize), u32>,
}

/// Some items of a job, laid out.
#[derive(Debug)]
pub(crate) struct Plan<'a> {
    args: Run,
    holes: &'a [HoleInput],
    values: &'a [u32],
    first: u32,
    lens_at: u32,
    bytes_at: u32,
    /// Bytes of the room.
    pub(crate) len: u32,
}

impl Layout {
    /// Lays `items` of the job out; a value that several holes share is there once.
    ///
    /// # Errors
    /// With the number of bytes, when that is more than `limit` or than a guest can address.
    pub(crate) fn plan<'a>(&'a mut self, job: &'a Job, items: &Range<u32>, limit: u64) -> Result<Plan<'a>, u64> {
        let args = if *items == (0..job.args.count()) { job.args.clone() } else { job.args.slice(items.clone()) };
        let from = job.holes.partition_point(|hole| hole.item < items.start);
        let to = job.holes.partition_point(|hole| hole.item < items.end);
        let holes = &job.holes[from..to];
        let lens_at = BATCH_BYTES + holes.len() as u64 * HOLE_BYTES;
        let lens = if matches!(args.lens(), Lens::Each(_)) { u64::from(args.count()) * 4 } else { 0 };
        let bytes_at = lens_at + lens;
        let mut len = bytes_at + args.bytes().len() as u64;

        self.values.clear();
        self.buffers.clear();
        let mut last = None;
        for hole in holes {
            let buffer = (hole.value.as_ptr() as usize, hole.value.len());
            let at = match last {
                Some((same, at)) if same == buffer => at,
                _ => *self.buffers.entry(buffer).or_insert_with(|| {
                    let at = u32::try_from(len).unwrap_or(u32::MAX);
                    len += buffer.1 as u64;
                    at
                }),
            };
            last = Some((buffer, at));
            self.values.push(at);
        }
        match (u32::try_from(lens_at), u32::try_from(bytes_at), u32::try_from(len)) {
            (Ok(lens_at), Ok(bytes_at), Ok(room)) if len <= limit => {
                Ok(Plan { args, holes, values: &self.values, first: items.start, lens_at, bytes_at, len: room })
            }
            _ => Err(len),
        }
    }
}

impl Plan<'_> {
    /// Writes everything into the room, which is `self.len` long and lies at `base` in the guest; `None` if it cannot be there.
    pub(crate) fn write(&self, room: &mut [u8], base: u32) -> Option<()> {
        base.checked_add(self.len)?;
        let each = matches!(self.args.lens(), Lens::Each(_));
        let header = [
            self.args.count(),
            base + self.bytes_at,
            if each { base + self.lens_at } else { 0 },
            if let Lens::Same(len) = self.args.lens() { *len } else { 0 },
            base + BATCH_BYTES as u32,
            u32::try_from(self.holes.len()).ok()?,
        ];
        put_numbers(room, 0, header)?;
        let mut hole_at = BATCH_BYTES as usize;
        for (hole, &value_at) in self.holes.iter().zip(self.values) {
            let len = u32::try_from(hole.value.len()).ok()?;
            put_numbers(room, hole_at, [hole.item - self.first, hole.field, base + value_at, len])?;
            hole_at += HOLE_BYTES as usize;
        }
        if let Lens::Each(lens) = self.args.lens() {
            let places = room.get_mut(self.lens_at as usize..self.bytes_at as usize)?;
            for (place, len) in places.as_chunks_mut::<4>().0.iter_mut().zip(lens) {
                *place = len.to_le_bytes();
            }
        }
        put(room, self.bytes_at as usize, self.args.bytes())?;
        let mut end = 0;
        for (hole, &at) in self.holes.iter().zip(self.values) {
            // Buffers were placed in ascending order, each when it was first met: what lies below the end is there already.
            if at >= end && !hole.value.is_empty() {
                put(room, at as usize, &hole.value)?;
                end = at + 1;
            }
        }
        Some(())
    }
}

fn put(room: &mut [u8], at: usize, bytes: &[u8]) -> Option<()> {
    room.get_mut(at..)?.get_mut(..bytes.len())?.copy_from_slice(bytes);
    Some(())
}

fn put_numbers<const N: usize>(room: &mut [u8], at: usize, numbers: [u32; N]) -> Option<()> {
    let places = room.get_mut(at..)?.get_mut(..N * 4)?;
    for (place, number) in places.as_chunks_mut::<4>().0.iter_mut().zip(numbers) {
        *place = number.to_le_bytes();
    }
    Some(())
}

//! What a client's messages cost in credit, so that what a client makes its scheduler keep has a bound, however empty it is. Both sides count
//! by this. Must not know: who counts, and when credit is given.

use super::FromClient;
use crate::codec::{Args, Hole, Source};

/// Of an entry, beside its items: about what a scheduler keeps of an empty call. A million pending calls are half of a client's share.
pub const ENTRY_COST: u64 = 512;
/// Of an item, beside its bytes. Ten million are a twelfth of a client's share.
pub const ITEM_COST: u64 = 8;
/// Of a field of consecutive items that is read from other items.
const HOLE_COST: u64 = 128;
/// Of consecutive items in a list that a field is read from, beyond the first ones.
const SPAN_COST: u64 = 24;

impl Args {
    /// What it costs to send these.
    #[must_use]
    pub fn cost(&self) -> u64 {
        args_cost(self.run.bytes().len(), self.count(), &self.holes)
    }
}

/// What it costs to send arguments of so many bytes, for so many items.
pub(crate) fn args_cost(bytes: usize, count: u32, holes: &[Hole]) -> u64 {
    let spans = |source: &Source| if let Source::List(spans) = source { spans.len().saturating_sub(1) as u64 } else { 0 };
    let holes: u64 = holes.iter().map(|hole| HOLE_COST + SPAN_COST * spans(&hole.source)).sum();
    bytes as u64 + u64::from(count) * ITEM_COST + holes
}

impl FromClient {
    /// What it costs to send this.
    #[must_use]
    pub fn cost(&self) -> u64 {
        match self {
            Self::Call { args, .. } => ENTRY_COST + args.cost(),
            Self::Items { args, .. } => args.cost(),
            Self::Map { .. } => ENTRY_COST,
            Self::Data { bytes, .. } => ENTRY_COST + bytes.as_ref().map_or(0, |bytes| bytes.len() as u64),
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        codec::{Lens, Run, Span},
        ids::{ClientId, EntryId},
        scheduler::Config,
    };

    #[test]
    fn many_small_things_fit_into_a_share_and_are_not_free() {
        let share = Config::default().client_bytes;
        let run = |count: u32, len: u32| {
            let bytes = vec![0; (count * len) as usize].into();
            Run::checked(count, Lens::Same(len), bytes).expect("agrees")
        };
        // The longest encoding of an `i64`.
        let items = Args { run: run(8192, 10), holes: Vec::new() };
        assert!(10_000_000 / 8192 * items.cost() < share / 4);
        let entry = EntryId { client: ClientId(1), seq: 1 };
        let hole = Hole { first: 0, count: 1, field: 0, source: Source::Same(entry.key(0)) };
        let call = Args { run: run(1, 10), holes: vec![hole] };
        assert!(1_000_000 * (ENTRY_COST + call.cost()) < share);
        let list = Hole { first: 0, count: 1, field: 0, source: Source::List(vec![Span { entry, first: 0, count: 1 }; 100]) };
        let empty = Args { run: run(1, 0), holes: Vec::new() };
        let long = Args { holes: vec![list], ..empty.clone() };
        assert!(empty.cost() > 0 && long.cost() > 100 * SPAN_COST);
    }
}

//! Arguments of a call: values and futures, encoded into inline bytes and holes. Owns: the traits that say what may stand where a
//! task asks for a `T`, and the writer behind them.

use std::sync::Arc;

use serde::Serialize;

use super::{
    future::{Future, Futures},
    shared::{Handle, Shared},
};
use crate::{
    codec::{Args, Hole, RunBuilder, Source, Span, encode_value},
    error::Error,
    ids::EntryId,
    wire::INLINE_BYTES,
};

/// Something that can be passed where a task takes a `T`: a `T`, a `&T`, or a future of a `T`; for a `String` also a `&str`; for a
/// `Vec<T>` also a slice, an array, or any list of futures of a `T`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be passed where the task takes `{T}`",
    label = "the task takes `{T}` here",
    note = "pass a `{T}`, a reference to one, or a `Future<{T}>`; write the type out where it would have to be inferred"
)]
pub trait IntoArg<T> {
    /// Writes it as the next field.
    ///
    /// # Errors
    /// When it has no encoding, or is a future of another client.
    #[doc(hidden)]
    fn write(self, to: &mut ArgWriter<'_>) -> Result<(), Error>;
}

/// The arguments of one call: `()` for a task without parameters, the argument itself for one parameter, a tuple for several.
#[diagnostic::on_unimplemented(
    message = "`{Self}` are not the arguments that this task takes",
    label = "the task takes {A}",
    note = "pass `()` for no parameter, the value itself for one, a tuple for several; each may be a value, a reference or a future"
)]
pub trait IntoArgs<A> {
    /// Writes all fields.
    ///
    /// # Errors
    /// As [`IntoArg::write`].
    #[doc(hidden)]
    fn write_all(self, to: &mut ArgWriter<'_>) -> Result<(), Error>;
}

/// A value that was scattered since it is too large to travel with the other arguments. Calls that use it need it until they have ended.
#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) handle: Arc<Handle>,
    /// Length of its encoding.
    pub(crate) bytes: u64,
}

/// Collects the arguments of consecutive items.
#[derive(Debug, Default)]
pub(crate) struct ArgsBuilder {
    run: RunBuilder,
    holes: Vec<Hole>,
    fields: Vec<(u32, Source)>,
    /// Entries that the holes name, which must outlive the sending: the futures themselves may have been passed by value.
    alive: Vec<Arc<Handle>>,
}

impl ArgsBuilder {
    /// Appends one item's arguments; nothing on failure. Values that were scattered on the way go to `keeps`.
    pub(crate) fn push<A, I: IntoArgs<A>>(&mut self, shared: &Arc<Shared>, args: I, keeps: &mut Vec<Kept>) -> Result<(), Error> {
        let item = u32::try_from(self.run.count()).unwrap_or(u32::MAX);
        let start = self.run.byte_len();
        let mut writer =
            ArgWriter { shared, inline: self.run.buffer(), fields: &mut self.fields, alive: &mut self.alive, keeps, field: 0 };
        let written = args.write_all(&mut writer).and_then(|()| {
            self.run
                .end_item(start)
                .map_err(|len| Error::Encode { reason: format!("{len} bytes of small arguments are too many") })
        });
        if let Err(error) = written {
            self.run.buffer().truncate(start);
            self.fields.clear();
            return Err(error);
        }
        for (field, source) in self.fields.drain(..) {
            push_hole(&mut self.holes, item, field, source);
        }
        Ok(())
    }

    pub(crate) fn count(&self) -> usize {
        self.run.count()
    }

    pub(crate) fn byte_len(&self) -> usize {
        self.run.byte_len()
    }

    /// Lets go of the entries that the holes of what was taken name: it is sent.
    pub(crate) fn sent(&mut self) {
        self.alive.clear();
    }

    /// Takes everything out; [`ArgsBuilder::sent`] is to follow.
    pub(crate) fn take(&mut self) -> Args {
        Args { run: self.run.take(), holes: std::mem::take(&mut self.holes) }
    }
}

/// Adds a hole, or lengthens the one that the item before left for the field.
fn push_hole(holes: &mut Vec<Hole>, item: u32, field: u32, source: Source) {
    // Holes of the item before are among the last few: one a field.
    let before = holes.iter_mut().rev().take(8).find(|hole| hole.field == field && hole.first + hole.count == item);
    if let Some(hole) = before {
        match (&hole.source, &source) {
            (last, next) if last == next => {
                hole.count += 1;
                return;
            }
            (Source::Same(first), Source::Same(next))
                if hole.count == 1 && is_next(first.entry, first.index, 1, next.entry, next.index) =>
            {
                hole.source = Source::Each { entry: first.entry, first: first.index };
                hole.count = 2;
                return;
            }
            (Source::Each { entry, first }, Source::Same(next))
                if is_next(*entry, *first, hole.count.into(), next.entry, next.index) =>
            {
                hole.count += 1;
                return;
            }
            _ => {}
        }
    }
    holes.push(Hole { first: item, count: 1, field, source });
}

fn is_next(entry: EntryId, first: u64, count: u64, next: EntryId, index: u64) -> bool {
    entry == next && first + count == index
}

/// Where arguments are written to.
#[derive(Debug)]
pub struct ArgWriter<'a> {
    shared: &'a Arc<Shared>,
    inline: &'a mut Vec<u8>,
    fields: &'a mut Vec<(u32, Source)>,
    alive: &'a mut Vec<Arc<Handle>>,
    keeps: &'a mut Vec<Kept>,
    field: u32,
}

impl ArgWriter<'_> {
    fn value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        let start = self.inline.len();
        encode_value(value, self.inline).map_err(|error| Error::Encode { reason: error.to_string() })?;
        if self.inline.len() - start > INLINE_BYTES {
            // Without a copy where there is nothing before it.
            let value = if start == 0 { std::mem::take(self.inline) } else { self.inline.split_off(start) };
            let bytes = value.len() as u64;
            let handle = self.shared.scatter(value.into());
            self.fields.push((self.field, Source::Same(handle.key(0))));
            self.keeps.push(Kept { handle, bytes });
        }
        self.field += 1;
        Ok(())
    }

    fn future<T>(&mut self, future: &Future<T>) -> Result<(), Error> {
        self.own(future.handle())?;
        self.fields.push((self.field, Source::Same(future.key())));
        self.field += 1;
        Ok(())
    }

    fn list<'a, T: 'a>(&mut self, futures: impl IntoIterator<Item = &'a Future<T>>) -> Result<(), Error> {
        let mut spans: Vec<Span> = Vec::new();
        for future in futures {
            self.own(future.handle())?;
            let key = future.key();
            match spans.last_mut() {
                Some(last) if is_next(last.entry, last.first, last.count, key.entry, key.index) => last.count += 1,
                _ => spans.push(Span { entry: key.entry, first: key.index, count: 1 }),
            }
        }
        self.spans(spans);
        Ok(())
    }

    fn many<T>(&mut self, futures: &Futures<T>) -> Result<(), Error> {
        self.own(futures.handle())?;
        self.spans(vec![futures.span()]);
        Ok(())
    }

    fn spans(&mut self, spans: Vec<Span>) {
        self.fields.push((self.field, Source::List(spans)));
        self.field += 1;
    }

    fn own(&mut self, handle: &Arc<Handle>) -> Result<(), Error> {
        if handle.belongs_to(self.shared) {
            if let Some(error) = self.shared.with(|book| book.broken(handle.seq())) {
                return Err(error);
            }
            if !self.alive.last().is_some_and(|last| Arc::ptr_eq(last, handle)) {
                self.alive.push(Arc::clone(handle));
            }
            return Ok(());
        }
        Err(Error::ForeignFuture { key: handle.key(0) })
    }
}

impl<T: Serialize> IntoArg<T> for T {
    fn write(self, to: &mut ArgWriter<'_>) -> Result<(), Error> {
        to.value(&self)
    }
}

impl<T: Serialize> IntoArg<T> for &T {
    fn write(self, to: &mut ArgWriter<'_>) -> Result<(), Error> {
        to.value(self)
    }
}

impl IntoArg<String> for &str {
    fn write(self, to: &mut ArgWriter<'_>) -> Result<(), Error> {
        to.value(self)
    }
}

impl<T: Serialize> IntoArg<Vec<T>> for &[T] {
    fn write(self, to: &mut ArgWriter<'_>) -> Result<(), Error> {
        to.value(self)
    }
}

impl<T: Serialize, const N: usize> IntoArg<Vec<T>> for [T; N] {
    fn write(self, to: &mut ArgWriter<'_>) -> Result<(), Error> {
        to.value(self.as_slice())
    }
}

impl<T: Serialize, const N: usize> IntoArg<Vec<T>> for &[T; N] {
    fn write(self, to: &mut ArgWriter<'_>) -> Result<(), Error> {
        to.value(self.as_slice())
    }
}

impl<T> IntoArg<T> for Future<T> {
    fn write(self, to: &mut ArgWriter<'_>) -> Result<(), Error> {
        to.future(&self)
    }
}

impl<T> IntoArg<T> for &Future<T> {
    fn write(self, to: &mut ArgWriter<'_>) -> Result<(), Error> {
        to.future(self)
    }
}

impl<T> IntoArg<Vec<T>> for Futures<T> {
    fn write(self, to: &mut ArgWriter<'_>) -> Result<(), Error> {
        to.many(&self)
    }
}

impl<T> IntoArg<Vec<T>> for &Futures<T> {
    fn write(self, to: &mut ArgWriter<'_>) -> Result<(), Error> {
        to.many(self)
    }
}

macro_rules! list_arg {
    ($(<$($generic:ident $(: $kind:ty)?),*> $list:ty, $me:ident => $futures:expr;)*) => {$(
        impl<T, $(const $generic: $($kind)?),*> IntoArg<Vec<T>> for $list {
            fn write($me, to: &mut ArgWriter<'_>) -> Result<(), Error> {
                to.list($futures)
            }
        }
    )*};
}

list_arg! {
    <> Vec<Future<T>>, self => &self;
    <> &Vec<Future<T>>, self => self;
    <> &[Future<T>], self => self;
    <> Vec<&Future<T>>, self => self;
    <N: usize> [Future<T>; N], self => &self;
    <N: usize> &[Future<T>; N], self => self;
    <N: usize> [&Future<T>; N], self => self;
}

impl IntoArgs<()> for () {
    fn write_all(self, _: &mut ArgWriter<'_>) -> Result<(), Error> {
        Ok(())
    }
}

impl<A, X: IntoArg<A>> IntoArgs<(A,)> for X {
    fn write_all(self, to: &mut ArgWriter<'_>) -> Result<(), Error> {
        self.write(to)
    }
}

macro_rules! tuple_args {
    ($($arg:ident $into:ident $at:tt),*) => {
        impl<$($arg, $into: IntoArg<$arg>),*> IntoArgs<($($arg,)*)> for ($($into,)*) {
            fn write_all(self, to: &mut ArgWriter<'_>) -> Result<(), Error> {
                $(self.$at.write(to)?;)*
                Ok(())
            }
        }
    };
}

tuple_args!(A X 0, B Y 1);
tuple_args!(A X 0, B Y 1, C Z 2);
tuple_args!(A X 0, B Y 1, C Z 2, D W 3);
tuple_args!(A X 0, B Y 1, C Z 2, D W 3, E V 4);
tuple_args!(A X 0, B Y 1, C Z 2, D W 3, E V 4, F U 5);
tuple_args!(A X 0, B Y 1, C Z 2, D W 3, E V 4, F U 5, G S 6);
tuple_args!(A X 0, B Y 1, C Z 2, D W 3, E V 4, F U 5, G S 6, H R 7);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::ClientId;

    const ENTRY: EntryId = EntryId { client: ClientId(1), seq: 3 };

    #[test]
    fn holes_of_neighbours_are_joined() {
        let mut holes = Vec::new();
        for item in 0..1000 {
            push_hole(&mut holes, item, 0, Source::Same(ENTRY.key(7)));
            push_hole(&mut holes, item, 1, Source::Same(ENTRY.key(u64::from(item) + 20)));
        }
        assert_eq!(
            holes,
            [
                Hole { first: 0, count: 1000, field: 0, source: Source::Same(ENTRY.key(7)) },
                Hole { first: 0, count: 1000, field: 1, source: Source::Each { entry: ENTRY, first: 20 } },
            ]
        );
    }

    #[test]
    fn holes_of_strangers_are_not() {
        let mut holes = Vec::new();
        push_hole(&mut holes, 0, 0, Source::Same(ENTRY.key(7)));
        push_hole(&mut holes, 1, 0, Source::Same(ENTRY.key(9)));
        push_hole(&mut holes, 3, 0, Source::Same(ENTRY.key(10)));
        assert_eq!(holes.len(), 3);
    }
}

//! Waiting for results of any shape.

use serde::de::DeserializeOwned;

use super::{
    Client,
    future::{Future, Futures, decode_as, decode_shared_as},
};
use crate::{codec::Span, error::Result, ids::Key};

/// What [`Client::gather`](crate::Client::gather) takes: a future, many, or a `Vec`, array or tuple of such.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be gathered",
    label = "no future, nor a Vec, array or tuple of futures"
)]
///
/// ```
/// # use quicsand::{Client, task};
/// # #[task]
/// # fn inc(x: i64) -> i64 { x + 1 }
/// # fn main() -> quicsand::Result<()> {
/// # let client = Client::local();
/// let pairs = vec![(client.submit(inc, 1), client.submit(inc, 2)), (client.submit(inc, 3), client.submit(inc, 4))];
/// assert_eq!(client.gather(pairs)?, [(2, 3), (4, 5)]);
/// # Ok(())
/// # }
/// ```
pub trait Gather {
    /// The results in the same shape.
    type Output;

    /// Waits for them.
    ///
    /// # Errors
    /// The first error, in the order of the futures.
    fn gather(self) -> Result<Self::Output>;
}

impl<T: DeserializeOwned> Gather for Future<T> {
    type Output = T;

    fn gather(self) -> Result<T> {
        self.result()
    }
}

impl<T: DeserializeOwned> Gather for &Future<T> {
    type Output = T;

    fn gather(self) -> Result<T> {
        self.result()
    }
}

impl<T: DeserializeOwned> Gather for Futures<T> {
    type Output = Vec<T>;

    fn gather(self) -> Result<Vec<T>> {
        (&self).gather()
    }
}

impl<T: DeserializeOwned> Gather for &Futures<T> {
    type Output = Vec<T>;

    /// Decodes block by block as they come, in order.
    fn gather(self) -> Result<Vec<T>> {
        let (shared, seq, items) = (self.shared(), self.handle().seq(), self.items());
        let mut values = Vec::with_capacity(self.len().min(1 << 20));
        let mut at = items.start;
        while at < items.end {
            let Some(block) = shared.with(|book| book.block_at(seq, at)) else {
                let key = self.handle().key(at);
                values.push(decode_shared_as(&shared.wait(key)?, key)?);
                at += 1;
                continue;
            };
            let left = usize::try_from(items.end - at).unwrap_or(usize::MAX);
            for bytes in block.iter().take(left) {
                values.push(decode_as(bytes, self.handle().entry().key(at))?);
                at += 1;
            }
        }
        Ok(values)
    }
}

impl<G: Gather> Gather for Vec<G> {
    type Output = Vec<G::Output>;

    fn gather(self) -> Result<Self::Output> {
        self.into_iter().map(Gather::gather).collect()
    }
}

impl<'a, G> Gather for &'a Vec<G>
where
    &'a G: Gather,
{
    type Output = Vec<<&'a G as Gather>::Output>;

    fn gather(self) -> Result<Self::Output> {
        self.iter().map(Gather::gather).collect()
    }
}

impl<'a, G> Gather for &'a [G]
where
    &'a G: Gather,
{
    type Output = Vec<<&'a G as Gather>::Output>;

    fn gather(self) -> Result<Self::Output> {
        self.iter().map(Gather::gather).collect()
    }
}

impl<G: Gather, const N: usize> Gather for [G; N] {
    type Output = [G::Output; N];

    fn gather(self) -> Result<Self::Output> {
        let mut failed = None;
        let results = self.map(|future| match (&failed, future) {
            (None, future) => future.gather().map_err(|error| failed = Some(error)).ok(),
            (Some(_), _) => None,
        });
        match failed {
            Some(error) => Err(error),
            None => Ok(results.map(|result| match result {
                Some(value) => value,
                None => unreachable!("every item was gathered, or one failed"),
            })),
        }
    }
}

impl<'a, G, const N: usize> Gather for &'a [G; N]
where
    &'a G: Gather,
{
    type Output = [<&'a G as Gather>::Output; N];

    fn gather(self) -> Result<Self::Output> {
        self.each_ref().gather()
    }
}

/// Calls that [`Client::counts`](crate::Client::counts) and [`Client::progress`](crate::Client::progress) can look at: the same shapes as
/// for gathering.
///
/// ```
/// # use quicsand::{Client, task};
/// # #[task]
/// # fn inc(x: i64) -> i64 { x + 1 }
/// # fn main() -> quicsand::Result<()> {
/// # let client = Client::local();
/// let one = client.submit(inc, 1);
/// let many = client.map(inc, 0..9);
/// client.progress(&(&one, &many));
/// assert_eq!(client.counts(&(one, many))?.memory, 10);
/// # Ok(())
/// # }
/// ```
pub trait Count {
    /// Their keys, in order.
    #[doc(hidden)]
    fn spans(&self) -> Vec<Span>;

    /// How many have ended.
    #[doc(hidden)]
    fn done(&self) -> u64;

    /// One that another client made.
    #[doc(hidden)]
    fn foreigner(&self, client: &Client) -> Option<Key>;
}

impl<T> Count for Future<T> {
    fn spans(&self) -> Vec<Span> {
        vec![self.span()]
    }

    fn done(&self) -> u64 {
        self.is_done().into()
    }

    fn foreigner(&self, client: &Client) -> Option<Key> {
        (!client.made(self.handle())).then(|| self.key())
    }
}

impl<T> Count for Futures<T> {
    fn spans(&self) -> Vec<Span> {
        vec![self.span()]
    }

    fn done(&self) -> u64 {
        let items = self.items();
        self.shared().with(|book| {
            let seq = self.handle().seq();
            if items.start == 0 && items.end == book.count(seq) {
                return book.resolved(seq).min(items.end);
            }
            items.filter(|&index| book.is_resolved(seq, index)).count() as u64
        })
    }

    fn foreigner(&self, client: &Client) -> Option<Key> {
        (!client.made(self.handle())).then(|| self.handle().key(self.items().start))
    }
}

impl<C: Count + ?Sized> Count for &C {
    fn spans(&self) -> Vec<Span> {
        (**self).spans()
    }

    fn done(&self) -> u64 {
        (**self).done()
    }

    fn foreigner(&self, client: &Client) -> Option<Key> {
        (**self).foreigner(client)
    }
}

impl<C: Count> Count for Vec<C> {
    fn spans(&self) -> Vec<Span> {
        self.as_slice().spans()
    }

    fn done(&self) -> u64 {
        self.as_slice().done()
    }

    fn foreigner(&self, client: &Client) -> Option<Key> {
        self.as_slice().foreigner(client)
    }
}

impl<C: Count> Count for [C] {
    fn spans(&self) -> Vec<Span> {
        self.iter().flat_map(Count::spans).collect()
    }

    fn done(&self) -> u64 {
        self.iter().map(Count::done).sum()
    }

    fn foreigner(&self, client: &Client) -> Option<Key> {
        self.iter().find_map(|part| part.foreigner(client))
    }
}

impl<C: Count, const N: usize> Count for [C; N] {
    fn spans(&self) -> Vec<Span> {
        self.as_slice().spans()
    }

    fn done(&self) -> u64 {
        self.as_slice().done()
    }

    fn foreigner(&self, client: &Client) -> Option<Key> {
        self.as_slice().foreigner(client)
    }
}

macro_rules! tuples {
    ($($part:ident $at:tt),*) => {
        impl<$($part: Gather),*> Gather for ($($part,)*) {
            type Output = ($($part::Output,)*);

            fn gather(self) -> Result<Self::Output> {
                Ok(($(self.$at.gather()?,)*))
            }
        }

        impl<$($part: Count),*> Count for ($($part,)*) {
            fn spans(&self) -> Vec<Span> {
                [$(self.$at.spans()),*].concat()
            }

            fn done(&self) -> u64 {
                0 $(+ self.$at.done())*
            }

            fn foreigner(&self, client: &Client) -> Option<Key> {
                None$(.or_else(|| self.$at.foreigner(client)))*
            }
        }
    };
}

tuples!(A 0);
tuples!(A 0, B 1);
tuples!(A 0, B 1, C 2);
tuples!(A 0, B 1, C 2, D 3);
tuples!(A 0, B 1, C 2, D 3, E 4);
tuples!(A 0, B 1, C 2, D 3, E 4, F 5);
tuples!(A 0, B 1, C 2, D 3, E 4, F 5, G 6);
tuples!(A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7);

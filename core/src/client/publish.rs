//! Calls that outlive their client, and results under names that any client can ask for. Must not know: how they are kept.

use std::{any::type_name, fmt};

use super::{
    Client, Count,
    future::{Future, Futures},
    shared::Handle,
    state::Answer,
};
use crate::{
    error::{Error, Result},
    wire::{FromClient, KIND_BYTES},
};

/// What can be published: a [`Future`], or [`Futures`].
pub trait Publish: Count {
    /// What it is, for whoever asks for it.
    #[doc(hidden)]
    fn kind(&self) -> String;
}

impl<T> Publish for Future<T> {
    fn kind(&self) -> String {
        one::<T>()
    }
}

impl<T> Publish for Futures<T> {
    fn kind(&self) -> String {
        many::<T>()
    }
}

impl Client {
    /// Lets calls run to their end even if this client leaves, or its futures are dropped. What they need stays for that long; their results
    /// are kept only as long as somebody wants them, so that publishing is what most programs want. Blocks until data that calls read has
    /// been uploaded. In-process, calls end with the program all the same.
    ///
    /// ```
    /// # use quicsand::{Client, task};
    /// # #[task]
    /// # fn inc(x: i64) -> i64 { x + 1 }
    /// # fn main() -> quicsand::Result<()> {
    /// # let client = Client::local();
    /// let many = client.map(inc, 0..1000);
    /// client.detach(&many)?;
    /// drop(many); // cancels nothing
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// When a future belongs to another client, or the connection to the fleet is lost.
    pub fn detach(&self, futures: &impl Count) -> Result<()> {
        if let Some(key) = futures.foreigner(self) {
            return Err(Error::ForeignFuture { key });
        }
        let (spans, _) = self.shared.sent_ones(futures.spans());
        self.shared.send(spans.into_iter().map(|span| FromClient::Detach { span }));
        self.finish_uploads()
    }

    /// Keeps a result under a name, for [`Client::published`] of any client of the fleet: also when this one has left, and until somebody says
    /// [`Client::unpublish`]. A call that has not ended is detached by it. Blocks until the scheduler has noted it, and data that calls read
    /// has been uploaded.
    ///
    /// Whoever may join as a client may read and take back what is published. In-process there is only this client.
    ///
    /// ```
    /// # use quicsand::{Client, task};
    /// # #[task]
    /// # fn inc(x: i64) -> i64 { x + 1 }
    /// # fn main() -> quicsand::Result<()> {
    /// # let client = Client::local();
    /// client.publish("two", &client.submit(inc, 1))?;
    ///
    /// let two = client.published::<i64>("two")?; // in another program, later
    /// assert_eq!(client.submit(inc, &two).result()?, 3);
    /// client.unpublish("two");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Publish`] when the name is taken or is none, or too many are published. When the future belongs to another client, could not be
    /// submitted, or the connection to the fleet is lost.
    pub fn publish(&self, name: &str, result: &impl Publish) -> Result<()> {
        if let Some(key) = result.foreigner(self) {
            return Err(Error::ForeignFuture { key });
        }
        // Of one future, or of one handle on many.
        let Some(span) = result.spans().pop() else { return Ok(()) };
        if let Some(error) = self.shared.with(|book| book.broken(span.entry.seq)) {
            return Err(error);
        }
        let (name, kind) = (name.to_owned(), result.kind());
        self.named(|query| FromClient::Publish { query, name, kind, span })?;
        self.finish_uploads()
    }

    /// Takes a name back, whoever has published it. Those who have asked for the result keep it as long as they have a future of it.
    pub fn unpublish(&self, name: &str) {
        self.shared.send([FromClient::Unpublish { name: name.to_owned() }]);
    }

    /// A future of what is published under a name, by this client or another one. It can be waited for and passed to calls as any other; to
    /// cancel it has no effect. The types' names are compared, as [`std::any::type_name`] gives them: a type of one's own has to come from a
    /// library that both programs use.
    ///
    /// # Errors
    /// [`Error::Publish`] when nothing of that name and type is published. When the connection to the fleet is lost.
    pub fn published<T>(&self, name: &str) -> Result<Future<T>> {
        let (handle, _) = self.take_up(name, one::<T>())?;
        Ok(Future::new(handle, 0))
    }

    /// As [`Client::published`], of published [`Futures`].
    ///
    /// # Errors
    /// As [`Client::published`].
    pub fn published_many<T>(&self, name: &str) -> Result<Futures<T>> {
        let (handle, count) = self.take_up(name, many::<T>())?;
        Ok(Futures::new(handle, 0..count))
    }

    fn take_up(&self, name: &str, kind: String) -> Result<(std::sync::Arc<Handle>, u64)> {
        super::not_in_task()?;
        let name = name.to_owned();
        let count = self.named(|query| FromClient::LookUp { query, name: name.clone(), kind: kind.clone() })?;
        Ok((self.shared.open(count, 0, |seq| FromClient::TakeUp { seq, name, kind, count }), count))
    }

    /// Asks something that is answered by a number of items.
    fn named(&self, query: impl FnOnce(u64) -> FromClient) -> Result<u64> {
        match self.shared.ask(query)? {
            Answer::Named(items) => Ok(items?),
            other => Err(wrong(&other)),
        }
    }

    /// Waits until nothing that was submitted needs this client's data any more.
    fn finish_uploads(&self) -> Result<()> {
        self.shared.wait_until(None, |book| (!book.is_uploading()).then_some(()))?;
        Ok(())
    }
}

fn wrong(answer: &dyn fmt::Debug) -> Error {
    Error::Disconnected { address: "the scheduler".to_owned(), reason: format!("it answered another question: {answer:?}") }
}

fn one<T>() -> String {
    cut(type_name::<T>().to_owned())
}

fn many<T>() -> String {
    cut(format!("Futures<{}>", type_name::<T>()))
}

/// Generic types can have long names.
fn cut(mut kind: String) -> String {
    kind.truncate(kind.floor_char_boundary(KIND_BYTES));
    kind
}

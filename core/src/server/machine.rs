//! What the shell asks of the state machine, so that tests of the shell can put another one in.

use std::time::Duration;

use crate::{
    codec::Span,
    ids::{ClientId, Hash, Key, WorkerId},
    scheduler::{Action, Event, Location, Scheduler, Status},
    wire::operator::{Failures, OperatorRefusal, Tasks},
};

/// The state machine, as [`crate::scheduler`] describes it.
pub(super) trait Machine: Send {
    fn handle(&mut self, now: Duration, event: Event, actions: &mut Vec<Action>);
    fn knows(&self, client: ClientId) -> bool;
    fn next_deadline(&self) -> Option<Duration>;
    fn origin(&self, key: Key) -> Key;
    fn locate(&self, key: Key) -> Location;
    fn measure(&self, key: Key) -> Option<(u64, Hash)>;
    fn may_read(&self, worker: WorkerId, key: Key) -> bool;
    fn status(&self) -> Status;
    fn tasks(&self, now: Duration, limit: usize) -> Tasks;
    fn failures(&self, now: Duration, limit: usize) -> Failures;
    fn pending(&self, span: &Span) -> Result<u64, OperatorRefusal>;
}

impl Machine for Scheduler {
    fn handle(&mut self, now: Duration, event: Event, actions: &mut Vec<Action>) {
        Scheduler::handle(self, now, event, actions);
    }

    fn knows(&self, client: ClientId) -> bool {
        Scheduler::knows(self, client)
    }

    fn next_deadline(&self) -> Option<Duration> {
        Scheduler::next_deadline(self)
    }

    fn origin(&self, key: Key) -> Key {
        Scheduler::origin(self, key)
    }

    fn locate(&self, key: Key) -> Location {
        Scheduler::locate(self, key)
    }

    fn measure(&self, key: Key) -> Option<(u64, Hash)> {
        Scheduler::measure(self, key)
    }

    fn may_read(&self, worker: WorkerId, key: Key) -> bool {
        Scheduler::may_read(self, worker, key)
    }

    fn status(&self) -> Status {
        Scheduler::status(self)
    }

    fn tasks(&self, now: Duration, limit: usize) -> Tasks {
        Scheduler::tasks(self, now, limit)
    }

    fn failures(&self, now: Duration, limit: usize) -> Failures {
        Scheduler::failures(self, now, limit)
    }

    fn pending(&self, span: &Span) -> Result<u64, OperatorRefusal> {
        Scheduler::pending(self, span)
    }
}

//! Deliberate defects of the state machines, so that the simulation can prove that it finds such. Owns: their list, and which one is set.
//! Must not know: what any of them breaks.
//!
//! Without the feature `simulation`, which no program asks for, [`is`] is a constant and the broken ways do not exist. With it, a thread
//! that sets no fault pays for a look at a variable of its own, in places that are not hot.

/// One thing that is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// Scheduler: what a lost worker was given is not queued again.
    LossForgotten,
    /// Scheduler: run ids are used again after a few.
    RunIdsReused,
    /// Scheduler: values are freed although calls that have not run need them.
    FreedTooEarly,
    /// Scheduler: values that nobody needs are not freed on workers.
    NeverFreed,
    /// Scheduler: a copy of a value that came when nobody needed it any more is not freed.
    LateCopyKept,
    /// Scheduler: small credit is struck off instead of given.
    CreditLost,
    /// Scheduler: an edge goes on counting one consumer that does not need its input any more.
    EdgeMiscounted,
    /// Scheduler: the arguments of a released result go although what was made of it could have to be made again.
    LineageDropped,
    /// Scheduler: small results are told twice.
    ToldTwice,
    /// Scheduler: the dependents of a cancelled call go on waiting for it.
    CancelNotPassedOn,
    /// Scheduler: a worker that left still counts as a holder of its values.
    GhostsBelieved,
    /// Scheduler: what is special about an item of a batch, a failure say, is taken for the next one's.
    NeighbourBlamed,
    /// Scheduler: a call that was running alone when its worker died is not blamed.
    DeathUnblamed,
    /// Scheduler: failed tries are not counted.
    TriesUncounted,
    /// Scheduler: what a run took of a worker's resources is not given back.
    ResourceKept,
    /// Scheduler: a client whose result is lost is not told.
    LossUntold,
    /// Scheduler: a client whose upload failed is not asked again.
    UploadForgotten,
    /// Scheduler: what a worker has that is away is awaited for ever.
    AbsenceEndless,
    /// Scheduler: data that a client offers again when it returns is not asked for.
    OfferUnanswered,
    /// Scheduler: a client that returns is not told what it may have missed.
    ReturnUnreported,
    /// Scheduler: a worker that drains is not told when it may leave.
    LeaveUnsaid,
    /// Scheduler: what is given back of a run that has started is not queued again.
    RestForgotten,
    /// Worker: a run that is asked back goes without a word.
    RecallUnanswered,
    /// Worker: runs whose input could not be fetched go on waiting for it.
    MissUnanswered,
    /// Worker: the slot of a run without a result, cancelled say, stays taken.
    SlotKept,
    /// Worker: runs whose input cannot be read back from the disk go on waiting for it.
    DamageUnanswered,
    /// Client: data that was let go before it was uploaded is gone, although calls read it.
    OrphanDropped,
    /// Client: the last of several items that were cancelled is passed over.
    LastPassedOver,
}

impl Fault {
    /// All of them.
    pub const ALL: &[Self] = &[
        Self::LossForgotten,
        Self::RunIdsReused,
        Self::FreedTooEarly,
        Self::NeverFreed,
        Self::LateCopyKept,
        Self::CreditLost,
        Self::EdgeMiscounted,
        Self::LineageDropped,
        Self::ToldTwice,
        Self::CancelNotPassedOn,
        Self::GhostsBelieved,
        Self::NeighbourBlamed,
        Self::DeathUnblamed,
        Self::TriesUncounted,
        Self::ResourceKept,
        Self::LossUntold,
        Self::UploadForgotten,
        Self::AbsenceEndless,
        Self::OfferUnanswered,
        Self::ReturnUnreported,
        Self::LeaveUnsaid,
        Self::RestForgotten,
        Self::RecallUnanswered,
        Self::MissUnanswered,
        Self::SlotKept,
        Self::DamageUnanswered,
        Self::OrphanDropped,
        Self::LastPassedOver,
    ];
}

/// Whether this is wrong here: never, outside of the simulation.
#[cfg(not(feature = "simulation"))]
#[inline(always)]
#[must_use]
pub const fn is(_: Fault) -> bool {
    false
}

#[cfg(feature = "simulation")]
std::thread_local! {
    static SET: std::cell::Cell<Option<Fault>> = const { std::cell::Cell::new(None) };
}

/// Whether this is wrong on this thread.
#[cfg(feature = "simulation")]
#[inline]
#[must_use]
pub fn is(fault: Fault) -> bool {
    SET.get() == Some(fault)
}

/// From here on this is wrong on this thread, and nothing else.
#[cfg(feature = "simulation")]
pub fn set(fault: Option<Fault>) {
    SET.set(fault);
}

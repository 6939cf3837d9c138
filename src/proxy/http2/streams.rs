//! The streams that a connection is at.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use crate::domain::moment::Moment;
use crate::runtime::clock::Present;

/// How many there are and were.
#[derive(Debug)]
pub(super) struct Streams {
    open: Cell<u32>,
    begun: Cell<u64>,
    last_ended: Cell<Moment>,
    clock: Present,
}

/// One of them; it counts until it is dropped.
#[derive(Debug)]
pub(super) struct Counted(Rc<Streams>);

impl Streams {
    pub(super) fn new(clock: &Present) -> Rc<Streams> {
        let last_ended = Cell::new(clock.now());
        Rc::new(Streams { open: Cell::new(0), begun: Cell::new(0), last_ended, clock: clock.clone() })
    }

    /// One more.
    pub(super) fn begin(self: &Rc<Self>) -> Counted {
        self.open.set(self.open.get() + 1);
        self.begun.set(self.begun.get() + 1);
        Counted(self.clone())
    }

    pub(super) fn open(&self) -> u32 {
        self.open.get()
    }

    /// How many there have been.
    pub(super) fn begun(&self) -> u64 {
        self.begun.get()
    }

    /// How long there has been none.
    pub(super) fn rested(&self, now: Moment) -> Duration {
        if self.open.get() > 0 { Duration::ZERO } else { now.since(self.last_ended.get()) }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.open.set(self.0.open.get() - 1);
        self.0.last_ended.set(self.0.clock.now());
    }
}

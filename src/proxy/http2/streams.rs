//! The streams that a connection is at.

use std::cell::{Cell, RefCell, RefMut};
use std::rc::Rc;
use std::time::Duration;

use super::heads::Last;
use crate::domain::moment::Moment;
use crate::runtime::clock::Present;

/// How often a table of compression gets the names of what differs each time again. In so long others may have pushed them out,
/// and more often would leave so many entries of one name that h2 is at it for longer than to write the name in full: it looks
/// through all of them each time.
const NAMES_EVERY: Duration = Duration::from_secs(60);

/// How many there are and were.
#[derive(Debug)]
pub(super) struct Streams {
    open: Cell<u32>,
    begun: Cell<u64>,
    last_ended: Cell<Moment>,
    names_due: Cell<Moment>,
    last_response: RefCell<Last>,
    clock: Present,
}

/// One of them; it counts until it is dropped.
#[derive(Debug)]
pub(super) struct Counted(Rc<Streams>);

impl Streams {
    pub(super) fn new(clock: &Present) -> Rc<Streams> {
        let last_ended = Cell::new(clock.now());
        let names_due = Cell::new(clock.now());
        Rc::new(Streams {
            open: Cell::new(0),
            begun: Cell::new(0),
            last_ended,
            names_due,
            last_response: RefCell::default(),
            clock: clock.clone(),
        })
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

impl Counted {
    /// What the responses of its connection have in common.
    pub(super) fn last_response(&self) -> RefMut<'_, Last> {
        self.0.last_response.borrow_mut()
    }

    /// Whether its response shall leave the names of what differs each time in the table.
    pub(super) fn leaves_names(&self) -> bool {
        let now = self.0.clock.now();
        let are_due = now >= self.0.names_due.get();
        if are_due {
            self.0.names_due.set(now + NAMES_EVERY);
        }
        are_due
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.open.set(self.0.open.get() - 1);
        self.0.last_ended.set(self.0.clock.now());
    }
}

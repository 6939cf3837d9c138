//! The open client connections of a worker: how many there are, and how to send the idle ones home.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// Shared by the connections of one worker.
#[derive(Debug, Default)]
pub struct Connections {
    slots: RefCell<Vec<Option<Waker>>>,
    vacant: RefCell<Vec<usize>>,
    open: Cell<usize>,
    winding_down: Cell<bool>,
    leaving: Cell<bool>,
    emptied: RefCell<Option<Waker>>,
}

/// One open connection; it counts until it is dropped.
#[derive(Debug)]
pub struct Open {
    connections: Rc<Connections>,
    slot: usize,
}

impl Connections {
    /// Counts one more.
    pub fn open(self: &Rc<Self>) -> Open {
        let slot = self.vacant.borrow_mut().pop().unwrap_or_else(|| {
            let mut slots = self.slots.borrow_mut();
            slots.push(None);
            slots.len() - 1
        });
        self.open.set(self.open.get() + 1);
        Open { connections: self.clone(), slot }
    }

    /// How many are open.
    pub fn count(&self) -> usize {
        self.open.get()
    }

    /// Whether connections shall end after the request they are at.
    pub fn is_winding_down(&self) -> bool {
        self.winding_down.get()
    }

    /// From now on each connection ends after its next request: its client shall come again elsewhere.
    pub fn wind_down(&self) {
        self.winding_down.set(true);
    }

    /// From now on idle connections end, too.
    pub fn leave(&self) {
        self.wind_down();
        self.leaving.set(true);
        let idle: Vec<Waker> = self.slots.borrow_mut().iter_mut().filter_map(Option::take).collect();
        idle.into_iter().for_each(Waker::wake);
    }

    /// Ready when none is open.
    pub fn poll_empty(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.open.get() == 0 {
            return Poll::Ready(());
        }
        *self.emptied.borrow_mut() = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Open {
    /// Ready when connections shall leave; to be polled while idle.
    pub fn poll_leave(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.connections.leaving.get() {
            return Poll::Ready(());
        }
        let slot = &mut self.connections.slots.borrow_mut()[self.slot];
        if !slot.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            *slot = Some(cx.waker().clone());
        }
        Poll::Pending
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let connections = &self.connections;
        connections.slots.borrow_mut()[self.slot] = None;
        connections.vacant.borrow_mut().push(self.slot);
        connections.open.set(connections.open.get() - 1);
        if connections.open.get() == 0
            && let Some(waiting) = connections.emptied.borrow_mut().take()
        {
            waiting.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_connections_hear_that_they_shall_leave_and_the_last_one_is_noticed() {
        let connections = Rc::new(Connections::default());
        let mut cx = Context::from_waker(Waker::noop());
        let (one, two) = (connections.open(), connections.open());
        assert!(one.poll_leave(&mut cx).is_pending());
        assert!(connections.poll_empty(&mut cx).is_pending());
        connections.leave();
        assert!(one.poll_leave(&mut cx).is_ready() && two.poll_leave(&mut cx).is_ready());
        drop(one);
        assert_eq!(connections.count(), 1);
        drop(two);
        assert!(connections.poll_empty(&mut cx).is_ready());
    }
}

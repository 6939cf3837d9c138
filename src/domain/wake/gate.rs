//! Where requests wait for their app, first come first served: closed while it sleeps; open, it lets so many through at a
//! time. Requests of all threads queue here, woken one by one by what happens and never by a clock.

use std::collections::{BTreeMap, BTreeSet};
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;

/// The gate of one app.
#[derive(Debug, Default)]
pub(super) struct Gate {
    queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    /// Tickets that may be passing at a time; 0: closed.
    at_a_time: usize,
    next: u64,
    /// In the order they came, with whom to wake.
    waiting: BTreeMap<u64, Option<Waker>>,
    passing: BTreeSet<u64>,
}

impl Gate {
    /// A place at the end of the queue, unless `waiting_max` wait already.
    pub(super) fn join(&self, waiting_max: usize) -> Option<u64> {
        let mut queue = self.queue.lock();
        if queue.waiting.len() >= waiting_max {
            return None;
        }
        let ticket = queue.next;
        queue.next += 1;
        queue.waiting.insert(ticket, None);
        queue.advance();
        Some(ticket)
    }

    /// Ready once `ticket` may go on.
    pub(super) fn poll(&self, ticket: u64, cx: &mut Context<'_>) -> Poll<()> {
        match self.queue.lock().waiting.get_mut(&ticket) {
            None => Poll::Ready(()),
            Some(waker) => {
                match waker {
                    Some(known) => known.clone_from(cx.waker()),
                    None => *waker = Some(cx.waker().clone()),
                }
                Poll::Pending
            }
        }
    }

    /// `ticket` is over: it has passed, or waits no more.
    pub(super) fn leave(&self, ticket: u64) {
        let mut queue = self.queue.lock();
        queue.waiting.remove(&ticket);
        if queue.passing.remove(&ticket) {
            queue.advance();
        }
    }

    pub(super) fn waiting(&self) -> usize {
        self.queue.lock().waiting.len()
    }

    pub(super) fn close(&self) {
        self.queue.lock().at_a_time = 0;
    }

    /// From now on `at_a_time` tickets pass at a time.
    pub(super) fn open(&self, at_a_time: usize) {
        let mut queue = self.queue.lock();
        queue.at_a_time = at_a_time;
        queue.advance();
    }

    /// All who wait now may go on; the gate stays as it is.
    pub(super) fn clear(&self) {
        let waiting = std::mem::take(&mut self.queue.lock().waiting);
        waiting.into_values().flatten().for_each(Waker::wake);
    }
}

impl Queue {
    fn advance(&mut self) {
        while self.passing.len() < self.at_a_time
            && let Some((ticket, waker)) = self.waiting.pop_first()
        {
            self.passing.insert(ticket);
            waker.into_iter().for_each(Waker::wake);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn may_go(gate: &Gate, tickets: &[u64]) -> Vec<u64> {
        let mut cx = Context::from_waker(Waker::noop());
        tickets.iter().copied().filter(|ticket| gate.poll(*ticket, &mut cx).is_ready()).collect()
    }

    fn queue(gate: &Gate, count: usize) -> Vec<u64> {
        (0..count).map(|_| gate.join(usize::MAX).expect("there is no limit")).collect()
    }

    #[test]
    fn nobody_passes_before_it_opens_and_then_so_many_at_a_time_in_order() {
        let gate = Gate::default();
        let tickets = queue(&gate, 5);
        assert!(may_go(&gate, &tickets).is_empty());
        gate.open(2);
        assert_eq!(may_go(&gate, &tickets), tickets[..2]);
        gate.leave(tickets[1]);
        assert_eq!(may_go(&gate, &tickets), tickets[..3]);
        gate.open(3);
        assert_eq!(may_go(&gate, &tickets), tickets[..4]);
        gate.leave(tickets[4]); // it gave up
        gate.leave(tickets[0]);
        assert_eq!(gate.waiting(), 0);
    }

    #[test]
    fn who_comes_to_an_open_gate_waits_only_behind_others() {
        let gate = Gate::default();
        gate.open(1);
        let [first, second] = queue(&gate, 2)[..] else { panic!("two tickets") };
        assert_eq!(may_go(&gate, &[first, second]), [first]);
        gate.close();
        gate.leave(first);
        assert!(may_go(&gate, &[second]).is_empty());
    }

    #[test]
    fn places_are_limited_and_free_again_when_somebody_gives_up() {
        let gate = Gate::default();
        let first = gate.join(1).expect("a place");
        assert_eq!(gate.join(1), None);
        gate.leave(first);
        assert!(gate.join(1).is_some());
    }

    #[test]
    fn all_who_wait_can_be_sent_on_without_opening() {
        let gate = Gate::default();
        let tickets = queue(&gate, 3);
        gate.clear();
        assert_eq!(may_go(&gate, &tickets), tickets);
        tickets.into_iter().for_each(|ticket| gate.leave(ticket));
        let late = queue(&gate, 1);
        assert!(may_go(&gate, &late).is_empty());
    }
}

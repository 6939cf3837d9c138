//! The tasks that serve streams of clients. One who is done waits for the next stream: a request shall not cost a task of its
//! own, nor a timer, and still no stream waits for another, and a panic is the end of one only.

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

use crate::proxy::connection::{self, Translated};
use crate::proxy::link::Patience;
use crate::proxy::worker::Worker;

/// Those who wait for a stream; more of them leave.
const WAITING_MAX: usize = 256;

/// Those of a worker who have nothing to do.
#[derive(Debug, Default)]
pub struct Attendants(RefCell<Vec<Rc<Bell>>>);

/// What one of them waits for.
#[derive(Debug, Default)]
struct Bell {
    call: RefCell<Option<Call>>,
    waker: RefCell<Option<Waker>>,
}

#[derive(Debug)]
enum Call {
    Serve(Translated),
    Leave,
}

impl Bell {
    fn ring(&self, call: Call) {
        self.call.replace(Some(call));
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    async fn called(&self) -> Call {
        poll_fn(|cx| match self.call.take() {
            Some(call) => Poll::Ready(call),
            None => {
                self.waker.replace(Some(cx.waker().clone()));
                Poll::Pending
            }
        })
        .await
    }
}

impl Attendants {
    /// Lets half of those who wait leave, the longest idle first.
    pub fn shrink(&self) {
        let mut waiting = self.0.borrow_mut();
        let half = waiting.len().div_ceil(2);
        waiting.drain(..half).for_each(|bell| bell.ring(Call::Leave));
    }

    /// A place among those who wait, if there is one.
    fn wait(&self, bell: &Rc<Bell>) -> bool {
        let mut waiting = self.0.borrow_mut();
        let has_room = waiting.len() < WAITING_MAX;
        if has_room {
            waiting.push(bell.clone());
        }
        has_room
    }
}

/// Has `request` served by somebody who waits, or by somebody new.
pub(super) fn attend(worker: &Rc<Worker>, request: Translated) {
    let free = worker.attendants.0.borrow_mut().pop();
    match free {
        Some(bell) => bell.ring(Call::Serve(request)),
        None => worker.spawn(Box::pin(serve(worker.clone(), request))),
    }
}

/// Serves `request`, and then whatever else there is.
async fn serve(worker: Rc<Worker>, request: Translated) {
    let mut patience = Patience::new(&worker.clock, worker.settings().timeouts.header_read);
    let bell = Rc::default();
    let mut next = Call::Serve(request);
    while let Call::Serve(request) = next {
        patience = connection::serve_translated(&worker, request, patience).await;
        if !worker.attendants.wait(&bell) {
            return;
        }
        next = bell.called().await;
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::Context;

    use super::*;

    #[test]
    fn whoever_has_nothing_to_do_leaves_by_and_by_and_a_crowd_at_once() {
        let attendants = Attendants::default();
        let bells: Vec<Rc<Bell>> = (0..=WAITING_MAX).map(|_| Rc::default()).collect();
        let places = bells.iter().filter(|bell| attendants.wait(bell)).count();
        assert_eq!(places, WAITING_MAX);
        let mut cx = Context::from_waker(Waker::noop());
        let mut left = |bell: &Rc<Bell>| matches!(pin!(bell.called()).poll(&mut cx), Poll::Ready(Call::Leave));
        attendants.shrink();
        assert!(left(&bells[0]) && left(&bells[WAITING_MAX / 2 - 1]) && !left(&bells[WAITING_MAX / 2]));
        (0..10).for_each(|_| attendants.shrink());
        assert!(attendants.0.borrow().is_empty() && left(&bells[WAITING_MAX - 1]));
    }
}

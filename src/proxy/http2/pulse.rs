//! Whether the other side is still there: a connection that brings nothing for a while is asked.

use std::task::{Context, Poll};
use std::time::Duration;

use h2::{Ping, PingPong};

use crate::proxy::link::Patience;
use crate::runtime::clock::Present;

/// How often a silent peer is asked whether it is still there, and how long it may take to say so.
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_PATIENCE: Duration = Duration::from_secs(20);

/// The timer of a connection's pings.
#[derive(Debug)]
pub(super) struct Pulse {
    pings: PingPong,
    timer: Patience,
    asked: bool,
    heard: u64,
}

impl Pulse {
    pub(super) fn new(pings: PingPong, clock: &Present) -> Pulse {
        Pulse { pings, timer: Patience::new(clock, PING_EVERY), asked: false, heard: 0 }
    }

    /// Ready when the peer has not answered. `received`: bytes that have come from it so far.
    pub(super) fn poll_dead(&mut self, cx: &mut Context<'_>, received: u64) -> Poll<()> {
        if self.asked && self.pings.poll_pong(cx).is_ready() {
            self.asked = false;
            self.timer.set(PING_EVERY);
        }
        while self.timer.poll_elapsed(cx).is_ready() {
            let silent = std::mem::replace(&mut self.heard, received) == received;
            if self.asked && silent {
                return Poll::Ready(());
            }
            if silent && !self.asked {
                self.asked = self.pings.send_ping(Ping::opaque()).is_ok();
            }
            self.timer.set(if self.asked { PING_PATIENCE } else { PING_EVERY });
            cx.waker().wake_by_ref(); // a ping leaves with the next poll
        }
        Poll::Pending
    }
}

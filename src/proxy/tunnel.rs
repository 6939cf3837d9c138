//! After an upgrade: bytes both ways, until both sides have ended or nothing has moved for too long.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use super::connection::Client;
use super::link::Link;
use super::turn::Turn;

/// How a tunnel ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TunnelEnd {
    /// Both sides have said all they had to say.
    Finished,
    /// The client's connection broke.
    ClientGone,
    /// The instance's connection broke.
    InstanceGone,
    /// Nothing moved for too long.
    Idle,
}

/// Carries bytes between `client` and `instance`. What is in their buffers already goes first.
pub async fn carry(client: &mut Client, instance: &mut Link, idle: Duration) -> TunnelEnd {
    let mut up = Direction::default();
    let mut down = Direction::default();
    let mut moved = None;
    poll_fn(|cx| {
        match up.poll(cx, &mut client.link, instance) {
            Poll::Ready(Err(Side::From)) => return Poll::Ready(TunnelEnd::ClientGone),
            Poll::Ready(Err(Side::To)) => return Poll::Ready(TunnelEnd::InstanceGone),
            Poll::Ready(Ok(())) | Poll::Pending => {}
        }
        match down.poll(cx, instance, &mut client.link) {
            Poll::Ready(Err(Side::From)) => return Poll::Ready(TunnelEnd::InstanceGone),
            Poll::Ready(Err(Side::To)) => return Poll::Ready(TunnelEnd::ClientGone),
            Poll::Ready(Ok(())) | Poll::Pending => {}
        }
        if up.finished && down.finished {
            return Poll::Ready(TunnelEnd::Finished);
        }
        let now_moved = Some(client.link.received + client.link.delivered + instance.received + instance.delivered);
        if moved != now_moved {
            moved = now_moved;
            client.patience.set(idle);
        }
        client.link.rest();
        instance.rest();
        client.patience.poll_elapsed(cx).map(|_| TunnelEnd::Idle)
    })
    .await
}

/// Which connection of a direction failed.
enum Side {
    From,
    To,
}

#[derive(Default)]
struct Direction {
    finished: bool,
}

impl Direction {
    /// Passes on what there is; ready once the end of `from` has been passed on too.
    fn poll(&mut self, cx: &mut Context<'_>, from: &mut Link, to: &mut Link) -> Poll<Result<(), Side>> {
        let from_failed = |_: io::Error| Side::From;
        let to_failed = |_: io::Error| Side::To;
        let turn = Turn::of(to);
        while !self.finished {
            ready!(turn.poll_goes_on(cx, to));
            if !from.input.is_empty() {
                let taken = ready!(to.poll_send(cx, from.input.filled())).map_err(to_failed)?;
                from.input.consume(taken);
            } else if from.ended {
                ready!(to.poll_finish(cx)).map_err(to_failed)?;
                self.finished = true;
            } else {
                // Before waiting for more: what is written shall not wait with us.
                if let Poll::Ready(Err(error)) = to.poll_flush(cx) {
                    return Poll::Ready(Err(to_failed(error)));
                }
                ready!(from.poll_fill_for(cx, to)).map_err(from_failed)?;
            }
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::turn::tests::{BODY_BYTES, check_turns};

    #[test]
    fn a_tunnel_between_fast_peers_lets_others_have_their_turn() {
        let mut direction = Direction::default();
        check_turns(|cx, from, to| match direction.poll(cx, from, to) {
            _ if to.delivered == BODY_BYTES => Poll::Ready(()),
            Poll::Ready(Err(_)) => panic!("a peer failed"),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Pending,
        });
    }
}

//! How much may go one way at once before others have their turn.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll};

use tokio::task::yield_now;

use super::buffers::WIDE_BYTES;
use super::link::Link;

/// Bytes that a body or a tunnel passes on in one go, and at most a read more: it takes about as long as ten small requests.
/// Without a limit, one whose both ends are fast goes on while everybody else waits.
const TURN_BYTES: u64 = WIDE_BYTES as u64;

/// The turn of a body or a tunnel, from one wake to the next.
#[derive(Clone, Copy, Debug)]
pub struct Turn {
    end: u64,
}

impl Turn {
    /// Begins for what goes to `sink`.
    pub fn of(sink: &Link) -> Turn {
        Turn { end: sink.delivered + TURN_BYTES }
    }

    /// Ready until `sink` has been given enough; the task is woken again once all who are ready have been served.
    pub fn poll_goes_on(self, cx: &mut Context<'_>, sink: &Link) -> Poll<()> {
        if sink.delivered < self.end {
            return Poll::Ready(());
        }
        // Who yields is woken later, whether or not it still wants to know.
        pin!(yield_now()).poll(cx)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::cell::Cell;
    use std::future::poll_fn;
    use std::io::{self, Read};
    use std::rc::Rc;
    use std::thread;

    use tokio::net::{TcpListener, TcpStream};
    use tokio::runtime::{Builder, LocalOptions};
    use tokio::task::spawn_local;

    use super::*;
    use crate::http1::Framing;
    use crate::proxy::body::{Download, Reframe, Upload};
    use crate::proxy::buffers::BufferPool;
    use crate::proxy::stream::Stream;

    pub const BODY_BYTES: u64 = 128 * 1024 * 1024;

    /// A link, and its other end.
    async fn pair(pool: &BufferPool) -> (Link, std::net::TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let ours = TcpStream::connect(address).await.expect("it listens");
        let (theirs, _) = listener.accept().await.expect("somebody has connected");
        let theirs = theirs.into_std().expect("the reactor lets go of it");
        theirs.set_nonblocking(false).expect("a socket can be set up");
        (Link::new(Stream::Plain(ours), address, pool), theirs)
    }

    /// Passes a body on from one fast peer to another, and looks from beside how much goes at once.
    #[track_caller]
    pub fn check_turns(mut poll: impl FnMut(&mut Context<'_>, &mut Link, &mut Link) -> Poll<()>) {
        let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
        let most = runtime.expect("the system gives a reactor").block_on(async move {
            let pool = BufferPool::default();
            let ((mut from, mut sender), (mut to, receiver)) = (pair(&pool).await, pair(&pool).await);
            let sending = thread::spawn(move || io::copy(&mut io::repeat(b'x').take(BODY_BYTES), &mut sender));
            let receiving = thread::spawn(move || io::copy(&mut receiver.take(BODY_BYTES), &mut io::sink()));
            let (passed, most) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
            spawn_local({
                let (passed, most) = (passed.clone(), most.clone());
                async move {
                    loop {
                        let before = passed.get();
                        yield_now().await;
                        most.set(most.get().max(passed.get() - before));
                    }
                }
            });
            poll_fn(|cx| {
                let done = poll(cx, &mut from, &mut to);
                passed.set(to.delivered);
                done
            })
            .await;
            assert_eq!(receiving.join().expect("it does not panic").expect("it receives"), BODY_BYTES);
            assert_eq!(sending.join().expect("it does not panic").expect("it sends"), BODY_BYTES);
            most.get()
        });
        assert!(most < TURN_BYTES + WIDE_BYTES as u64, "{most} bytes in one turn");
    }

    #[test]
    fn a_response_between_fast_peers_lets_others_have_their_turn() {
        let mut download = Download::new(Framing::Length(BODY_BYTES), Reframe::AsIs);
        check_turns(|cx, from, to| download.poll(cx, from, to).map(|done| done.expect("nobody fails")));
    }

    #[test]
    fn a_request_between_fast_peers_lets_others_have_their_turn() {
        let mut upload = Upload::new(Framing::Length(BODY_BYTES), 0, 0);
        check_turns(|cx, from, to| upload.poll(cx, from, to).map(|done| done.expect("nobody fails")));
    }
}

//! One attempt: a request goes to one instance, its answer comes back. Heads first, then both bodies at once.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep};

use super::body::{Download, Fault, Reframe, Upload};
use super::connection::Client;
use super::error::{Cause, ProxyError};
use super::headers;
use super::http2;
use super::link::Link;
use super::settings::{RouteLimits, Settings};
use super::tls;
use crate::domain::balance::Outcome;
use crate::domain::balance::fleet::Fleet;
use crate::domain::endpoint::Endpoint;
use crate::domain::moment::Moment;
use crate::http1::{Framing, Head, Name, Progress, Refusal, Version, framing, parse};

/// How long a client that has closed its sending side is believed before it is asked whether it still listens, and how
/// often that is looked at again.
const HALF_CLOSED_CHECK: Duration = Duration::from_secs(1);

/// How long a body may stand still towards a client that has closed its sending side and was never heard of again.
const HALF_CLOSED_STALL: Duration = Duration::from_secs(5);

/// Interim responses to one request. A handful is usual; what comes without end is an attack on clients.
const INTERIM_MAX: u32 = 64;

/// Counts a request at its endpoint for as long as it lasts, whatever way it ends.
#[derive(Debug)]
pub struct InFlight {
    endpoint: Arc<Endpoint>,
    begun: Moment,
    waiting: bool,
    took: Option<Duration>,
}

impl InFlight {
    /// One more at `endpoint`.
    pub fn begin(endpoint: Arc<Endpoint>, now: Moment) -> InFlight {
        endpoint.live.begin();
        InFlight { endpoint, begun: now, waiting: true, took: None }
    }

    /// Its endpoint.
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }

    /// The response head came, or the attempt failed before it. Tells whether that ejected the endpoint, which is one of
    /// `fleet`. `took` is the time since it began.
    pub fn answered(&mut self, fleet: &Fleet, outcome: Outcome, took: Duration, now: Moment) -> bool {
        self.took = Some(took);
        std::mem::take(&mut self.waiting) && self.endpoint.live.answered(fleet, outcome, now).is_some()
    }

    /// How long the answer took, once it was there.
    pub fn took(&self) -> Option<Duration> {
        self.took
    }

    /// Time since it began.
    pub fn lasted(&self, now: Moment) -> Duration {
        now.since(self.begun)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if self.waiting {
            self.endpoint.live.waits_no_more();
        }
        self.endpoint.live.finished();
    }
}

/// Sends the request and waits for the final response head; interim ones go to the client at once. Tells how the body that
/// follows is framed.
///
/// # Errors
/// The failure, as the client would get it if there were no other attempt.
pub async fn exchange_heads(
    client: &mut Client,
    instance: &mut Link,
    upload: &mut Upload,
    request: &Head,
    response: &mut Head,
    settings: &Settings,
    timeouts: &RouteLimits,
) -> Result<Framing, ProxyError> {
    let mut sending = Sending {
        request,
        settings,
        timeouts,
        received_before: instance.received,
        sent: false,
        gave_up: false,
        interim: 0,
        watch: Watch::default(),
    };
    client.patience.set(timeouts.idle_body);
    poll_fn(|cx| sending.poll(cx, client, instance, upload, response)).await
}

/// The first half of an attempt.
struct Sending<'a> {
    /// As it goes to the instance.
    request: &'a Head,
    settings: &'a Settings,
    timeouts: &'a RouteLimits,
    received_before: u64,
    /// The whole request has left.
    sent: bool,
    /// The instance takes no more of it, but may still answer.
    gave_up: bool,
    /// Interim responses so far.
    interim: u32,
    watch: Watch,
}

impl Sending<'_> {
    /// Whether the final head (101 is one) is fit to be passed on, and how its body is framed.
    fn judge(&self, response: &Head) -> Result<Framing, ProxyError> {
        if response.status() == 101 && !(self.sent && headers::takes_up_offer(self.request, response)) {
            return Err(ProxyError::Endpoint(Cause::UnaskedUpgrade));
        }
        framing::of_response(response, self.request.method_kind()).map_err(unfit)
    }

    /// Writes an interim head to the client, if it can read one.
    fn pass_interim(&mut self, client: &mut Client, response: &mut Head) -> Result<(), ProxyError> {
        self.interim += 1;
        if self.interim > INTERIM_MAX {
            return Err(unfit(Refusal::InterimFlood));
        }
        headers::interim_towards_client(response, self.settings).map_err(unfit)?;
        if client.version == Version::Http11 {
            client.link.answer(response).map_err(|_| ProxyError::ClientGone)?;
        }
        Ok(())
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut Client,
        instance: &mut Link,
        upload: &mut Upload,
        response: &mut Head,
    ) -> Poll<Result<Framing, ProxyError>> {
        let moved_before = client.link.received + instance.delivered;
        if !self.sent && !self.gave_up {
            match upload.poll(cx, &mut client.link, instance) {
                Poll::Ready(Ok(())) => self.sent = true,
                Poll::Ready(Err(Fault::Sink(_))) => self.gave_up = true,
                Poll::Ready(Err(fault)) => return Poll::Ready(Err(upload_failed(fault))),
                Poll::Pending => {}
            }
            if self.sent || self.gave_up {
                client.patience.set(self.timeouts.response_head);
            } else if client.link.received + instance.delivered != moved_before {
                client.patience.set(self.timeouts.idle_body);
            }
        }
        if let Poll::Ready(answered) = self.poll_response(cx, client, instance, response) {
            return Poll::Ready(answered);
        }
        if let Poll::Ready(Err(_)) = client.link.poll_flush(cx) {
            return Poll::Ready(Err(ProxyError::ClientGone)); // it did not even take an interim response
        }
        if upload.is_read() && self.watch.poll_gone(cx, &mut client.link, client.version).is_ready() {
            return Poll::Ready(Err(ProxyError::ClientGone));
        }
        if client.patience.poll_elapsed(cx).is_ready() {
            if !client.link.is_flushed() {
                return Poll::Ready(Err(ProxyError::ClientGone)); // nor in time
            }
            let client_stalled = !self.sent && !self.gave_up && !upload.is_read() && instance.is_flushed();
            return Poll::Ready(Err(if client_stalled {
                ProxyError::ClientTimeout
            } else {
                ProxyError::EndpointTimeout
            }));
        }
        if !self.sent {
            // A body is on its way, and may take its time.
            client.link.rest();
            instance.rest();
        }
        Poll::Pending
    }

    fn poll_response(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut Client,
        instance: &mut Link,
        response: &mut Head,
    ) -> Poll<Result<Framing, ProxyError>> {
        loop {
            if self.interim > 0 {
                // A client that does not read them shall not fill our memory with them.
                ready!(client.link.poll_flush(cx)).map_err(|_| ProxyError::ClientGone)?;
            }
            if !instance.input.is_empty() {
                match parse::response(instance.input.filled(), &self.settings.head_limits, response) {
                    Ok(Progress::Complete(consumed)) => {
                        instance.input.consume(consumed);
                        if response.status() >= 200 || response.status() == 101 {
                            return Poll::Ready(self.judge(response));
                        }
                        self.pass_interim(client, response)?;
                        continue;
                    }
                    Ok(Progress::Partial) => {
                        if instance.input.is_full() {
                            instance.input.grow();
                        }
                    }
                    Err(refusal) => return Poll::Ready(Err(unfit(refusal))),
                }
            }
            let cause = match instance.poll_fill(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(0)) => Cause::ClosedEarly,
                Poll::Ready(Ok(_)) => continue,
                Poll::Ready(Err(error)) => match (http2::cause(&error), tls::instances::failure(&error)) {
                    (Some(cause), _) | (None, Some(cause @ Cause::CertificateWanted)) => cause,
                    (None, _) => Cause::Reset,
                },
            };
            let silent = instance.received == self.received_before;
            return Poll::Ready(Err(ProxyError::Endpoint(match (silent, self.received_before > 0) {
                (true, true) => Cause::StaleConnection,
                (true, false) => cause,
                (false, _) => Cause::Truncated,
            })));
        }
    }
}

/// Passes the response body to the client, and what is left of the request body to the instance.
///
/// # Errors
/// What cut it short: `ClientGone`, or `Endpoint` with the cause. The client has seen a response head by then.
pub async fn exchange_bodies(
    client: &mut Client,
    instance: &mut Link,
    upload: &mut Upload,
    download: &mut Download,
    idle: Duration,
) -> Result<(), ProxyError> {
    let mut watch = Watch::default();
    let mut gave_up = false;
    let mut moved = u64::MAX;
    let mut suspected = false;
    poll_fn(|cx| {
        if !gave_up && !upload.is_done() {
            match upload.poll(cx, &mut client.link, instance) {
                Poll::Ready(Err(Fault::Sink(_))) => gave_up = true,
                Poll::Ready(Err(fault)) => return Poll::Ready(Err(upload_failed(fault))),
                Poll::Ready(Ok(())) | Poll::Pending => {}
            }
        }
        match download.poll(cx, instance, &mut client.link) {
            Poll::Ready(Ok(())) => return Poll::Ready(Ok(())),
            Poll::Ready(Err(fault)) => return Poll::Ready(Err(download_failed(fault))),
            Poll::Pending => {}
        }
        if upload.is_read() && watch.poll_ended(cx, &mut client.link).is_ready() {
            return Poll::Ready(Err(ProxyError::ClientGone));
        }
        let now_moved = client.link.received + client.link.delivered + instance.received + instance.delivered;
        if moved != now_moved {
            moved = now_moved;
            client.patience.set(idle);
        } else if watch.suspects() && !suspected {
            suspected = true;
            client.patience.set(HALF_CLOSED_STALL);
        }
        if client.patience.poll_elapsed(cx).is_ready() {
            let client_stalled = !client.link.is_flushed() || !instance.input.is_empty() || watch.suspects();
            let cause = if client_stalled { ProxyError::ClientGone } else { ProxyError::Endpoint(Cause::Stalled) };
            return Poll::Ready(Err(cause));
        }
        client.link.rest();
        instance.rest();
        Poll::Pending
    })
    .await
}

/// How the body of `response` must be framed for this client, and what that changes in the head.
pub fn reframe(response: &mut Head, framing: Framing, client: Version) -> Reframe {
    match (framing, client) {
        (Framing::Chunked, Version::Http10) => {
            response.remove(Name::TransferEncoding);
            response.remove(Name::Trailer);
            Reframe::Unchunk
        }
        (Framing::UntilClose, Version::Http11) => {
            response.push_known(Name::TransferEncoding, b"chunked").expect("a plain value fits every head");
            Reframe::Chunk
        }
        (Framing::None | Framing::Length(_) | Framing::Chunked | Framing::UntilClose, _) => Reframe::AsIs,
    }
}

fn upload_failed(fault: Fault) -> ProxyError {
    match fault {
        Fault::Framing(refusal) => ProxyError::BadRequest(refusal),
        Fault::CutOff | Fault::Source(_) => ProxyError::ClientGone,
        Fault::TooLarge => ProxyError::BodyTooLarge,
        Fault::Sink(_) => ProxyError::Endpoint(Cause::Reset),
    }
}

fn unfit(refusal: Refusal) -> ProxyError {
    ProxyError::Endpoint(Cause::BadResponse(refusal))
}

fn download_failed(fault: Fault) -> ProxyError {
    match fault {
        Fault::Framing(refusal) => unfit(refusal),
        Fault::CutOff => ProxyError::Endpoint(Cause::Truncated),
        Fault::Source(_) => ProxyError::Endpoint(Cause::Reset),
        Fault::Sink(_) => ProxyError::ClientGone,
        Fault::TooLarge => unreachable!("only uploads are limited"),
    }
}

/// Tells a client that is gone from one that only has nothing more to say: both look the same until something is sent
/// to them. After a second of waiting an interim response (harmless to any HTTP/1.1 client) makes the difference: a
/// closed socket answers it with a reset.
#[derive(Debug, Default)]
pub struct Watch {
    check: Option<Pin<Box<Sleep>>>,
    probed: bool,
}

impl Watch {
    /// Whether the client has ended its side and has not been proven to listen still.
    fn suspects(&self) -> bool {
        self.check.is_some() && !self.probed
    }

    /// Reads on to notice the end of what the client sends. What else it sends is its next request and stays where it
    /// is. Ready when the connection failed.
    fn poll_ended(&mut self, cx: &mut Context<'_>, link: &mut Link) -> Poll<()> {
        while self.check.is_none() && !link.input.is_full() {
            match link.poll_fill(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Ready(Ok(0)) => self.check = Some(Box::pin(sleep(HALF_CLOSED_CHECK))),
                Poll::Ready(Ok(_)) => {}
            }
        }
        Poll::Pending
    }

    /// Ready once the client is known to be gone; to be called while it waits for a response head.
    pub fn poll_gone(&mut self, cx: &mut Context<'_>, link: &mut Link, version: Version) -> Poll<()> {
        if self.poll_ended(cx, link).is_ready() {
            return Poll::Ready(());
        }
        let reads_on = self.check.is_none() && !link.input.is_full();
        if !reads_on && link.poll_reset(cx).is_ready() {
            return Poll::Ready(());
        }
        // There is no room to read up to the end, which is behind a body that has to wait: only the probe can tell.
        if self.check.is_none() && link.input.is_full() {
            self.check = Some(Box::pin(sleep(HALF_CLOSED_CHECK)));
        }
        while let Some(check) = &mut self.check
            && check.as_mut().poll(cx).is_ready()
        {
            if link.is_broken() {
                return Poll::Ready(());
            }
            if version == Version::Http11 && !self.probed {
                self.probed = true;
                link.out().extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
                if let Poll::Ready(Err(_)) = link.poll_flush(cx) {
                    return Poll::Ready(());
                }
            }
            check.as_mut().reset(Instant::now() + HALF_CLOSED_CHECK);
        }
        Poll::Pending
    }
}

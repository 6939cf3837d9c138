//! One attempt: a request goes to one instance, its answer comes back. Heads first, then both bodies at once.

use std::future::Future;
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
/// follows is framed, or the failure, as the client would get it if there were no other attempt.
pub fn exchange_heads<'a>(
    client: &'a mut Client,
    instance: &'a mut Link,
    upload: &'a mut Upload,
    request: &'a Head,
    response: &'a mut Head,
    settings: &'a Settings,
    timeouts: &'a RouteLimits,
) -> Sending<'a> {
    Sending {
        received_before: instance.received,
        client,
        instance,
        upload,
        request,
        response,
        settings,
        timeouts,
        sent: false,
        gave_up: false,
        moved: u64::MAX,
        interim: 0,
        watch: Watch::default(),
    }
}

/// The first half of an attempt.
#[derive(Debug)]
#[must_use = "a future does nothing before it is polled"]
pub struct Sending<'a> {
    client: &'a mut Client,
    instance: &'a mut Link,
    upload: &'a mut Upload,
    /// As it goes to the instance.
    request: &'a Head,
    response: &'a mut Head,
    settings: &'a Settings,
    timeouts: &'a RouteLimits,
    received_before: u64,
    /// The whole request has left.
    sent: bool,
    /// The instance takes no more of it, but may still answer.
    gave_up: bool,
    /// Bytes of it that had moved when the client's patience was set.
    moved: u64,
    /// Interim responses so far.
    interim: u32,
    watch: Watch,
}

impl Future for Sending<'_> {
    type Output = Result<Framing, ProxyError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        if !this.sent && !this.gave_up {
            match this.upload.poll(cx, &mut this.client.link, this.instance) {
                Poll::Ready(Ok(())) => this.sent = true,
                Poll::Ready(Err(Fault::Sink(_))) => this.gave_up = true,
                Poll::Ready(Err(fault)) => return Poll::Ready(Err(upload_failed(fault))),
                Poll::Pending => {}
            }
            let moved = this.client.link.received + this.instance.delivered;
            if this.sent || this.gave_up {
                this.client.patience.set(this.timeouts.response_head);
            } else if this.moved != moved {
                this.moved = moved;
                this.client.patience.set(this.timeouts.idle_body);
            }
        }
        if let Poll::Ready(answered) = this.poll_response(cx) {
            return Poll::Ready(answered);
        }
        let Client { link: client, patience, version, .. } = &mut *this.client;
        if let Poll::Ready(Err(_)) = client.poll_flush(cx) {
            return Poll::Ready(Err(ProxyError::ClientGone)); // it did not even take an interim response
        }
        if this.upload.is_read() && this.watch.poll_gone(cx, client, *version).is_ready() {
            return Poll::Ready(Err(ProxyError::ClientGone));
        }
        if patience.poll_elapsed(cx).is_ready() {
            if !client.is_flushed() {
                return Poll::Ready(Err(ProxyError::ClientGone)); // nor in time
            }
            let client_stalled = !this.sent && !this.gave_up && !this.upload.is_read() && this.instance.is_flushed();
            return Poll::Ready(Err(if client_stalled {
                ProxyError::ClientTimeout
            } else {
                ProxyError::EndpointTimeout
            }));
        }
        if !this.sent {
            // A body is on its way, and may take its time.
            client.rest();
            this.instance.rest();
        }
        Poll::Pending
    }
}

impl Sending<'_> {
    /// Whether the final head (101 is one) is fit to be passed on, and how its body is framed.
    fn judge(&self) -> Result<Framing, ProxyError> {
        let status = self.response.status();
        if status == 101 && !(self.sent && headers::takes_up_offer(self.request, self.response)) {
            return Err(ProxyError::Endpoint(Cause::UnaskedUpgrade));
        }
        framing::of_response(self.response, self.request.method_kind()).map_err(unfit)
    }

    /// Writes an interim head to the client, if it can read one.
    fn pass_interim(&mut self) -> Result<(), ProxyError> {
        self.interim += 1;
        if self.interim > INTERIM_MAX {
            return Err(unfit(Refusal::InterimFlood));
        }
        headers::interim_towards_client(self.response, self.settings).map_err(unfit)?;
        if self.client.version == Version::Http11 {
            self.client.link.answer(self.response).map_err(|_| ProxyError::ClientGone)?;
        }
        Ok(())
    }

    fn poll_response(&mut self, cx: &mut Context<'_>) -> Poll<Result<Framing, ProxyError>> {
        loop {
            if self.interim > 0 {
                // A client that does not read them shall not fill our memory with them.
                ready!(self.client.link.poll_flush(cx)).map_err(|_| ProxyError::ClientGone)?;
            }
            let input = &mut self.instance.input;
            if !input.is_empty() {
                match parse::response(input.filled(), &self.settings.head_limits, self.response) {
                    Ok(Progress::Complete(consumed)) => {
                        input.consume(consumed);
                        if self.response.status() >= 200 || self.response.status() == 101 {
                            return Poll::Ready(self.judge());
                        }
                        self.pass_interim()?;
                        continue;
                    }
                    Ok(Progress::Partial) => {
                        if input.is_full() {
                            input.grow();
                        }
                    }
                    Err(refusal) => return Poll::Ready(Err(unfit(refusal))),
                }
            }
            let cause = match self.instance.poll_fill(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(0)) => Cause::ClosedEarly,
                Poll::Ready(Ok(_)) => continue,
                Poll::Ready(Err(error)) => match (http2::cause(&error), tls::instances::failure(&error)) {
                    (Some(cause), _) | (None, Some(cause @ Cause::CertificateWanted)) => cause,
                    (None, _) => Cause::Reset,
                },
            };
            let silent = self.instance.received == self.received_before;
            return Poll::Ready(Err(ProxyError::Endpoint(match (silent, self.received_before > 0) {
                (true, true) => Cause::StaleConnection,
                (true, false) => cause,
                (false, _) => Cause::Truncated,
            })));
        }
    }
}

/// Passes the response body to the client, and what is left of the request body to the instance. Ends with what cut it short:
/// `ClientGone`, or `Endpoint` with the cause. The client has seen a response head by then.
pub fn exchange_bodies<'a>(
    client: &'a mut Client,
    instance: &'a mut Link,
    upload: &'a mut Upload,
    download: Download,
    idle: Duration,
) -> Delivering<'a> {
    let watch = Watch::default();
    Delivering { client, instance, upload, download, idle, watch, gave_up: false, moved: u64::MAX, suspected: false }
}

/// The second half of an attempt.
#[derive(Debug)]
#[must_use = "a future does nothing before it is polled"]
pub struct Delivering<'a> {
    client: &'a mut Client,
    instance: &'a mut Link,
    upload: &'a mut Upload,
    download: Download,
    idle: Duration,
    watch: Watch,
    /// The instance takes no more of the request.
    gave_up: bool,
    /// Bytes that had moved when the client's patience was set.
    moved: u64,
    /// It was set to less, because the client may be gone.
    suspected: bool,
}

impl Future for Delivering<'_> {
    type Output = Result<(), ProxyError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Delivering { client, instance, upload, download, idle, watch, gave_up, moved, suspected } = self.get_mut();
        if !*gave_up && !upload.is_done() {
            match upload.poll(cx, &mut client.link, instance) {
                Poll::Ready(Err(Fault::Sink(_))) => *gave_up = true,
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
        if *moved != now_moved {
            *moved = now_moved;
            client.patience.set(*idle);
        } else if watch.suspects() && !*suspected {
            *suspected = true;
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
    }
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

//! What the operator's port answers with.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use hyper::{Response, StatusCode};
use serde::Serialize;

use super::routes::Listing;

/// An answer.
pub(super) type Answer = Response<Content>;

/// The body of an answer.
pub(super) enum Content {
    /// All there is to send, until it is sent.
    Whole(Option<Bytes>),
    /// The route table, made piece by piece as it is read.
    Table(Listing),
}

impl Body for Content {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let piece = match self.get_mut() {
            Content::Whole(bytes) => bytes.take(),
            Content::Table(listing) => listing.next(),
        };
        Poll::Ready(piece.map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Content::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Content::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Content::Table(_) => SizeHint::default(),
        }
    }
}

pub(super) fn text(status: StatusCode, media_type: &'static str, content: impl Into<Bytes>) -> Answer {
    of(status, media_type, Content::Whole(Some(content.into())))
}

pub(super) fn json(status: StatusCode, content: &impl Serialize) -> Answer {
    let mut bytes = serde_json::to_vec(content).expect("answers are plain structures with text as keys");
    bytes.push(b'\n');
    text(status, "application/json", bytes)
}

pub(super) fn stream(listing: Listing) -> Answer {
    of(StatusCode::OK, "application/json", Content::Table(listing))
}

fn of(status: StatusCode, media_type: &'static str, content: Content) -> Answer {
    let mut answer = Response::new(content);
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    answer
}

/// All answers speak of this moment: nobody shall keep them.
pub(super) fn not_modified_by_caches(mut answer: Answer) -> Answer {
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

/// Why there is no other answer.
#[derive(Debug)]
pub(super) struct Problem {
    status: StatusCode,
    label: &'static str,
    sentence: String,
    allow: Option<&'static str>,
}

impl Problem {
    pub(super) fn new(status: StatusCode, label: &'static str, sentence: impl Into<String>) -> Problem {
        Problem { status, label, sentence: sentence.into(), allow: None }
    }

    /// The path is there, but not for this method.
    pub(super) fn method(allow: &'static str) -> Problem {
        let sentence = format!("only {allow} is possible here");
        let new = Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", sentence);
        Problem { allow: Some(allow), ..new }
    }

    pub(super) fn into_answer(self) -> Answer {
        let mut answer = json(self.status, &Told { error: self.label, message: &self.sentence });
        let headers = answer.headers_mut();
        if let Some(allow) = self.allow {
            headers.insert(ALLOW, HeaderValue::from_static(allow));
        }
        match self.status {
            StatusCode::UNAUTHORIZED => {
                headers.insert(
                    WWW_AUTHENTICATE,
                    HeaderValue::from_static("Basic realm=\"weighbridge\", charset=\"UTF-8\""),
                );
            }
            StatusCode::SERVICE_UNAVAILABLE => {
                headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
            }
            _ => {}
        }
        answer
    }
}

/// A problem as told to the client.
#[derive(Serialize)]
struct Told<'a> {
    error: &'a str,
    message: &'a str,
}

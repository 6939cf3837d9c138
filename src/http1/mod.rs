//! The HTTP/1.1 codec, without I/O: bytes in; heads, body framing and bytes out. Strict by refusal, never by repair.
//!
//! A message goes through four doors: [`parse`] turns a head's bytes into a [`Head`], [`framing`] decides where the body
//! ends, [`Body`] follows the body's bytes to that end, and [`write`](mod@write) prints heads and chunks. A `Head` that did
//! not come off an HTTP/1 wire (HTTP/2, our own answers) is built through setters that refuse what could break a line.
//!
//! # Where we and hyper differ
//!
//! `tests/http1_differential.rs` holds us to hyper's server: what both accept means the same to both, and what hyper
//! refuses we refuse. The exceptions, all deliberate:
//!
//! We refuse, hyper accepts: bare LF as a line end; more than one empty line before a request; a missing, empty, repeated
//! or malformed `Host`, or one that differs from the target's authority; any target that is not one of the four forms
//! for its method, or has a fragment or a byte that is not visible ASCII; `Content-Length` together with
//! `Transfer-Encoding`, repeated, or longer than 19 digits or above 2^63 - 1; any transfer coding beside `chunked`; a body on `CONNECT`; any `Expect` but `100-continue`; whitespace
//! after a chunk size, more than sixteen digits of it or a size above 2^63 - 1, control bytes in a chunk extension; trailers that would change
//! framing, routing or identity.
//!
//! We accept, hyper refuses: targets with `<`, `>`, `` ` `` or `"`, which are no part of URIs, but browsers send them and
//! they pass through byte for byte; and heads between hyper's limits and ours.

pub mod body;
pub mod framing;
pub mod head;
pub mod name;
pub mod parse;
pub mod refusal;
mod scan;
pub mod target;
pub mod write;

pub use body::{Body, Piece, Truncated};
pub use framing::Framing;
pub use head::{Field, Head, Method, Version};
pub use name::{Name, NameSet};
pub use parse::{Limits, Progress};
pub use refusal::Refusal;
pub use target::{Destination, check_request};

#[cfg(test)]
mod tests;

//! The data plane: accepts, looks up, picks, forwards, retries, finishes. Each worker thread owns its world.

pub mod admission;
pub mod answer;
mod asleep;
pub mod body;
pub mod buffers;
pub mod connection;
pub mod connections;
pub mod error;
pub mod forward;
pub mod gorouter;
pub mod headers;
pub mod http2;
pub mod ids;
pub mod link;
pub mod pages;
pub mod proxy_protocol;
pub mod request;
pub mod settings;
pub mod sticky;
pub mod stream;
pub mod tls;
pub mod trace;
pub mod tunnel;
mod turn;
pub mod upstreams;
pub mod worker;

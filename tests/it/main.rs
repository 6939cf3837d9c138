//! End to end: the router as it runs in production, real sockets on free ports, scripted instances behind it, a client
//! that sees every byte in front of it. Each test is a sentence; it waits for facts and never sleeps.

mod access_log;
mod balancing;
mod bodies;
mod bus;
mod demo;
mod failures;
mod harness;
mod headers;
mod heartbeats;
mod http2;
mod life;
mod limits;
mod messages;
mod mischief;
mod nats;
mod observability;
mod outage;
mod rehearsal;
mod routing;
mod sticky;
mod strict;
mod tls;
mod upheavals;
mod wake;
mod wire;

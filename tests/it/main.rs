//! End to end: the router as it runs in production, real sockets on free ports, scripted instances behind it, a client
//! that sees every byte in front of it. Each test is a sentence; it waits for facts and never sleeps.

#![allow(dead_code, reason = "the tests follow with the router")]

mod bus;
mod harness;
mod nats;
mod rehearsal;

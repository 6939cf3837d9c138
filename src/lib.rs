//! Weighbridge: a load-aware HTTP routing proxy. The layers, from the ground up: `domain` and `http1` (pure rules),
//! `config`, `telemetry`, `runtime` (plumbing), `control`, `proxy`, `adapters` (they decide, forward, and talk to
//! neighbours), `roles` (who is wired to whom), `cli`. Imports point down only; `tests/architecture.rs` holds that.

pub mod domain;
pub mod http1;

pub mod config;
pub mod runtime;
pub mod telemetry;

pub mod adapters;
pub mod control;
pub mod proxy;

pub mod roles;

pub mod cli;

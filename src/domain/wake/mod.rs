//! Sleep and wake: which apps sleep, who may wake them, how far their start is, and how much each app is used.
//!
//! `Apps` is the control plane's side and decides; `LiveApp` is what the workers share about one app; `Asking` tells who
//! stands at the door. Starting an app, probing it and holding requests are not done here: they are returned as effects.

mod apps;
mod digest;
mod effect;
mod episode;
mod gate;
mod learn;
mod live;
mod lives;
mod report;
mod visitor;

pub use apps::{Apps, Happening};
pub use digest::Percentiles;
pub use effect::{Ask, Effect, Ignored, Instance, Order, Settings};
pub use live::{Failure, Happened, Held, InFlight, Knock, LiveApp, Stage, View};
pub use lives::LiveApps;
pub use report::{Reporter, stats_of};
pub use visitor::{Asking, BadIgnore, Ignore, POLL_TYPE, Visitor};

#[cfg(test)]
mod tests;

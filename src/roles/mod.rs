//! Who is wired to whom: every way to run this program.

pub mod demo;
pub mod router;

mod neighbours;
mod priming;
mod wiring;

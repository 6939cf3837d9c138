//! Who is wired to whom: every way to run this program.

pub mod router;

mod wiring;

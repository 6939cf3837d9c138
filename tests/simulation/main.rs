//! Rules driven through simulated time by seeded worlds.

mod balance;
mod control;
mod wake;

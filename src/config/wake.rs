//! Sleeping apps.

use super::reader::Reader;
use super::schema::{Section, Shape};
use super::wake_start::{self, WakeStart};

pub(super) const WAKE: Section = Section {
    path: "wake",
    shape: Shape::Always,
    doc: "Apps that sleep until somebody asks for them.",
    keys: &[wake_start::START],
};

/// Sleeping apps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WakeConfig {
    /// Who starts an app that somebody wants.
    pub start: WakeStart,
}

pub(super) fn read(section: &mut Reader<'_, '_>) -> WakeConfig {
    WakeConfig { start: wake_start::read(section) }
}

//! The router's own log: what it says about itself, to standard error.

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, fmt, reload};

/// How a line of the log looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Why the log is not as wanted.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The filter is not understood.
    #[error("log filter {filter:?} is not understood: {reason}")]
    Filter {
        /// As written.
        filter: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Something else in this process logs already.
    #[error("the log of this process has been set up before")]
    Twice,
}

/// Changes which lines are written while the process runs.
#[derive(Clone, Debug)]
pub struct LevelHandle {
    filter: reload::Handle<EnvFilter, Registry>,
}

impl LevelHandle {
    /// From now on writes what `filter` lets through.
    ///
    /// # Errors
    /// The filter is not understood; the old one stays.
    pub fn set(&self, filter: &str) -> Result<(), LogError> {
        let filter = parse(filter)?;
        // Fails only if the log itself is gone, and then there is nothing to filter.
        let _gone = self.filter.reload(filter);
        Ok(())
    }
}

/// Starts the log. `filter` is a level (`info`) or a list of `target=level` (`info,weighbridge::control=debug`).
///
/// # Errors
/// The filter is not understood, or the log was started before.
pub fn init(filter: &str, format: LogFormat) -> Result<LevelHandle, LogError> {
    let (filter, handle) = reload::Layer::new(parse(filter)?);
    let registry = tracing_subscriber::registry().with(filter);
    let lines = fmt::layer().with_writer(std::io::stderr);
    let started = match format {
        LogFormat::Text => {
            registry.with(lines.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))).try_init()
        }
        LogFormat::Json => registry.with(lines.json().flatten_event(true)).try_init(),
    };
    started.map_err(|_| LogError::Twice)?;
    Ok(LevelHandle { filter: handle })
}

/// Whether `filter` is understood; for the check of a configuration.
///
/// # Errors
/// It is not; the error says why.
pub fn check(filter: &str) -> Result<(), LogError> {
    parse(filter).map(drop)
}

fn parse(filter: &str) -> Result<EnvFilter, LogError> {
    let wrong = |reason: String| LogError::Filter { filter: filter.to_owned(), reason };
    if filter.trim().is_empty() {
        return Err(wrong("it is empty".to_owned())); // would mean: errors only, which nobody wants by accident
    }
    // The NATS client logs every attempt to connect; the bus says what matters of it. A later directive overrides this.
    EnvFilter::try_new(format!("async_nats=off,{filter}")).map_err(|error| wrong(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_a_level_or_a_list_of_targets() {
        for good in ["info", "DEBUG", "warn,weighbridge::control=debug"] {
            assert!(check(good).is_ok(), "{good}");
        }
        for bad in ["", " ", "info,weighbridge=loud", "a=b=c"] {
            assert!(matches!(check(bad), Err(LogError::Filter { .. })), "{bad}");
        }
    }

    #[test]
    fn a_wrong_filter_leaves_the_old_one_in_place() {
        let handle = init("warn", LogFormat::Json).expect("no other unit test starts the log");
        assert!(handle.set("info,weighbridge=loud").is_err());
        assert!(!tracing::enabled!(tracing::Level::INFO));
        handle.set("debug").expect("debug is a level");
        assert!(tracing::enabled!(tracing::Level::DEBUG));
        assert!(matches!(init("info", LogFormat::Text), Err(LogError::Twice)));
        handle.set("off").expect("off is a level");
    }
}

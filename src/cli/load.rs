//! Reads the configuration from where it lives: file, environment, machine.

use std::fs;
use std::path::Path;

use super::Failure;
use crate::config::{self, Config, Surroundings};

/// The configuration in force; no file means defaults, the environment always counts.
pub(super) fn config(file: Option<&Path>) -> Result<Config, Failure> {
    let (name, text) = match file {
        Some(file) => {
            let name = file.display().to_string();
            let text = fs::read_to_string(file).map_err(|error| Failure(format!("cannot read {name}: {error}")))?;
            (name, text)
        }
        None => (String::new(), String::new()),
    };
    // Bytes that are not UTF-8 become replacement characters, which no key and hardly a value accepts.
    let variables: Vec<(String, String)> = std::env::vars_os()
        .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()))
        .collect();
    let around = Surroundings {
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        variables: &variables,
        read_file: &|path| fs::read_to_string(path),
    };
    Ok(config::load(&name, &text, &around)?)
}

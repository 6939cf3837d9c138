//! Certificates and keys from PEM files. Nothing here runs on a worker.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys};
use webpki::EndEntityCert;

use super::provider;
use crate::config::KeyPair;

/// Largest file that is read: a bundle of authorities has about 250 KB.
const BYTES_MAX: u64 = 16 << 20;

/// Why a file cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// It cannot be read.
    #[error("cannot read {}: {why}", path.display())]
    Read {
        /// Which one.
        path: PathBuf,
        /// What the system says.
        why: String,
    },
    /// It does not hold what it should.
    #[error("{} {what}", path.display())]
    Content {
        /// Which one.
        path: PathBuf,
        /// The end of the sentence.
        what: String,
    },
}

impl Problem {
    pub(super) fn content(path: &Path, what: impl Into<String>) -> Problem {
        Problem::Content { path: path.into(), what: what.into() }
    }

    fn read(path: &Path, error: &io::Error) -> Problem {
        Problem::Read { path: path.into(), why: error.to_string() }
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Problem> {
    let size = fs::metadata(path).map_err(|error| Problem::read(path, &error))?.len();
    if size > BYTES_MAX {
        return Err(Problem::content(path, "is too large"));
    }
    fs::read(path).map_err(|error| Problem::read(path, &error))
}

/// All certificates in a file, at least one.
///
/// # Errors
/// What is wrong with the file.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Problem> {
    let bytes = read(path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(Problem::content(path, "holds no certificate")),
        Err(error) => Err(Problem::content(path, format!("holds a broken certificate: {error}"))),
    }
}

/// A certificate and its key.
///
/// # Errors
/// What is wrong with which of the two files.
pub fn certified_key(pair: &KeyPair) -> Result<Arc<CertifiedKey>, Problem> {
    let chain = certificates(&pair.cert)?;
    if let Err(error) = EndEntityCert::try_from(&chain[0]) {
        return Err(Problem::content(&pair.cert, format!("holds a certificate that cannot be read: {error}")));
    }
    let key = PrivateKeyDer::from_pem_slice(&read(&pair.key)?).map_err(|error| {
        let what = match error {
            pem::Error::NoItemsFound => "holds no private key that can be used (is it encrypted?)".to_string(),
            error => format!("holds a broken private key: {error}"),
        };
        Problem::content(&pair.key, what)
    })?;
    match CertifiedKey::from_der(chain, key, provider()) {
        Ok(certified) => Ok(Arc::new(certified)),
        Err(Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => {
            Err(Problem::content(&pair.key, format!("does not belong to the certificate in {}", pair.cert.display())))
        }
        Err(error) => Err(Problem::content(&pair.key, format!("cannot be used: {error}"))),
    }
}

/// The DNS names that a certificate is for, wildcards included.
pub fn names(certificate: &CertificateDer<'_>) -> Vec<String> {
    let parsed = EndEntityCert::try_from(certificate);
    parsed.map(|parsed| parsed.valid_dns_names().map(str::to_owned).collect()).unwrap_or_default()
}

/// The certificates of a directory, by name: `NAME.crt` or `NAME.pem` with a `NAME.key` beside it.
///
/// # Errors
/// The directory cannot be listed.
pub fn pairs_in(directory: &Path) -> Result<Vec<KeyPair>, Problem> {
    let failed = |error: io::Error| Problem::read(directory, &error);
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).map_err(failed)? {
        let cert = entry.map_err(failed)?.path();
        let is_certificate = cert.extension().is_some_and(|ending| ending == "crt" || ending == "pem");
        let key = cert.with_extension("key");
        if is_certificate && key.exists() {
            found.push(KeyPair { cert, key });
        }
    }
    found.sort();
    Ok(found)
}

/// What tells one state of a file from another without reading it; `None`: it is not there.
pub type Stamp = Option<[i128; 4]>;

/// The present state of a file, links followed.
pub fn stamp(path: &Path) -> Stamp {
    let facts = fs::metadata(path).ok()?;
    let nanos = |seconds: i64, nanos: i64| i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
    let (modified, changed) = (nanos(facts.mtime(), facts.mtime_nsec()), nanos(facts.ctime(), facts.ctime_nsec()));
    Some([i128::from(facts.ino()), i128::from(facts.len()), modified, changed])
}

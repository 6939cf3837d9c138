//! Whom the system trusts, and authorities from a file of PEM: for every connection we make over TLS.

use std::io;
use std::path::{Path, PathBuf};

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

/// Where systems keep the authorities they trust.
const SYSTEM_BUNDLES: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// `ca`, or else the bundle of this system, if it has one.
pub fn file(ca: Option<&Path>) -> Option<&Path> {
    ca.or_else(|| SYSTEM_BUNDLES.iter().map(Path::new).find(|path| path.exists()))
}

/// Why there is nobody to trust.
#[derive(Debug, thiserror::Error)]
pub enum NoAuthorities {
    /// Neither a file was named nor does the system have one.
    #[error("the system has no bundle of authorities; name one as `ca`")]
    Nowhere,
    /// The file cannot be read.
    #[error("cannot read {}: {cause}", path.display())]
    Read {
        /// Which one.
        path: PathBuf,
        /// What the system says.
        cause: io::Error,
    },
    /// The file holds none.
    #[error("{} holds no certificate of an authority", path.display())]
    Empty {
        /// Which one.
        path: PathBuf,
    },
}

/// The authorities in `ca`, or else those of the system. Some of a bundle may be none that we understand; one must be.
///
/// # Errors
/// When nobody could be trusted.
pub fn read(ca: Option<&Path>) -> Result<RootCertStore, NoAuthorities> {
    let path = file(ca).ok_or(NoAuthorities::Nowhere)?;
    let bytes = std::fs::read(path).map_err(|cause| NoAuthorities::Read { path: path.into(), cause })?;
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(CertificateDer::pem_slice_iter(&bytes).filter_map(Result::ok));
    if roots.is_empty() { Err(NoAuthorities::Empty { path: path.into() }) } else { Ok(roots) }
}

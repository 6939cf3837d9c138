//! TLS on both sides. What it needs is read from files by a `Keeper`, which replaces it whole when they change; a
//! connection keeps what it began with.

pub mod clients;
pub mod files;
pub mod instances;
pub mod keeper;
pub mod names;

use std::io;
use std::sync::{Arc, OnceLock};

use rustls::ServerConfig;
use rustls::crypto::{CryptoProvider, aws_lc_rs};

use instances::Instances;

/// What workers need for TLS.
#[derive(Clone, Debug, Default)]
pub struct Tls {
    /// Towards clients; there if there is a listener for them.
    pub clients: Option<Arc<ServerConfig>>,
    /// Towards instances; `None` where nobody could be verified.
    pub instances: Option<Arc<Instances>>,
}

/// The cryptography of the process.
pub(crate) fn provider() -> &'static Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    PROVIDER.get_or_init(|| Arc::new(aws_lc_rs::default_provider()))
}

/// What TLS has against the other side, if that is what failed.
fn cause(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

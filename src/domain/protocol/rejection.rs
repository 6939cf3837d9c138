//! Why a message from the bus is refused, and how large one may be.

use std::fmt;

/// Bytes of one message (the largest payload a NATS server passes on by default).
pub const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// Routes one registration may name.
pub const URIS_MAX: usize = 4096;
/// Bytes of one route.
pub const URI_BYTES_MAX: usize = 4096;
/// Bytes of a host name (255 is DNS's own limit).
pub const HOST_BYTES_MAX: usize = 255;
/// Instances one heartbeat may list.
pub const DROPLETS_MAX: usize = 16_384;
/// Tags of one instance.
pub const TAGS_MAX: usize = 128;
/// Bytes of an identifier, a tag or any other short text.
pub const TEXT_BYTES_MAX: usize = 4096;

/// The kinds of mistakes, as they are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// Longer than a message, a list or a text may be.
    TooLarge,
    /// Not UTF-8.
    NotUtf8,
    /// Not one JSON object.
    NotJson,
    /// A value of the wrong JSON type, or a number out of its range.
    WrongType,
    /// A known key given twice.
    DuplicateKey,
    /// No address of the instance.
    MissingHost,
    /// An address that is no host name and no IP address.
    BadHost,
    /// No port, or none from 1 to 65535.
    BadPort,
    /// A route that no request could match.
    BadUri,
    /// An identifier with control characters in it.
    BadText,
    /// A protocol other than `http1` and `http2`.
    BadProtocol,
    /// A route service that is not reached by https.
    BadRouteServiceUrl,
    /// A static weight that is not above 0.
    BadWeight,
    /// A load far above 1: somebody sends percent.
    LoadOutOfRange,
    /// A state that no instance can be in.
    BadState,
    /// A time that is not RFC 3339.
    BadTime,
    /// No id of the app, the agent or the instance where one is needed.
    MissingId,
    /// There is nothing wrong with it, but the table takes no more.
    TableFull,
}

impl Reason {
    /// All of them.
    pub const ALL: [Reason; 18] = [
        Reason::TooLarge,
        Reason::NotUtf8,
        Reason::NotJson,
        Reason::WrongType,
        Reason::DuplicateKey,
        Reason::MissingHost,
        Reason::BadHost,
        Reason::BadPort,
        Reason::BadUri,
        Reason::BadText,
        Reason::BadProtocol,
        Reason::BadRouteServiceUrl,
        Reason::BadWeight,
        Reason::LoadOutOfRange,
        Reason::BadState,
        Reason::BadTime,
        Reason::MissingId,
        Reason::TableFull,
    ];

    /// The label of the metric and of the admin's answer.
    pub fn label(self) -> &'static str {
        match self {
            Reason::TooLarge => "too_large",
            Reason::NotUtf8 => "not_utf8",
            Reason::NotJson => "not_json",
            Reason::WrongType => "wrong_type",
            Reason::DuplicateKey => "duplicate_key",
            Reason::MissingHost => "missing_host",
            Reason::BadHost => "bad_host",
            Reason::BadPort => "bad_port",
            Reason::BadUri => "bad_uri",
            Reason::BadText => "bad_text",
            Reason::BadProtocol => "bad_protocol",
            Reason::BadRouteServiceUrl => "bad_route_service_url",
            Reason::BadWeight => "bad_weight",
            Reason::LoadOutOfRange => "load_out_of_range",
            Reason::BadState => "bad_state",
            Reason::BadTime => "bad_time",
            Reason::MissingId => "missing_id",
            Reason::TableFull => "table_full",
        }
    }
}

/// A message that is refused whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// What kind of mistake it is.
    pub reason: Reason,
    /// The mistake as a sentence that names the offender.
    pub sentence: String,
}

impl Rejection {
    /// Refuses for `reason`.
    pub fn new(reason: Reason, sentence: impl Into<String>) -> Rejection {
        Rejection { reason, sentence: sentence.into() }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason.label(), self.sentence)
    }
}

impl std::error::Error for Rejection {}

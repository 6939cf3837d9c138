//! Why a message is refused: one variant for each rule, so that each has its own count and its own sentence.

/// A message that breaks a rule. Nothing of it may be passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refusal {
    /// LF without CR before it.
    #[error("a line ends with a bare line feed")]
    BareLineFeed,
    /// CR without LF behind it.
    #[error("a carriage return stands without its line feed")]
    BareCarriageReturn,
    /// More empty lines before the request line than the one that is tolerated.
    #[error("empty lines precede the message")]
    EmptyLines,
    /// A line that continues the field before it (obs-fold), or whitespace before the first field.
    #[error("a field is folded over several lines")]
    FoldedField,
    /// `Name : value`.
    #[error("whitespace stands between a field name and its colon")]
    SpaceBeforeColon,
    /// A field line without a colon.
    #[error("a field line has no colon")]
    NoColon,
    /// `: value`.
    #[error("a field has no name")]
    EmptyFieldName,
    /// A field name with a byte that is not allowed in a token.
    #[error("a field name has a byte that names cannot have")]
    FieldName,
    /// A field value with NUL or another control byte.
    #[error("a field value has a control byte")]
    FieldValue,
    /// The head does not end within the limit.
    #[error("the head is larger than the limit")]
    HeadTooLarge,
    /// More field lines than the limit.
    #[error("the head has more fields than the limit")]
    TooManyFields,
    /// `Connection` lists more options than anyone needs.
    #[error("Connection lists too many options")]
    TooManyOptions,

    /// What begins here is not a method, hence perhaps not HTTP at all.
    #[error("the request does not begin with a method")]
    Method,
    /// Not origin-form, absolute-form, authority-form or `*` as the method allows, or a byte that is not visible ASCII.
    #[error("the request target is malformed")]
    Target,
    /// A target with `#`.
    #[error("the request target has a fragment")]
    Fragment,
    /// A request target longer than the limit.
    #[error("the request target is longer than the limit")]
    TargetTooLong,
    /// Neither HTTP/1.0 nor HTTP/1.1.
    #[error("the HTTP version is neither 1.0 nor 1.1")]
    Version,
    /// A status line that is not one, or a code below 100.
    #[error("the status line is malformed")]
    Status,

    /// No `Host` in HTTP/1.1, or an empty one.
    #[error("the request names no host")]
    MissingHost,
    /// More than one `Host`.
    #[error("the request has more than one Host")]
    RepeatedHost,
    /// Not a host with an optional port: a list, a userinfo, a byte that host names cannot have.
    #[error("the host is malformed")]
    MalformedHost,
    /// The authority of the target and `Host` differ.
    #[error("the request target and Host name different hosts")]
    HostMismatch,

    /// Both `Content-Length` and `Transfer-Encoding`.
    #[error("both Content-Length and Transfer-Encoding are present")]
    LengthAndEncoding,
    /// More than one `Content-Length`, even if they agree.
    #[error("Content-Length is repeated")]
    RepeatedLength,
    /// A `Content-Length` that is not digits only.
    #[error("Content-Length is not a number")]
    MalformedLength,
    /// A `Content-Length` above [`LENGTH_MAX`](super::framing::LENGTH_MAX).
    #[error("Content-Length is too large to count")]
    LengthTooLarge,
    /// A `Content-Length` where there cannot be a body.
    #[error("Content-Length on a message that cannot have a body")]
    LengthForbidden,
    /// A `Transfer-Encoding` other than exactly one `chunked`.
    #[error("Transfer-Encoding is not exactly one `chunked`")]
    Encoding,
    /// A `Transfer-Encoding` in HTTP/1.0, which has none.
    #[error("Transfer-Encoding in HTTP/1.0")]
    EncodingInHttp10,
    /// A `Transfer-Encoding` where there cannot be a body.
    #[error("Transfer-Encoding on a message that cannot have a body")]
    EncodingForbidden,

    /// A chunk size that is not hexadecimal digits only.
    #[error("a chunk size is malformed")]
    ChunkSize,
    /// A chunk size of more than sixteen digits.
    #[error("a chunk size is too large to count")]
    ChunkTooLarge,
    /// A chunk extension with a control byte.
    #[error("a chunk extension is malformed")]
    ChunkExtension,
    /// More bytes of chunk extensions in one body than the limit.
    #[error("the chunk extensions of a body are larger than the limit")]
    ChunkExtensionsTooLarge,
    /// Chunk data not followed by CR LF.
    #[error("a chunk does not end where its size says")]
    ChunkEnd,
    /// A trailer section larger than the limit.
    #[error("the trailers are larger than the limit")]
    TrailersTooLarge,
    /// A trailer that would change framing, routing or identity if a recipient merged it into the head.
    #[error("a trailer has a name that only heads may have")]
    ForbiddenTrailer,
}

impl Refusal {
    /// The name in metrics and logs: stable, snake_case.
    pub const fn label(self) -> &'static str {
        match self {
            Self::BareLineFeed => "bare_line_feed",
            Self::BareCarriageReturn => "bare_carriage_return",
            Self::EmptyLines => "empty_lines",
            Self::FoldedField => "folded_field",
            Self::SpaceBeforeColon => "space_before_colon",
            Self::NoColon => "no_colon",
            Self::EmptyFieldName => "empty_field_name",
            Self::FieldName => "field_name",
            Self::FieldValue => "field_value",
            Self::HeadTooLarge => "head_too_large",
            Self::TooManyFields => "too_many_fields",
            Self::TooManyOptions => "too_many_options",
            Self::Method => "method",
            Self::Target => "target",
            Self::Fragment => "fragment",
            Self::TargetTooLong => "target_too_long",
            Self::Version => "version",
            Self::Status => "status",
            Self::MissingHost => "missing_host",
            Self::RepeatedHost => "repeated_host",
            Self::MalformedHost => "malformed_host",
            Self::HostMismatch => "host_mismatch",
            Self::LengthAndEncoding => "length_and_encoding",
            Self::RepeatedLength => "repeated_length",
            Self::MalformedLength => "malformed_length",
            Self::LengthTooLarge => "length_too_large",
            Self::LengthForbidden => "length_forbidden",
            Self::Encoding => "encoding",
            Self::EncodingInHttp10 => "encoding_in_http10",
            Self::EncodingForbidden => "encoding_forbidden",
            Self::ChunkSize => "chunk_size",
            Self::ChunkTooLarge => "chunk_too_large",
            Self::ChunkExtension => "chunk_extension",
            Self::ChunkExtensionsTooLarge => "chunk_extensions_too_large",
            Self::ChunkEnd => "chunk_end",
            Self::TrailersTooLarge => "trailers_too_large",
            Self::ForbiddenTrailer => "forbidden_trailer",
        }
    }

    /// The status to answer a refused *request* with (a refused response is the upstream's fault: 502).
    pub const fn status(self) -> u16 {
        match self {
            Self::TargetTooLong => 414,
            Self::HeadTooLarge | Self::TooManyFields | Self::TrailersTooLarge => 431,
            Self::Version => 505,
            _ => 400,
        }
    }
}

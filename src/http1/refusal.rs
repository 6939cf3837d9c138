//! Why a message is refused: one variant for each rule, so that each has its own count and its own sentence.

/// Declares the refusals: the variant, its label in metrics, its sentence.
macro_rules! refusals {
    ($($variant:ident $label:literal $sentence:literal)*) => {
        /// A message that breaks a rule. Nothing of it may be passed on.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
        pub enum Refusal {
            $(#[doc = concat!("That ", $sentence, ".")] #[error($sentence)] $variant,)*
        }

        impl Refusal {
            /// Every refusal there is.
            pub const ALL: &[Refusal] = &[$(Refusal::$variant),*];

            /// The name in metrics and logs: stable, snake_case.
            pub const fn label(self) -> &'static str {
                match self {
                    $(Refusal::$variant => $label,)*
                }
            }
        }
    };
}

refusals! {
    // What is wrong with lines and fields, in heads and in trailers.
    BareLineFeed "bare_line_feed" "a line ends with a bare line feed"
    BareCarriageReturn "bare_carriage_return" "a carriage return stands without its line feed"
    EmptyLines "empty_lines" "empty lines precede the message"
    FoldedField "folded_field" "a field is folded over several lines"
    SpaceBeforeColon "space_before_colon" "whitespace stands between a field name and its colon"
    NoColon "no_colon" "a field line has no colon"
    EmptyFieldName "empty_field_name" "a field has no name"
    FieldName "field_name" "a field name has a byte that names cannot have"
    FieldValue "field_value" "a field value has a control byte"
    HeadTooLarge "head_too_large" "the head is larger than the limit"
    TooManyFields "too_many_fields" "the head has more fields than the limit"
    TooManyOptions "too_many_options" "Connection lists too many options"

    // What is wrong with the first line.
    Method "method" "the request does not begin with a method"
    Target "target" "the request target is malformed"
    Fragment "fragment" "the request target has a fragment"
    TargetTooLong "target_too_long" "the request target is longer than the limit"
    Version "version" "the HTTP version is neither 1.0 nor 1.1"
    MalformedVersion "malformed_version" "the first line does not name an HTTP version where it should"
    Status "status" "the status line is malformed"

    // What is wrong in front of the first line.
    ProxyPreamble "proxy_preamble" "the preamble of the PROXY protocol is malformed"

    // What is wrong with the host.
    MissingHost "missing_host" "the request names no host"
    RepeatedHost "repeated_host" "the request has more than one Host"
    MalformedHost "malformed_host" "the host is malformed"
    HostMismatch "host_mismatch" "the request target and Host name different hosts"

    // What is wrong with what is asked for.
    Expectation "expectation" "Expect asks for something other than 100-continue"
    InterimFlood "interim_flood" "there are more interim responses than the limit"

    // What is wrong with the framing.
    LengthAndEncoding "length_and_encoding" "both Content-Length and Transfer-Encoding are present"
    RepeatedLength "repeated_length" "Content-Length is repeated"
    MalformedLength "malformed_length" "Content-Length is not a number"
    LengthTooLarge "length_too_large" "Content-Length is above 2^63 - 1"
    LengthForbidden "length_forbidden" "Content-Length on a message that cannot have a body"
    Encoding "encoding" "Transfer-Encoding is not exactly one `chunked`"
    EncodingInHttp10 "encoding_in_http10" "Transfer-Encoding in HTTP/1.0"
    EncodingForbidden "encoding_forbidden" "Transfer-Encoding on a message that cannot have a body"

    // What is wrong in a chunked body.
    ChunkSize "chunk_size" "a chunk size is malformed"
    ChunkTooLarge "chunk_too_large" "a chunk size is too large to count"
    ChunkExtension "chunk_extension" "a chunk extension is malformed"
    ChunkExtensionsTooLarge "chunk_extensions_too_large" "the chunk extensions of a body are larger than the limit"
    ChunkEnd "chunk_end" "a chunk does not end where its size says"
    TrailersTooLarge "trailers_too_large" "the trailers are larger than the limit"
    ForbiddenTrailer "forbidden_trailer" "a trailer has a name that only heads may have"
}

impl Refusal {
    /// The status to answer a refused *request* with (a refused response is the upstream's fault: 502).
    pub const fn status(self) -> u16 {
        match self {
            Self::TargetTooLong => 414,
            Self::Expectation => 417,
            Self::HeadTooLarge | Self::TooManyFields | Self::TrailersTooLarge => 431,
            Self::Version => 505,
            _ => 400,
        }
    }
}

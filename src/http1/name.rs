//! Field names the router knows by heart, found by one multiplication and one comparison.

use wide::u8x16;

/// Declares the known names: the enum, and how each is spelled when we are the ones who write it.
macro_rules! known_names {
    ($($variant:ident $spelling:literal)*) => {
        /// A field name the router has something to do with; all others are `Other`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        #[allow(missing_docs)]
        pub enum Name { Other, $($variant),* }

        impl Name {
            /// All of them, in the order of their numbers; the first is `Other`.
            pub const ALL: &[Name] = &[Name::Other, $(Name::$variant),*];
        }

        const SPELLINGS: &[&str] = &["", $($spelling),*];
        const BEGINNINGS: &[&str] = &[": ", $(concat!($spelling, ": ")),*];
    };
}

known_names! {
    Accept "Accept"
    AcceptLanguage "Accept-Language"
    Authorization "Authorization"
    B3 "b3"
    CacheControl "Cache-Control"
    Connection "Connection"
    ContentLength "Content-Length"
    ContentType "Content-Type"
    Cookie "Cookie"
    Date "Date"
    Expect "Expect"
    Forwarded "Forwarded"
    Host "Host"
    Http2Settings "HTTP2-Settings"
    IdempotencyKey "Idempotency-Key"
    KeepAlive "Keep-Alive"
    Location "Location"
    MaxForwards "Max-Forwards"
    ProxyAuthenticate "Proxy-Authenticate"
    ProxyAuthorization "Proxy-Authorization"
    ProxyConnection "Proxy-Connection"
    Referer "Referer"
    RetryAfter "Retry-After"
    SecFetchMode "Sec-Fetch-Mode"
    Server "Server"
    SetCookie "Set-Cookie"
    Te "TE"
    Traceparent "traceparent"
    Tracestate "tracestate"
    Trailer "Trailer"
    TransferEncoding "Transfer-Encoding"
    Upgrade "Upgrade"
    UserAgent "User-Agent"
    Vary "Vary"
    Via "Via"
    XB3Flags "X-B3-Flags"
    XB3ParentSpanId "X-B3-ParentSpanId"
    XB3Sampled "X-B3-Sampled"
    XB3SpanId "X-B3-SpanId"
    XB3TraceId "X-B3-TraceId"
    XCfAppInstance "X-CF-App-Instance"
    XCfApplicationId "X-CF-ApplicationID"
    XCfInstanceId "X-CF-InstanceID"
    XCfInstanceIndex "X-CF-InstanceIndex"
    XCfProcessInstance "X-CF-Process-Instance"
    XCfRouterError "X-Cf-RouterError"
    XForwardedClientCert "X-Forwarded-Client-Cert"
    XForwardedFor "X-Forwarded-For"
    XForwardedHost "X-Forwarded-Host"
    XForwardedProto "X-Forwarded-Proto"
    XRequestStart "X-Request-Start"
    XRequestedWith "X-Requested-With"
    XVcapRequestId "X-Vcap-Request-Id"
    XWeighbridgeError "X-Weighbridge-Error"
}

impl Name {
    /// Which name these bytes spell, in any case; they may be any bytes.
    pub fn of(name: &[u8]) -> Name {
        if super::head::is_text(name) { Name::of_text(name) } else { Name::Other }
    }

    /// Which name these bytes spell, in any case; no control byte but tab may be among them.
    pub(super) fn of_text(name: &[u8]) -> Name {
        Name::of_first(name, name.len())
    }

    /// Which name the first so many bytes of a text spell, in any case; no control byte but tab may be among them.
    #[inline(always)] // into the loop over all fields
    pub(super) fn of_first(text: &[u8], length: usize) -> Name {
        let name = &text[..length];
        let Some(slot) = slot(name, MULTIPLIER) else { return Name::Other };
        let candidate = TABLE[slot];
        let (folded, known_length) = KNOWN[candidate as usize];
        if known_length != length {
            return Name::Other;
        }
        let is_same = match text.first_chunk() {
            Some(block) if length <= 16 => {
                let same = (u8x16::new(*block) | u8x16::splat(CASE)).simd_eq(folded);
                same.to_bitmask() | u32::MAX << length == u32::MAX
            }
            _ => is_same_text(candidate.spelling().as_bytes(), name),
        };
        if is_same { candidate } else { Name::Other }
    }

    /// How we write it; empty for `Other`.
    pub const fn spelling(self) -> &'static str {
        SPELLINGS[self as usize]
    }

    /// How a line of ours begins.
    pub(super) const fn beginning(self) -> &'static str {
        BEGINNINGS[self as usize]
    }

    const fn bit(self) -> u64 {
        // `Other` has no bit, so that sets hold known names only.
        (1 << self as u8) & !1
    }
}

/// A set of known names, as bits; `Other` is never in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NameSet(u64);

impl NameSet {
    /// The set of these names.
    pub const fn of(names: &[Name]) -> NameSet {
        let (mut bits, mut index) = (0, 0);
        while index < names.len() {
            bits |= names[index].bit();
            index += 1;
        }
        NameSet(bits)
    }

    /// Whether the name is in it.
    #[inline]
    pub const fn contains(self, name: Name) -> bool {
        self.0 & name.bit() != 0
    }

    /// Whether any name is in both.
    #[inline]
    pub const fn meets(self, other: NameSet) -> bool {
        self.0 & other.0 != 0
    }

    /// The names of either.
    pub const fn and(self, other: NameSet) -> NameSet {
        NameSet(self.0 | other.0)
    }

    /// The names of this set that are not in the other.
    pub const fn without(self, other: NameSet) -> NameSet {
        NameSet(self.0 & !other.0)
    }

    /// The names in both.
    pub const fn common(self, other: NameSet) -> NameSet {
        NameSet(self.0 & other.0)
    }
}

const _: () = assert!(Name::ALL.len() <= 64, "NameSet has 64 bits");

/// All that the cases of a letter differ in.
const CASE: u8 = 0x20;

/// Whether a text differs from a known spelling in case only, in words that may overlap. Bit 5 is all that the cases of a
/// letter differ in, and what the other bytes of known spellings (digits and hyphens) become by it is in no text.
pub(super) fn is_same_text(spelling: &[u8], text: &[u8]) -> bool {
    const CASES: u64 = u64::from_ne_bytes([CASE; 8]);
    if spelling.len() != text.len() {
        return false;
    }
    let long = |word: Option<&[u8; 8]>| word.map(|word| u64::from_le_bytes(*word) | CASES);
    let short = |word: Option<&[u8; 4]>| word.map(|word| u32::from_le_bytes(*word) | CASES as u32);
    match spelling.len() {
        8.. => {
            long(spelling.first_chunk()) == long(text.first_chunk())
                && long(spelling.last_chunk()) == long(text.last_chunk())
                && (spelling.len() <= 16 || spelling[8..].eq_ignore_ascii_case(&text[8..]))
        }
        4.. => {
            short(spelling.first_chunk()) == short(text.first_chunk())
                && short(spelling.last_chunk()) == short(text.last_chunk())
        }
        _ => spelling.eq_ignore_ascii_case(text),
    }
}

/// How each spelling begins, in the case that [`is_same_text`] compares in and with zeros behind; and how long it is.
static KNOWN: [(u8x16, usize); Name::ALL.len()] = {
    let mut table = [(u8x16::ZERO, 0); Name::ALL.len()];
    let mut index = 0;
    while index < table.len() {
        let (spelling, mut block, mut at) = (SPELLINGS[index].as_bytes(), [0; 16], 0);
        while at < spelling.len() && at < block.len() {
            block[at] = spelling[at] | CASE;
            at += 1;
        }
        table[index] = (u8x16::new(block), spelling.len());
        index += 1;
    }
    table
};

const SLOT_BITS: u32 = 9;

/// Length, the first, an inner and the last two letters tell all known names apart; the multiplier spreads them over the
/// table. Nothing shorter than two letters is known.
#[inline]
const fn slot(name: &[u8], multiplier: u32) -> Option<usize> {
    let Some(&[y, z]) = name.last_chunk() else { return None };
    // Setting bit 5 makes letters lower case; what it does to other bytes does not matter, the comparison decides.
    let letters = u32::from_le_bytes([name[0], name[name.len() / 4], y, z]) | u32::from_ne_bytes([CASE; 4]);
    let key = letters.wrapping_add((name.len() as u32) << 20);
    Some((key.wrapping_mul(multiplier) >> (32 - SLOT_BITS)) as usize)
}

/// The first odd multiplier that gives every known name a slot of its own, found by the compiler.
const MULTIPLIER: u32 = {
    let mut multiplier = 0x9E37_79B1u32;
    while fill(multiplier).is_none() {
        multiplier = multiplier.wrapping_add(0x0123_4566);
    }
    multiplier
};

static TABLE: [Name; 1 << SLOT_BITS] = match fill(MULTIPLIER) {
    Some(table) => table,
    None => panic!("MULTIPLIER is one for which this is Some"),
};

const fn fill(multiplier: u32) -> Option<[Name; 1 << SLOT_BITS]> {
    let mut table = [Name::Other; 1 << SLOT_BITS];
    let mut index = 1;
    while index < Name::ALL.len() {
        match slot(SPELLINGS[index].as_bytes(), multiplier) {
            Some(slot) if matches!(table[slot], Name::Other) => table[slot] = Name::ALL[index],
            _taken => return None,
        }
        index += 1;
    }
    Some(table)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_known_name_is_found_in_any_case() {
        for &name in &Name::ALL[1..] {
            let spelling = name.spelling();
            assert_eq!(Name::of(spelling.as_bytes()), name);
            assert_eq!(Name::of(spelling.to_ascii_lowercase().as_bytes()), name);
            assert_eq!(Name::of(spelling.to_ascii_uppercase().as_bytes()), name);
        }
    }

    #[test]
    fn every_other_name_is_other() {
        for name in ["", "x", "Hos", "Hosts", "H0st", "Content_Length", "Transfer-Encodin\u{7}", "X-Forwarded-Foo"] {
            assert_eq!(Name::of(name.as_bytes()), Name::Other, "{name:?}");
        }
        for &name in &Name::ALL[1..] {
            // CR and hyphen differ in bit 5 only, like the cases of a letter.
            let twisted: Vec<u8> = name.spelling().bytes().map(|b| if b == b'-' { b'\r' } else { b }).collect();
            assert_eq!(Name::of(&twisted) == name, twisted == name.spelling().as_bytes());
        }
    }

    #[test]
    fn a_set_holds_known_names_and_never_other() {
        let set = NameSet::of(&[Name::Host, Name::Te, Name::Other]);
        assert!(set.contains(Name::Host) && set.contains(Name::Te));
        assert!(!set.contains(Name::Other) && !set.contains(Name::Cookie));
        assert_eq!(set.without(NameSet::of(&[Name::Te])), NameSet::of(&[Name::Host]));
        assert!(!set.meets(NameSet::of(&[Name::Cookie, Name::Other])));
    }
}

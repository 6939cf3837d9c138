//! Attacks the choice by name: whatever is asked for, somebody answers, and exact names beat wildcards.

use weighbridge::proxy::tls::names::Names;

/// See `tests/fuzz/main.rs`. The first line is the name asked for; each line behind it the names of one certificate.
pub const TARGET: super::Target = super::Target {
    name: "sni",
    seeds: &[
        b"shop.test\nfirst.test\n*.test\nshop.test SHOP.test",
        b"a.b.test\n*.b.test *.a.b.test\n*.test",
        b"\n\n*.",
        b".\n*.\n. *..",
    ],
    dictionary: &[b"*.", b".", b"\n", b" ", b"test", b"TEST", b"*", b"a.test", b"xn--", "\u{130}".as_bytes()],
    check,
};

/// Panics when a promise is broken.
pub fn check(input: &[u8]) -> super::Ending {
    let text = String::from_utf8_lossy(input);
    let mut lines = text.lines();
    let asked = lines.next().unwrap_or_default();
    let certificates: Vec<Vec<&str>> = lines.map(|line| line.split_whitespace().collect()).collect();
    let mut names = Names::default();
    for (place, certificate) in certificates.iter().enumerate() {
        names.add(place, certificate.iter().copied());
    }
    let all: Vec<usize> = (0..certificates.len()).collect();
    assert!(names.candidates(None).eq(&all), "without a name, all in order");
    let found: Vec<usize> = names.candidates(Some(asked)).copied().collect();
    assert!(found.ends_with(&all), "everybody is asked in the end");
    let lower = asked.to_ascii_lowercase();
    let carries =
        |place: usize, wanted: &str| certificates[place].iter().any(|name| name.to_ascii_lowercase() == wanted);
    let wildcard = lower.split_once('.').map(|(_, parent)| format!("*.{parent}"));
    let exact: Vec<usize> = all.iter().copied().filter(|place| carries(*place, &lower)).collect();
    let wild: Vec<usize> =
        all.iter().copied().filter(|place| wildcard.as_ref().is_some_and(|name| carries(*place, name))).collect();
    // A name that begins with an asterisk is nobody's name.
    if lower.starts_with("*.") {
        return "asks for a wildcard";
    }
    assert_eq!(found, [exact.as_slice(), &wild, &all].concat());
    match (exact.is_empty(), wild.is_empty()) {
        (false, _) => "exact",
        (true, false) => "wildcard",
        (true, true) if certificates.is_empty() => "nobody",
        (true, true) => "first",
    }
}

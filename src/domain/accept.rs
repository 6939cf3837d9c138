//! What a client would like to get: `Accept` and `Accept-Language`, read as RFC 9110 section 12.5 has it.

/// More items than any client sends; what comes after them is not read.
const ITEMS_MAX: usize = 64;

/// One item of the list: a media range or language range and how much it is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Item<'a> {
    range: &'a str,
    /// Thousandths, 0 is "never".
    quality: u16,
    position: usize,
}

fn items(field: &[u8]) -> impl Iterator<Item = Item<'_>> {
    // A field that is not text names nothing that we could offer.
    let field = std::str::from_utf8(field).unwrap_or("");
    field.split(',').take(ITEMS_MAX).enumerate().filter_map(|(position, item)| {
        let mut parts = item.split(';').map(str::trim);
        let range = parts.next().filter(|range| !range.is_empty())?;
        let quality = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
        Some(Item { range, quality: quality.map_or(1000, thousandths), position })
    })
}

/// `0.85` as 850. What is no quality value counts as 1: the client did name the item.
fn thousandths(quality: &str) -> u16 {
    match quality.parse::<f32>() {
        Ok(share) if (0.0..=1.0).contains(&share) => (share * 1000.0).round() as u16,
        _ => 1000,
    }
}

/// The item a client wants most: highest quality, first of equals, as written. `None` if the list is empty or excludes
/// everything it names.
pub fn preferred(accept: &[u8]) -> Option<&str> {
    let mut best: Option<Item<'_>> = None;
    for item in items(accept).filter(|item| item.quality > 0) {
        if best.is_none_or(|best| item.quality > best.quality) {
            best = Some(item);
        }
    }
    best.map(|item| item.range)
}

/// Whether the list names `media_type` itself (ranges such as `*/*` do not count) and does not exclude it.
pub fn names(accept: &[u8], media_type: &str) -> bool {
    items(accept).any(|item| item.quality > 0 && item.range.eq_ignore_ascii_case(media_type))
}

/// Which of `offers` (media types, the router's favourite first) suits best: the highest quality, then the one that the
/// client named earlier, then the earlier offer. The first offer if nothing matches: an answer in the wrong form is
/// better than none.
pub fn choose(accept: &[u8], offers: &[&str]) -> usize {
    let rank = |offer: &str| {
        let matching = items(accept).filter_map(|item| Some((specificity(item.range, offer)?, item)));
        let (_, item) = matching.max_by_key(|(specificity, item)| (*specificity, usize::MAX - item.position))?;
        (item.quality > 0).then_some((item.quality, usize::MAX - item.position))
    };
    let ranked = offers.iter().enumerate().filter_map(|(index, offer)| Some((rank(offer)?, usize::MAX - index)));
    ranked.max().map_or(0, |(_, index)| usize::MAX - index)
}

/// How closely a media range describes `media_type`: `*/*` 0, `text/*` 1, the type itself 2.
fn specificity(range: &str, media_type: &str) -> Option<u8> {
    if range.eq_ignore_ascii_case(media_type) {
        return Some(2);
    }
    let (kind, rest) = range.split_once('/')?;
    let (wanted, _) = media_type.split_once('/')?;
    match (kind, rest) {
        ("*", "*") => Some(0),
        (kind, "*") if kind.eq_ignore_ascii_case(wanted) => Some(1),
        // Whoever reads a format that is made of JSON reads JSON.
        (_, made) if media_type == "application/json" && made.to_ascii_lowercase().ends_with("+json") => Some(1),
        _ => None,
    }
}

/// Which of `offers` (primary language tags in lower case, the default first) the client reads best.
pub fn language<'a>(accept_language: &[u8], offers: &[&'a str]) -> Option<&'a str> {
    let mut best: Option<(u16, &'a str)> = None;
    for item in items(accept_language).filter(|item| item.quality > 0) {
        let primary = item.range.split('-').next().unwrap_or(item.range);
        let offer = match primary {
            "*" => offers.first(),
            tag => offers.iter().find(|offer| offer.eq_ignore_ascii_case(tag)),
        };
        if let Some(offer) = offer
            && best.is_none_or(|(quality, _)| item.quality > quality)
        {
            best = Some((item.quality, offer));
        }
    }
    best.map(|(_, offer)| offer)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BROWSER: &[u8] = b"text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8";

    #[track_caller]
    fn check_choice(accept: &[u8], expected: &str) {
        let offers = ["text/plain", "application/json", "text/html"];
        assert_eq!(offers[choose(accept, &offers)], expected, "{}", String::from_utf8_lossy(accept));
    }

    #[test]
    fn the_most_wanted_offer_is_chosen() {
        check_choice(b"", "text/plain");
        check_choice(b"*/*", "text/plain");
        check_choice(BROWSER, "text/html");
        check_choice(b"application/json", "application/json");
        check_choice(b"application/json, text/plain, */*", "application/json");
        check_choice(b"text/plain;q=0.5, application/json;q=0.9", "application/json");
        check_choice(b"application/*;q=0.4, text/*;q=0.1", "application/json");
        check_choice(b"text/plain;q=0, */*", "application/json");
        check_choice(b"image/png", "text/plain");
        check_choice(b"\xff\xfe", "text/plain");
    }

    #[test]
    fn the_first_of_the_most_wanted_is_preferred() {
        assert_eq!(preferred(BROWSER), Some("text/html"));
        assert_eq!(preferred(b"application/json, text/html"), Some("application/json"));
        assert_eq!(preferred(b"application/json;q=0.3, text/html;q=0.4"), Some("text/html"));
        assert_eq!(preferred(b" , ;q=1,"), None);
        assert_eq!(preferred(b"text/html;q=0"), None);
    }

    #[test]
    fn a_range_is_not_a_name() {
        assert!(names(b"a/b, Text/HTML;q=0.1", "text/html"));
        assert!(!names(b"*/*, text/*", "text/html"));
        assert!(!names(b"text/html;q=0.000", "text/html"));
    }

    #[test]
    fn languages_match_by_their_first_part() {
        let of = |field: &[u8]| language(field, &["en", "zh"]);
        assert_eq!(of(b"zh-CN,zh;q=0.9,en;q=0.8"), Some("zh"));
        assert_eq!(of(b"de-DE,de;q=0.9,en-US;q=0.8,zh;q=0.7"), Some("en"));
        assert_eq!(of(b"de,*;q=0.1"), Some("en"));
        assert_eq!(of(b"de"), None);
        assert_eq!(of(b"en;q=0,ZH-hant;q=0.2"), Some("zh"));
    }
}

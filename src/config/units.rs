//! Durations and sizes as operators write them.

use std::time::Duration;

/// Reads `"500ms"`, `"30s"`, `"1.5h"`, `"1m30s"`; a bare `"0"` needs no unit.
///
/// # Errors
/// The end of a sentence that begins with the text.
pub fn duration(text: &str) -> Result<Duration, String> {
    let mut rest = text.trim();
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    let mut nanos: u128 = 0;
    let not_one = || "is not a duration; write a number with a unit, such as \"500ms\", \"30s\" or \"1h\"".to_string();
    if rest.is_empty() {
        return Err(not_one());
    }
    while !rest.is_empty() {
        let (number, after) = split_number(rest).ok_or_else(not_one)?;
        let unit_end = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let unit: u128 = match after[..unit_end].trim() {
            "ns" => 1,
            "us" | "µs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            "d" => 86_400_000_000_000,
            "" => return Err("has no unit; write ms, s, m or h behind the number".into()),
            _ => return Err(not_one()),
        };
        nanos = nanos.saturating_add(number.times(unit));
        rest = &after[unit_end..];
    }
    let seconds = u64::try_from(nanos / 1_000_000_000).map_err(|_| "is too long".to_string())?;
    Ok(Duration::new(seconds, (nanos % 1_000_000_000) as u32))
}

/// A duration in its largest unit that needs no fraction, as `duration` reads it.
pub(super) fn spoken(duration: Duration) -> String {
    const UNITS: &[(u128, &str)] = &[(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s")];
    let millis = duration.as_millis();
    let unit = UNITS.iter().find(|(unit, _)| millis > 0 && millis.is_multiple_of(*unit));
    unit.map_or(format!("{millis}ms"), |(unit, name)| format!("{}{name}", millis / unit))
}

/// Reads `"64KiB"`, `"10MB"`, `"512B"` or plain bytes.
///
/// # Errors
/// The end of a sentence that begins with the text.
pub fn size(text: &str) -> Result<u64, String> {
    let not_one =
        || "is not a size; write bytes or a number with a unit, such as 65536, \"64KiB\" or \"10MB\"".to_string();
    let (number, unit) = split_number(text.trim()).ok_or_else(not_one)?;
    let unit: u128 = match unit.trim() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        _ => return Err(not_one()),
    };
    u64::try_from(number.times(unit)).map_err(|_| "is too large".to_string())
}

/// A decimal number, exact: `digits / 10^places`.
struct Decimal {
    digits: u128,
    places: u32,
}

impl Decimal {
    fn times(&self, unit: u128) -> u128 {
        self.digits.saturating_mul(unit) / 10u128.pow(self.places)
    }
}

/// Splits a decimal number of at most 20 digits (9 of them behind the point) from the front.
fn split_number(text: &str) -> Option<(Decimal, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, rest) = text.split_at(end);
    let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
    if whole.is_empty() || part.is_empty() || part.contains('.') || whole.len() > 20 || part.len() > 9 {
        return None;
    }
    let digits = format!("{whole}{part}").parse().ok()?;
    Some((Decimal { digits, places: part.len() as u32 }, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_numbers_with_units() {
        let ms = Duration::from_millis;
        for (text, expected) in [
            ("500ms", ms(500)),
            ("30s", ms(30_000)),
            ("1.5h", ms(5_400_000)),
            ("1m30s", ms(90_000)),
            (" 2 m ", ms(120_000)),
            ("1d", ms(86_400_000)),
            ("0.25s", ms(250)),
            ("10us", Duration::from_micros(10)),
            ("0", ms(0)),
            ("0s", ms(0)),
        ] {
            assert_eq!(duration(text), Ok(expected), "{text}");
        }
        for text in ["", "s", "30", "-1s", "1 parsec", "1..5s", "1.s", ".5s", "1e3s", "ten", "30s!", "٣s"] {
            assert!(duration(text).is_err(), "{text}");
        }
        assert_eq!(duration("30").unwrap_err(), "has no unit; write ms, s, m or h behind the number");
        assert_eq!(duration("99999999999999999999d").unwrap_err(), "is too long");
    }

    #[test]
    fn sizes_are_bytes_or_numbers_with_units() {
        for (text, expected) in
            [("0", 0), ("65536", 65_536), ("64KiB", 65_536), ("1.5 MiB", 1_572_864), ("10MB", 10_000_000), ("1B", 1)]
        {
            assert_eq!(size(text), Ok(expected), "{text}");
        }
        for text in ["", "64k", "-1", "KiB", "1 2", "1..0KiB"] {
            assert!(size(text).is_err(), "{text}");
        }
        assert_eq!(size("99999999999999999999GiB").unwrap_err(), "is too large");
    }
}

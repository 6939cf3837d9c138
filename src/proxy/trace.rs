//! Which trace a request belongs to: W3C Trace Context (level 1) and B3. A trace that comes is kept, with a span of ours
//! between the client's and the instance's; one that is absent or malformed is replaced by a new one.

use super::ids;
use crate::config::TracingConfig;
use crate::http1::{Head, Name, NameSet, Refusal};

/// Length of a `traceparent` of version 00.
const TRACEPARENT: usize = 55;

/// Traces that begin here are recorded, as with gorouter: where an instance follows its parent's decision, "not sampled"
/// would silence it for good.
const SAMPLED: [u8; 2] = *b"01";

type Trace = [u8; 32];
type Span = [u8; 16];

/// Says in `head` that the span of ours, made of the random bits `span`, is the parent of whatever the instance does. A
/// new trace is named after the request: its id without the hyphens.
///
/// # Errors
/// When the head becomes too large by what is added.
pub fn pass_on(head: &mut Head, on: &TracingConfig, request_id: &[u8; 36], span: u64) -> Result<(), Refusal> {
    if !on.w3c && !on.b3 {
        return Ok(());
    }
    let w3c = if on.w3c { single(head, Name::Traceparent).and_then(parse_traceparent) } else { None };
    let b3 = if on.b3 { parse_b3(head) } else { B3::default() };
    let span = ids::hex(span.max(1));
    let known = w3c.map(|(trace, _)| trace).or(b3.ids.map(|ids| ids.trace));
    let trace = known.unwrap_or_else(|| ids::digits(request_id));
    if on.w3c {
        if w3c.is_none() {
            head.remove(Name::Tracestate);
        }
        let flags = w3c.map_or(SAMPLED, |(_, flags)| flags);
        head.remove(Name::Traceparent);
        head.push_fixed(Name::Traceparent, &traceparent(&trace, &span, flags))?;
    }
    if on.b3 { write_b3(head, &b3, trace, &span) } else { Ok(()) }
}

/// Trace and flags of a `traceparent`, if it is valid. Of later versions only what version 00 has is read, as the
/// specification asks.
fn parse_traceparent(value: &[u8]) -> Option<(Trace, [u8; 2])> {
    let (head, rest) = value.split_at_checked(TRACEPARENT)?;
    let &[v1, v2, b'-', ref ids @ .., b'-', f1, f2] = head else { return None };
    let (trace, span) = (ids.get(..32)?, ids.get(33..)?);
    let version = [v1, v2];
    let fits = match &version {
        b"00" => rest.is_empty(),
        b"ff" => false,
        _ => rest.is_empty() || rest[0] == b'-',
    };
    if !fits || ids[32] != b'-' || !is_hex(&version) || !is_id(trace) || !is_id(span) || !is_hex(&[f1, f2]) {
        return None;
    }
    // Bits that this version does not know must not be passed on.
    let sampled = if matches!(f2, b'1' | b'3' | b'5' | b'7' | b'9' | b'b' | b'd' | b'f') { b'1' } else { b'0' };
    Some((trace.try_into().ok()?, [b'0', sampled]))
}

fn traceparent(trace: &Trace, span: &Span, flags: [u8; 2]) -> [u8; TRACEPARENT] {
    let mut value = *b"00-00000000000000000000000000000000-0000000000000000-00";
    value[3..35].copy_from_slice(trace);
    value[36..52].copy_from_slice(span);
    value[53..].copy_from_slice(&flags);
    value
}

/// What B3 fields say. Decision and ids are independent: `b3: 0` is a decision alone.
#[derive(Clone, Copy, Default)]
struct B3 {
    ids: Option<B3Ids>,
    decision: Option<Decision>,
}

#[derive(Clone, Copy)]
struct B3Ids {
    /// 64-bit ones are filled up with zeros on the left.
    trace: Trace,
    is_short: bool,
    span: Span,
}

#[derive(Clone, Copy)]
enum Decision {
    Deny,
    Accept,
    Debug,
}

impl Decision {
    fn of(text: &[u8]) -> Option<Decision> {
        match text {
            b"0" | b"false" => Some(Decision::Deny),
            b"1" | b"true" => Some(Decision::Accept),
            b"d" => Some(Decision::Debug),
            _ => None,
        }
    }
}

impl B3Ids {
    fn of(trace: &[u8], span: &[u8]) -> Option<B3Ids> {
        if !is_id(trace) || !is_id(span) || !matches!(trace.len(), 16 | 32) {
            return None;
        }
        let mut filled = [b'0'; 32];
        filled[32 - trace.len()..].copy_from_slice(trace);
        Some(B3Ids { trace: filled, is_short: trace.len() == 16, span: span.try_into().ok()? })
    }
}

/// The single field counts before the several ones.
#[inline(never)] // off, with most
fn parse_b3(head: &Head) -> B3 {
    if let Some(value) = single(head, Name::B3) {
        let mut parts = value.split(|&byte| byte == b'-');
        let (first, second) = (parts.next().unwrap_or_default(), parts.next());
        let Some(span) = second else { return B3 { ids: None, decision: Decision::of(first) } };
        let ids = B3Ids::of(first, span);
        let decision = parts.next().and_then(Decision::of);
        return B3 { ids, decision: ids.and(decision) };
    }
    let value = |name| single(head, name).unwrap_or_default();
    let decision = match value(Name::XB3Flags) {
        b"1" => Some(Decision::Debug),
        _ => Decision::of(value(Name::XB3Sampled)),
    };
    B3 { ids: B3Ids::of(value(Name::XB3TraceId), value(Name::XB3SpanId)), decision }
}

/// Writes both forms, so that an instance finds the one it reads.
#[inline(never)] // as `parse_b3`
fn write_b3(head: &mut Head, came: &B3, trace: Trace, span: &Span) -> Result<(), Refusal> {
    const ALL: NameSet = NameSet::of(&[
        Name::B3,
        Name::XB3TraceId,
        Name::XB3SpanId,
        Name::XB3ParentSpanId,
        Name::XB3Sampled,
        Name::XB3Flags,
    ]);
    head.remove_all(ALL);
    let trace = match &came.ids {
        Some(ids) if ids.is_short => &ids.trace[16..],
        Some(ids) => &ids.trace[..],
        None => &trace[..],
    };
    let mut joined = [trace, span].join(&b'-');
    head.push_known(Name::XB3TraceId, trace)?;
    head.push_known(Name::XB3SpanId, span)?;
    if let Some(parent) = came.ids.map(|ids| ids.span) {
        head.push_known(Name::XB3ParentSpanId, &parent)?;
    }
    if let Some(decision) = came.decision {
        joined.extend_from_slice(match decision {
            Decision::Deny => b"-0",
            Decision::Accept => b"-1",
            Decision::Debug => b"-d",
        });
        match decision {
            Decision::Deny => head.push_known(Name::XB3Sampled, b"0")?,
            Decision::Accept => head.push_known(Name::XB3Sampled, b"1")?,
            Decision::Debug => head.push_known(Name::XB3Flags, b"1")?,
        }
        if let Some(parent) = came.ids.map(|ids| ids.span) {
            joined.push(b'-');
            joined.extend_from_slice(&parent);
        }
    }
    head.push_known(Name::B3, &joined)
}

/// The value of a field that is there once: of several, nobody knows which one is meant.
fn single(head: &Head, name: Name) -> Option<&[u8]> {
    if head.repeats(name) { None } else { head.value(name) }
}

fn is_hex(text: &[u8]) -> bool {
    text.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Ids of zeros alone mean that there is none.
fn is_id(text: &[u8]) -> bool {
    is_hex(text) && text.iter().any(|byte| *byte != b'0')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const REQUEST_ID: &[u8; 36] = b"11111111-2222-4333-8444-555555555555";
    const NEW: &str = "traceparent: 00-11111111222243338444555555555555-00000000000000ff-01";
    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

    fn passed_on(fields: &[(&str, &str)], w3c: bool, b3: bool) -> String {
        let mut head = Head::new();
        for (name, value) in fields {
            head.push(name, value.as_bytes()).expect("a plain field");
        }
        pass_on(&mut head, &TracingConfig { w3c, b3 }, REQUEST_ID, 255).expect("small enough");
        let line = |field: crate::http1::Field<'_>| {
            format!("{}: {}", String::from_utf8_lossy(field.name), String::from_utf8_lossy(field.value))
        };
        head.fields().map(line).collect::<Vec<_>>().join("\n")
    }

    #[track_caller]
    fn check_w3c(traceparent: &str, expected: &str) {
        assert_eq!(passed_on(&[("traceparent", traceparent)], true, false), expected, "{traceparent}");
    }

    #[test]
    fn a_valid_traceparent_keeps_its_trace_and_gets_a_span_of_ours() {
        let kept = |flags| format!("traceparent: 00-{TRACE}-00000000000000ff-{flags}");
        check_w3c(&format!("00-{TRACE}-b7ad6b7169203331-01"), &kept("01"));
        check_w3c(&format!("00-{TRACE}-b7ad6b7169203331-00"), &kept("00"));
        check_w3c(&format!("00-{TRACE}-b7ad6b7169203331-ff"), &kept("01"));
        check_w3c(&format!("cc-{TRACE}-b7ad6b7169203331-01"), &kept("01"));
        check_w3c(&format!("cc-{TRACE}-b7ad6b7169203331-01-what-comes"), &kept("01"));
        let state = [("traceparent", &*format!("00-{TRACE}-b7ad6b7169203331-01")), ("tracestate", "a=1,b=2")];
        assert_eq!(passed_on(&state, true, false), format!("tracestate: a=1,b=2\n{}", kept("01")));
    }

    #[test]
    fn a_traceparent_that_is_absent_or_malformed_is_replaced_with_its_state() {
        assert_eq!(passed_on(&[("tracestate", "a=1")], true, false), NEW);
        check_w3c("", NEW);
        check_w3c(&format!("00-{TRACE}-b7ad6b7169203331-01-more"), NEW);
        check_w3c(&format!("ff-{TRACE}-b7ad6b7169203331-01"), NEW);
        check_w3c(&format!("cc-{TRACE}-b7ad6b7169203331-01.more"), NEW);
        check_w3c(&format!("00-{}-b7ad6b7169203331-01", TRACE.to_uppercase()), NEW);
        check_w3c(&format!("00-{TRACE}-0000000000000000-01"), NEW);
        check_w3c("00-00000000000000000000000000000000-b7ad6b7169203331-01", NEW);
        check_w3c(&format!("00-{TRACE}-b7ad6b7169203331-0x"), NEW);
        check_w3c(&format!("00-{TRACE}_b7ad6b7169203331-01"), NEW);
        let twice = format!("00-{TRACE}-b7ad6b7169203331-01");
        assert_eq!(passed_on(&[("traceparent", &twice), ("traceparent", &twice)], true, false), NEW);
    }

    #[test]
    fn where_tracing_is_off_nothing_is_touched() {
        assert_eq!(passed_on(&[("traceparent", "x"), ("b3", "y")], false, false), "traceparent: x\nb3: y");
    }

    #[test]
    fn b3_keeps_its_trace_in_either_form_and_says_it_in_both() {
        let span = "b7ad6b7169203331";
        let both = |trace: &str, decision: &str, letter: &str| {
            format!(
                "X-B3-TraceId: {trace}\nX-B3-SpanId: 00000000000000ff\nX-B3-ParentSpanId: {span}\n{decision}\n\
                 b3: {trace}-00000000000000ff-{letter}-{span}"
            )
        };
        let one = |value: &str| passed_on(&[("b3", value)], false, true);
        assert_eq!(one(&format!("{TRACE}-{span}-1")), both(TRACE, "X-B3-Sampled: 1", "1"));
        assert_eq!(one(&format!("{span}-{span}-d-{span}")), both(span, "X-B3-Flags: 1", "d"));
        let several = [("X-B3-TraceId", TRACE), ("X-B3-SpanId", span), ("X-B3-Sampled", "0")];
        assert_eq!(passed_on(&several, false, true), both(TRACE, "X-B3-Sampled: 0", "0"));
    }

    #[test]
    fn b3_that_is_absent_or_malformed_begins_a_new_trace() {
        let trace = "11111111222243338444555555555555";
        let new = format!("X-B3-TraceId: {trace}\nX-B3-SpanId: 00000000000000ff\nb3: {trace}-00000000000000ff");
        assert_eq!(passed_on(&[], false, true), new);
        assert_eq!(passed_on(&[("b3", "what-is-this")], false, true), new);
        assert_eq!(passed_on(&[("X-B3-TraceId", TRACE)], false, true), new);
        let denied = passed_on(&[("b3", "0")], false, true);
        assert!(denied.contains("X-B3-Sampled: 0") && denied.ends_with("ff-0"), "{denied}");
    }

    #[test]
    fn both_kinds_tell_of_one_trace() {
        let told = passed_on(&[("traceparent", &format!("00-{TRACE}-b7ad6b7169203331-01"))], true, true);
        assert!(told.contains(&format!("X-B3-TraceId: {TRACE}")), "{told}");
        let told = passed_on(&[("b3", "b7ad6b7169203331-b7ad6b7169203331")], true, true);
        assert!(told.contains("traceparent: 00-0000000000000000b7ad6b7169203331-00000000000000ff-01"), "{told}");
    }

    proptest! {
        #[test]
        fn whatever_comes_a_valid_traceparent_goes(value in "(00|cc)-[0-9a-f]{30,33}-[0-9a-f]{15,17}-[0-9a-g]{2}(-.{0,3})?") {
            let mut head = Head::new();
            if head.push("traceparent", value.as_bytes()).is_ok() {
                pass_on(&mut head, &TracingConfig { w3c: true, b3: false }, REQUEST_ID, 0).expect("small enough");
                prop_assert!(parse_traceparent(head.value(Name::Traceparent).unwrap_or_default()).is_some());
            }
        }
    }
}

//! Messages as they are written, before anything is proven: shapes for serde, and the way from bytes to them.
//!
//! What is decided here, for all messages: an optional key that is `null` is missing; a known key given twice refuses the
//! message; unknown keys are skipped whatever they hold (without recursion, so depth is no danger); one wrong type refuses
//! the whole.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use arcstr::ArcStr;
use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::rejection::{MESSAGE_BYTES_MAX, Reason, Rejection, TAGS_MAX, TEXT_BYTES_MAX};
use crate::domain::load::{Share, Usage};
use crate::domain::tags::Tags;

/// Reads one JSON object.
pub(super) fn read<'a, T: Deserialize<'a>>(payload: &'a [u8]) -> Result<T, Rejection> {
    if payload.len() > MESSAGE_BYTES_MAX {
        let sentence = format!("the message has {} bytes, more than {MESSAGE_BYTES_MAX}", payload.len());
        return Err(Rejection::new(Reason::TooLarge, sentence));
    }
    let text = str::from_utf8(payload).map_err(|error| Rejection::new(Reason::NotUtf8, error.to_string()))?;
    // serde would take an array for a struct.
    if !text.trim_start_matches([' ', '\t', '\r', '\n']).starts_with('{') {
        return Err(Rejection::new(Reason::NotJson, "the message is not a JSON object"));
    }
    serde_json::from_str(text).map_err(|error| {
        let sentence = error.to_string();
        let reason = match error.classify() {
            serde_json::error::Category::Data if sentence.starts_with("duplicate field") => Reason::DuplicateKey,
            serde_json::error::Category::Data => Reason::WrongType,
            _ => Reason::NotJson,
        };
        Rejection::new(reason, sentence)
    })
}

/// Writes one JSON object.
pub(super) fn write<T: Serialize>(message: &T) -> Vec<u8> {
    serde_json::to_vec(message).expect("texts, numbers and maps with text keys can always be written")
}

/// A text, borrowed from the message where it needs no unescaping.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(transparent)]
pub(super) struct Text<'a>(pub Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Text<'a>, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(Reader)
    }
}

impl<'a> From<&'a str> for Text<'a> {
    fn from(text: &'a str) -> Text<'a> {
        Text(Cow::Borrowed(text))
    }
}

/// `Some` unless empty: in these messages an empty text says no more than a missing one.
pub(super) fn said(text: &str) -> Option<Text<'_>> {
    (!text.is_empty()).then(|| text.into())
}

/// The text of an identifier or the like, empty if missing.
///
/// # Errors
/// `too_large`, or `bad_text` for control characters: these texts end up in headers, cookies and logs.
pub(super) fn plain<'a>(key: &str, text: &'a Option<Text<'_>>) -> Result<&'a str, Rejection> {
    let text = text.as_ref().map_or("", |text| &*text.0);
    if text.len() > TEXT_BYTES_MAX {
        return Err(Rejection::new(Reason::TooLarge, format!("{key} has more than {TEXT_BYTES_MAX} bytes")));
    }
    if text.bytes().any(|byte| byte < b' ' || byte == 0x7f) {
        return Err(Rejection::new(Reason::BadText, format!("{key} has a control character: {text:?}")));
    }
    Ok(text)
}

/// The same, to keep.
pub(super) fn shared(key: &str, text: &Option<Text<'_>>) -> Result<ArcStr, Rejection> {
    plain(key, text).map(ArcStr::from)
}

/// Tags as written; a key given twice refuses the message.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(transparent)]
pub(super) struct WireTags<'a>(pub BTreeMap<Cow<'a, str>, Text<'a>>);

impl<'de: 'a, 'a> Deserialize<'de> for WireTags<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<WireTags<'a>, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = WireTags<'de>;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an object of strings")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<WireTags<'de>, M::Error> {
                let mut tags = BTreeMap::new();
                while let Some((key, value)) = map.next_entry::<Text, Text>()? {
                    if let Some(_earlier) = tags.insert(key.0.clone(), value) {
                        return Err(de::Error::custom(format_args!("duplicate field `{}` in tags", key.0)));
                    }
                }
                Ok(WireTags(tags))
            }
        }
        deserializer.deserialize_map(Reader)
    }
}

/// Tags as written → as meant.
pub(super) fn tags(tags: &Option<WireTags<'_>>) -> Result<Tags, Rejection> {
    let Some(WireTags(tags)) = tags else { return Ok(Tags::default()) };
    if tags.len() > TAGS_MAX {
        return Err(Rejection::new(Reason::TooLarge, format!("{} tags, more than {TAGS_MAX}", tags.len())));
    }
    if let Some((key, _)) = tags.iter().find(|(key, value)| key.len().max(value.0.len()) > TEXT_BYTES_MAX) {
        let key: String = key.chars().take(64).collect();
        return Err(Rejection::new(Reason::TooLarge, format!("tag {key:?} has more than {TEXT_BYTES_MAX} bytes")));
    }
    Ok(Tags::new(tags.iter().map(|(key, value)| (&**key, &*value.0))))
}

/// Tags as meant → as written.
pub(super) fn wire_tags(tags: &Tags) -> Option<WireTags<'_>> {
    (!tags.is_empty()).then(|| WireTags(tags.iter().map(|(key, value)| (Cow::Borrowed(key), value.into())).collect()))
}

/// Usage as written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize, Serialize)]
pub(super) struct WireUsage {
    #[serde(skip_serializing_if = "Option::is_none")]
    cpu: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mem: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    io: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    net: Option<f64>,
}

/// Usage as written → as meant.
///
/// # Errors
/// `load_out_of_range` for 1.5 and more: somebody sends percent.
pub(super) fn usage(of: &str, wire: &Option<WireUsage>) -> Result<Usage, Rejection> {
    let share = |key: &str, number: Option<f64>| match number {
        None => Ok(None),
        Some(number) => match Share::reported(number) {
            Some(share) => Ok(Some(share)),
            None => {
                Err(Rejection::new(Reason::LoadOutOfRange, format!("{key} of the {of} is {number}, not a share of 1")))
            }
        },
    };
    let wire = wire.unwrap_or_default();
    Ok(Usage {
        cpu: share("cpu", wire.cpu)?,
        mem: share("mem", wire.mem)?,
        io: share("io", wire.io)?,
        net: share("net", wire.net)?,
    })
}

/// Usage as meant → as written.
pub(super) fn wire_usage(usage: &Usage) -> Option<WireUsage> {
    let number = |share: Option<Share>| share.map(|share| f64::from(share.get()));
    let wire =
        WireUsage { cpu: number(usage.cpu), mem: number(usage.mem), io: number(usage.io), net: number(usage.net) };
    (!usage.is_unknown()).then_some(wire)
}

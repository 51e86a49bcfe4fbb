//! Some members of a JSON object, as they are written in the text.
//!
//! As text, not as values: converting a number to a machine type loses what was written, and serde
//! does not zero the copies that it makes. With a visitor written by hand, because `derive` would add
//! six crates for the sake of four members.

use std::fmt;

use serde_core::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::{error::Category, value::RawValue};

/// Why no members could be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::sources) enum Fault {
    /// It ends too early, or is empty.
    Incomplete,
    NotJson,
    /// JSON, but not an object.
    NotObject,
    /// A member that was asked for appears more than once: others may read a different one.
    Repeated,
}

/// The members with these names, in this order; `null` counts as absent.
pub(in crate::sources) fn members<'a, const N: usize>(
    json: &'a [u8],
    names: [&str; N],
) -> Result<[Option<&'a str>; N], Fault> {
    let mut json = serde_json::Deserializer::from_slice(json);
    let Found { values, repeated } = Wanted(names)
        .deserialize(&mut json)
        .and_then(|found| json.end().map(|()| found))
        .map_err(|error| match error.classify() {
            Category::Eof => Fault::Incomplete,
            Category::Syntax => Fault::NotJson,
            Category::Data | Category::Io => Fault::NotObject,
        })?;
    if repeated {
        return Err(Fault::Repeated);
    }
    Ok(values.map(|value| value.map(RawValue::get).filter(|text| *text != "null")))
}

struct Wanted<'n, const N: usize>([&'n str; N]);

struct Found<'a, const N: usize> {
    values: [Option<&'a RawValue>; N],
    repeated: bool,
}

impl<'de, const N: usize> DeserializeSeed<'de> for Wanted<'_, N> {
    type Value = Found<'de, N>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de, const N: usize> Visitor<'de> for Wanted<'_, N> {
    type Value = Found<'de, N>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Self::Value, A::Error> {
        let mut found = Found {
            values: [None; N],
            repeated: false,
        };
        while let Some(place) = object.next_key_seed(Name(&self.0))? {
            match place.and_then(|place| found.values.get_mut(place)) {
                Some(value) => found.repeated |= value.replace(object.next_value()?).is_some(),
                None => drop(object.next_value::<IgnoredAny>()?),
            }
        }
        Ok(found)
    }
}

/// Finds out which of these names a key is.
struct Name<'n>(&'n [&'n str]);

impl<'de> DeserializeSeed<'de> for Name<'_> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_identifier(self)
    }
}

impl Visitor<'_> for Name<'_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.0.iter().position(|wanted| *wanted == name))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(json: &str) -> Result<[Option<&str>; 2], Fault> {
        members(json.as_bytes(), ["a", "b"])
    }

    #[test]
    fn members_are_found_as_they_stand() {
        for (json, found) in [
            ("{}", [None, None]),
            (
                r#" { "b" : 1.50 , "a":"x\u0041" } "#,
                [Some(r#""x\u0041""#), Some("1.50")],
            ),
            (
                r#"{"\u0061":[1, {"a":2}],"c":{"b":1}}"#,
                [Some(r#"[1, {"a":2}]"#), None],
            ),
            (r#"{"a":null,"b":false,"c":1,"c":2}"#, [None, Some("false")]),
            (r#"{"A":1," b":2,"":3}"#, [None, None]),
        ] {
            assert_eq!(of(json), Ok(found), "{json}");
        }
    }

    #[test]
    fn what_has_no_members_is_a_fault() {
        for (json, fault) in [
            ("", Fault::Incomplete),
            (" ", Fault::Incomplete),
            (r#"{"a":1"#, Fault::Incomplete),
            ("{} {}", Fault::NotJson),
            ("{a:1}", Fault::NotJson),
            ("{1:1}", Fault::NotJson),
            (r#"{"a":1,}"#, Fault::NotJson),
            (r#"{"a":01}"#, Fault::NotJson),
            ("\u{feff}{}", Fault::NotJson),
            ("[]", Fault::NotObject),
            (r#"[1,2]"#, Fault::NotObject),
            ("null", Fault::NotObject),
            (r#""a""#, Fault::NotObject),
            (r#"{"a":1,"a":1}"#, Fault::Repeated),
            (r#"{"b":null,"a":1,"\u0062":1}"#, Fault::Repeated),
        ] {
            assert_eq!(of(json), Err(fault), "{json}");
        }
        assert_eq!(
            members(&[b'{', b'"', 0xff, b'"', b':', b'1', b'}'], ["a"]),
            Err(Fault::NotJson)
        );
    }

    proptest! {
        #[test]
        fn whatever_comes_is_members_or_a_fault(json in "\\PC{0,80}", tail in "[\\[\\]{}\":,ab0-9\\\\]{0,80}") {
            let _ = (of(&json), of(&tail), of(&format!("{{{tail}")));
        }

        #[test]
        fn a_value_comes_back_as_it_was_written(a in "[a-z0-9]{0,20}", b in 0_u64.., other in "[c-z]{1,5}") {
            let json = format!(r#"{{"{other}":"{a}","a":"{a}","b":{b}}}"#);
            let (a, b) = (format!("\"{a}\""), b.to_string());
            prop_assert_eq!(of(&json), Ok([Some(&*a), Some(&*b)]));
        }
    }
}

//! What a plain scalar is, by the core schema of YAML 1.2: `no`, `on`, `12:30` and `1_000` are texts.

use serde_json::Number;

/// A scalar's value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Scalar {
    Null,
    Bool(bool),
    Number(Number),
    Text,
    /// A number that JSON cannot hold, and why.
    Unusable(&'static str),
}

pub(super) fn read(text: &str) -> Scalar {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Scalar::Null,
        "true" | "True" | "TRUE" => Scalar::Bool(true),
        "false" | "False" | "FALSE" => Scalar::Bool(false),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "-.inf" | ".nan" | ".NaN" | ".NAN" => {
            Scalar::Unusable("a number must be finite")
        }
        _ => number(text),
    }
}

/// Whether a plain number is written with zeros before it, which some read as octal.
pub(super) fn has_leading_zero(text: &str) -> bool {
    let digits = text.trim_start_matches(['+', '-']);
    digits.len() > 1
        && digits.starts_with('0')
        && digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
        && digits.as_bytes()[1].is_ascii_digit()
}

fn number(text: &str) -> Scalar {
    let too_large = Scalar::Unusable("the number is too large");
    for (prefix, radix) in [("0x", 16), ("0o", 8)] {
        if let Some(digits) = text.strip_prefix(prefix)
            && !digits.is_empty()
            && digits.chars().all(|digit| digit.is_digit(radix))
        {
            return u64::from_str_radix(digits, radix)
                .map_or(too_large, |value| Scalar::Number(value.into()));
        }
    }
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    if !unsigned.is_empty() && unsigned.bytes().all(|byte| byte.is_ascii_digit()) {
        let plain = text.strip_prefix('+').unwrap_or(text);
        return plain
            .parse::<i64>()
            .map(Number::from)
            .or_else(|_| plain.parse::<u64>().map(Number::from))
            .map_or(too_large, Scalar::Number);
    }
    if is_float(unsigned) {
        return text.parse::<f64>().ok().and_then(Number::from_f64).map_or(too_large, Scalar::Number);
    }
    Scalar::Text
}

/// `(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?`
fn is_float(text: &str) -> bool {
    let (base, exponent) =
        text.find(['e', 'E']).map_or((text, None), |at| (&text[..at], Some(&text[at + 1..])));
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    let exponent_fits = exponent.is_none_or(|exponent| {
        let exponent = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
        !exponent.is_empty() && digits(exponent)
    });
    let base_fits = match base.split_once('.') {
        Some((whole, part)) => digits(whole) && digits(part) && !(whole.is_empty() && part.is_empty()),
        None => !base.is_empty() && digits(base),
    };
    exponent_fits && base_fits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_the_core_schema() {
        for text in ["no", "on", "yes", "12:30", "1_000", "0b1", "1e", ".", "-", "1.2.3", "e5", "2026-11-21"]
        {
            assert_eq!(read(text), Scalar::Text, "{text}");
        }
        for (text, value) in [("14", 14_i64), ("014", 14), ("+7", 7), ("-3", -3), ("0x1F", 31), ("0o17", 15)]
        {
            assert_eq!(read(text), Scalar::Number(value.into()), "{text}");
        }
        assert_eq!(read("18446744073709551615"), Scalar::Number(u64::MAX.into()));
        assert_eq!(read("1.5e3"), Scalar::Number(Number::from_f64(1500.0).unwrap()));
        assert_eq!(read("99999999999999999999"), Scalar::Unusable("the number is too large"));
        assert!(
            has_leading_zero("014")
                && has_leading_zero("-007")
                && !has_leading_zero("0")
                && !has_leading_zero("0.5")
        );
    }
}

//! The closed set of filters, tests and functions an expression may use. All of them are pure: there is no `now()`.

use std::net::Ipv4Addr;
use std::sync::LazyLock;

use minijinja::value::{Value, ValueKind};
use minijinja::{Environment, Error, ErrorKind, UndefinedBehavior, filters, functions, tests};
use sha2::{Digest, Sha256};
use url::{Host, Url};

use super::tracked::{maybe, to_json, to_text};
use crate::duration::Duration;
use crate::shell::quoted;

/// Every filter.
pub const FILTERS: &[&str] = &[
    "abs",
    "add_duration",
    "attr",
    "basename",
    "batch",
    "bool",
    "capitalize",
    "d",
    "default",
    "dictsort",
    "duration",
    "first",
    "float",
    "format_date",
    "groupby",
    "int",
    "items",
    "join",
    "last",
    "length",
    "lines",
    "list",
    "lower",
    "map",
    "max",
    "min",
    "quote",
    "reject",
    "rejectattr",
    "replace",
    "reverse",
    "round",
    "select",
    "selectattr",
    "sha256",
    "sort",
    "split",
    "string",
    "sum",
    "timestamp",
    "title",
    "to_json",
    "trim",
    "unique",
    "upper",
    "zip",
];

/// Every test, as in `value is NAME`.
pub const TESTS: &[&str] = &[
    "boolean",
    "defined",
    "divisibleby",
    "endingwith",
    "eq",
    "even",
    "false",
    "float",
    "ge",
    "gt",
    "in",
    "integer",
    "iterable",
    "le",
    "loopback",
    "lower",
    "lt",
    "mapping",
    "ne",
    "none",
    "number",
    "odd",
    "sequence",
    "startingwith",
    "string",
    "true",
    "undefined",
    "upper",
];

/// Every function.
pub const FUNCTIONS: &[&str] = &["dict", "range"];

/// What turns an operand of `~` into text; no author can write this name.
pub(super) const TEXT: &str = "__text";

/// What lets a chain of so many lookups come to nothing; no author can write this name.
pub(super) const MAYBE: &str = "__maybe";

/// The most work one expression may be: a loop over a list costs a unit an item.
const FUEL: u64 = 200_000;

/// The one environment: no templates, no loader, no `debug`.
pub(super) static ENVIRONMENT: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let mut env = Environment::empty();
    env.set_undefined_behavior(UndefinedBehavior::Strict);
    env.set_fuel(Some(FUEL));
    env.set_debug(false);
    builtin_filters(&mut env);
    own_filters(&mut env);
    builtin_tests(&mut env);
    env.add_global("null", ());
    env.add_function("range", functions::range);
    env.add_function("dict", functions::dict);
    env.add_function(TEXT, |value: &Value| to_text(value).map_err(refuse));
    env.add_function(MAYBE, |value: &Value, lookups: usize| maybe(value, lookups));
    env
});

fn builtin_filters(env: &mut Environment<'static>) {
    env.add_filter("abs", filters::abs);
    env.add_filter("attr", filters::attr);
    env.add_filter("batch", filters::batch);
    env.add_filter("bool", filters::bool);
    env.add_filter("capitalize", filters::capitalize);
    env.add_filter("d", filters::default);
    env.add_filter("default", filters::default);
    env.add_filter("dictsort", filters::dictsort);
    env.add_filter("first", filters::first);
    env.add_filter("float", filters::float);
    env.add_filter("groupby", filters::groupby);
    env.add_filter("int", filters::int);
    env.add_filter("items", filters::items);
    env.add_filter("last", filters::last);
    env.add_filter("length", filters::length);
    env.add_filter("lines", filters::lines);
    env.add_filter("list", filters::list);
    env.add_filter("lower", filters::lower);
    env.add_filter("map", filters::map);
    env.add_filter("max", filters::max);
    env.add_filter("min", filters::min);
    env.add_filter("reject", filters::reject);
    env.add_filter("rejectattr", filters::rejectattr);
    env.add_filter("replace", filters::replace);
    env.add_filter("reverse", filters::reverse);
    env.add_filter("round", filters::round);
    env.add_filter("select", filters::select);
    env.add_filter("selectattr", filters::selectattr);
    env.add_filter("sort", filters::sort);
    env.add_filter("split", filters::split);
    env.add_filter("sum", filters::sum);
    env.add_filter("title", filters::title);
    env.add_filter("trim", filters::trim);
    env.add_filter("unique", filters::unique);
    env.add_filter("upper", filters::upper);
    env.add_filter("zip", filters::zip);
}

fn builtin_tests(env: &mut Environment<'static>) {
    env.add_test("boolean", tests::is_boolean);
    env.add_test("defined", tests::is_defined);
    env.add_test("divisibleby", tests::is_divisibleby);
    env.add_test("endingwith", tests::is_endingwith);
    env.add_test("eq", tests::is_eq);
    env.add_test("even", tests::is_even);
    env.add_test("false", tests::is_false);
    env.add_test("float", tests::is_float);
    env.add_test("ge", tests::is_ge);
    env.add_test("gt", tests::is_gt);
    env.add_test("in", tests::is_in);
    env.add_test("integer", tests::is_integer);
    env.add_test("iterable", tests::is_iterable);
    env.add_test("le", tests::is_le);
    env.add_test("lower", tests::is_lower);
    env.add_test("lt", tests::is_lt);
    env.add_test("mapping", tests::is_mapping);
    env.add_test("ne", tests::is_ne);
    env.add_test("none", tests::is_none);
    env.add_test("number", tests::is_number);
    env.add_test("odd", tests::is_odd);
    env.add_test("sequence", tests::is_sequence);
    env.add_test("startingwith", tests::is_startingwith);
    env.add_test("string", tests::is_string);
    env.add_test("true", tests::is_true);
    env.add_test("undefined", tests::is_undefined);
    env.add_test("upper", tests::is_upper);
    env.add_test("loopback", loopback);
}

fn own_filters(env: &mut Environment<'static>) {
    env.add_filter("to_json", json);
    env.add_filter("sha256", sha256);
    env.add_filter("basename", basename);
    env.add_filter("quote", quote);
    env.add_filter("string", |value: &Value| to_text(value).map_err(refuse));
    env.add_filter("join", join);
    env.add_filter("duration", duration);
    env.add_filter("timestamp", timestamp);
    env.add_filter("format_date", format_date);
    env.add_filter("add_duration", add_duration);
}

fn refuse(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, message.into())
}

/// Compact JSON, or with line breaks when `indent` is given.
fn json(value: &Value, indent: Option<usize>) -> Result<String, Error> {
    let value = to_json(value).map_err(refuse)?;
    let text =
        if indent.is_some() { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) };
    text.map_err(|error| refuse(error.to_string()))
}

/// The SHA-256 of a text's bytes, 64 lower-case hex digits.
fn sha256(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A text as one word of a shell, and a list as the words of a command line.
fn quote(value: &Value) -> Result<String, Error> {
    if !matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable) {
        return Ok(quoted(&to_text(value).map_err(refuse)?));
    }
    let words = value.try_iter()?.map(|word| Ok(quoted(&to_text(&word).map_err(refuse)?)));
    Ok(words.collect::<Result<Vec<String>, Error>>()?.join(" "))
}

/// What comes after the last `/`.
fn basename(path: &str) -> String {
    path.trim_end_matches('/').rsplit('/').next().unwrap_or_default().to_owned()
}

/// Names of the machine that asks, as the `hosts` files of systems have them; those below `localhost` are its own too (RFC 6761).
const OWN_NAMES: &[&str] = &[
    "localhost",
    "localhost.localdomain",
    "localhost4",
    "localhost4.localdomain4",
    "localhost6",
    "localhost6.localdomain6",
    "ip6-localhost",
    "ip6-loopback",
    "ipv6-localhost",
    "ipv6-loopback",
    "localhost4.localdomain",
    "localhost6.localdomain",
    "host.docker.internal",
    "gateway.docker.internal",
    "kubernetes.docker.internal",
    "host.containers.internal",
];

/// Whether a URL leads to the machine that asks, by its name or its address, however that is written.
fn loopback(text: &str) -> Result<bool, Error> {
    let url = Url::parse(text).map_err(|error| refuse(format!("`{text}` is no URL: {error}")))?;
    Ok(match url.host() {
        Some(Host::Domain(name)) => {
            let name = name.trim_end_matches('.').to_ascii_lowercase();
            OWN_NAMES.contains(&name.as_str()) || name.ends_with(".localhost")
        }
        Some(Host::Ipv4(address)) => is_own(address),
        Some(Host::Ipv6(address)) => {
            let within = address.to_ipv4_mapped().or_else(|| address.to_ipv4());
            address.is_loopback() || address.is_unspecified() || within.is_some_and(is_own)
        }
        None => return Err(refuse(format!("`{text}` has no host"))),
    })
}

fn is_own(address: Ipv4Addr) -> bool {
    address.is_loopback() || address.is_unspecified()
}

fn join(values: &Value, between: Option<&str>) -> Result<String, Error> {
    let mut texts = Vec::new();
    for value in values.try_iter()? {
        texts.push(to_text(&value).map_err(refuse)?);
    }
    Ok(texts.join(between.unwrap_or_default()))
}

/// The seconds of a duration such as `1h30m`, whole when they are.
fn duration(text: &str) -> Result<Value, Error> {
    let duration: Duration = text.parse().map_err(|error| refuse(format!("{error}")))?;
    let millis = duration.as_millis();
    #[expect(clippy::cast_precision_loss, reason = "a fraction of a second in a duration that fits 53 bits")]
    Ok(if millis.is_multiple_of(1000) {
        Value::from(millis / 1000)
    } else {
        Value::from(millis as f64 / 1000.0)
    })
}

/// A moment from RFC 3339 text, or from seconds since 1970.
fn moment(value: &Value) -> Result<jiff::Timestamp, Error> {
    if value.kind() == ValueKind::Number {
        let seconds = f64::try_from(value.clone())?;
        return jiff::SignedDuration::try_from_secs_f64(seconds)
            .and_then(|since| jiff::Timestamp::UNIX_EPOCH.checked_add(since))
            .map_err(|_| refuse(format!("{value} seconds since 1970 is no date")));
    }
    let text = value.as_str().ok_or_else(|| refuse(format!("a {} is no date", value.kind())))?;
    text.parse().map_err(|_| {
        refuse(format!("`{text}` is no date: write it as 2026-11-21T02:00:00Z, with a time and a zone"))
    })
}

/// Seconds since 1970, whole when they are.
fn timestamp(value: &Value) -> Result<Value, Error> {
    let at = moment(value)?;
    Ok(if at.subsec_nanosecond() == 0 {
        Value::from(at.as_second())
    } else {
        Value::from(at.as_duration().as_secs_f64())
    })
}

/// A date in UTC by a strftime pattern such as `%Y-%m-%d`.
fn format_date(value: &Value, pattern: &str) -> Result<String, Error> {
    let at = moment(value)?.to_zoned(jiff::tz::TimeZone::UTC);
    jiff::fmt::strtime::format(pattern, &at)
        .map_err(|error| refuse(format!("`{pattern}` is no date pattern: {error}")))
}

/// The moment this much later, or earlier with a leading `-`: text from text, seconds from seconds.
fn add_duration(value: &Value, text: &str) -> Result<Value, Error> {
    let (back, plain) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let length: Duration = plain.parse().map_err(|error| refuse(format!("{error}")))?;
    let length = jiff::SignedDuration::try_from(length.0).map_err(|error| refuse(error.to_string()))?;
    let start = moment(value)?;
    let end = if back { start.checked_sub(length) } else { start.checked_add(length) }
        .map_err(|_| refuse("the date is out of range"))?;
    if value.kind() == ValueKind::Number {
        timestamp(&Value::from(end.to_string()))
    } else {
        Ok(Value::from(end.to_string()))
    }
}

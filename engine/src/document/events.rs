//! The one place that knows the YAML parser: its events with byte ranges.

use std::ops::Range;

use granit_parser::{Event, Parser, ScalarStyle, Tag};

/// What the parser meets.
#[derive(Debug)]
pub(super) enum Ev {
    Document,
    Scalar { text: String, plain: bool, anchor: usize, tag: Tagged },
    ListStart { anchor: usize, tag: Tagged },
    MapStart { anchor: usize, tag: Tagged },
    End,
    Alias(usize),
    UnknownAlias(String),
}

/// The tag of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Tagged {
    /// None.
    No,
    /// One of YAML's own, such as `str` for `!!str`.
    Core(String),
    /// Any other.
    Other(String),
}

/// The events of a text, each with its bytes; the text stops at the first that cannot be read, which is the place and why.
pub(super) fn events(text: &str) -> impl Iterator<Item = Result<(Ev, Range<usize>), (Range<usize>, String)>> {
    let options = granit_parser::options! { emit_unresolved_aliases: true };
    Parser::new_from_str_with_options(text, options).filter_map(move |next| match next {
        Ok((event, span)) => {
            let range = span.byte_range().unwrap_or(0..0);
            translate(event).map(|event| Ok((event, clamp(text, range))))
        }
        Err(error) => {
            let at = error.marker().byte_offset().unwrap_or(text.len());
            let end =
                text.get(at..).and_then(|rest| rest.chars().next()).map_or(at, |next| at + next.len_utf8());
            Some(Err((clamp(text, at..end), error.info())))
        }
    })
}

fn translate(event: Event<'_>) -> Option<Ev> {
    Some(match event {
        Event::DocumentStart(..) => Ev::Document,
        Event::Scalar(text, style, anchor, tag) => Ev::Scalar {
            text: text.into_owned(),
            plain: style == ScalarStyle::Plain,
            anchor,
            tag: tagged(tag.as_deref()),
        },
        Event::SequenceStart(_, anchor, tag) => Ev::ListStart { anchor, tag: tagged(tag.as_deref()) },
        Event::MappingStart(_, anchor, tag) => Ev::MapStart { anchor, tag: tagged(tag.as_deref()) },
        Event::SequenceEnd | Event::MappingEnd => Ev::End,
        Event::Alias(id) => Ev::Alias(id),
        Event::UnresolvedAlias(name) => Ev::UnknownAlias(name.into_owned()),
        _ => return None,
    })
}

fn tagged(tag: Option<&Tag>) -> Tagged {
    match tag {
        None => Tagged::No,
        Some(tag) => tag
            .core_suffix()
            .map_or_else(|| Tagged::Other(tag.original()), |name| Tagged::Core(name.to_owned())),
    }
}

/// The range inside the text, on character boundaries, without blanks at its end.
fn clamp(text: &str, range: Range<usize>) -> Range<usize> {
    let floor = |mut at: usize| {
        at = at.min(text.len());
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        at
    };
    let (start, end) = (floor(range.start), floor(range.end));
    let end = text.get(start..end).map_or(start, |part| start + part.trim_end().len());
    start..end
}

//! Builds the tree from the parser's events and finds what is wrong with it.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use super::characters;
use super::events::{Ev, Tagged, events};
use super::scalar::{self, Scalar};
use super::syntax;
use super::{Entry, Kind, Node};
use crate::check::codes;
use crate::diagnostic::Diagnostic;

/// The longest text, in bytes.
pub const MAX_BYTES: usize = 8 * 1024 * 1024;
/// The most values, those behind aliases counted each time.
const MAX_NODES: usize = 1_000_000;
/// So many bytes of text count as one value more: what an alias repeats is copied.
const BYTES_OF_A_NODE: usize = 128;
/// The deepest nesting.
const MAX_DEPTH: usize = 64;

pub(super) fn build(text: &str) -> (Option<Arc<Node>>, Vec<Diagnostic>) {
    if text.len() > MAX_BYTES {
        let message = format!("the file is larger than {} MiB", MAX_BYTES / 1024 / 1024);
        return (None, vec![Diagnostic::error(codes::TOO_LARGE, 0..0, message)]);
    }
    let mut builder = Builder { text, problems: characters::hidden(text), ..Builder::default() };
    for event in events(text) {
        match event {
            Ok((event, span)) => {
                if !builder.take(event, span) {
                    return (None, builder.problems);
                }
            }
            Err((span, why)) => {
                builder.problems.push(syntax::problem(text, span, &why));
                return (None, builder.problems);
            }
        }
    }
    if builder.root.is_none() && builder.problems.iter().all(|problem| problem.code == codes::CHARACTER) {
        builder.problems.push(
            Diagnostic::error(codes::DOCUMENTS, 0..0, "the file is empty")
                .help("a runbook begins with `runbook: its-name`"),
        );
    }
    (builder.root.take().map(|(node, _)| node), builder.problems)
}

enum Open {
    List {
        start: Range<usize>,
        anchor: usize,
        items: Vec<Arc<Node>>,
        size: usize,
    },
    Map {
        start: Range<usize>,
        anchor: usize,
        entries: Vec<Entry>,
        /// The place of each key in `entries`.
        index: HashMap<String, usize>,
        merges: Vec<Arc<Node>>,
        key: Key,
        size: usize,
    },
}

/// How much of [`MAX_NODES`] a text takes.
fn weight(text: &str) -> usize {
    1 + text.len() / BYTES_OF_A_NODE
}

/// What a map waits for.
enum Key {
    Wanted,
    Read(String, Range<usize>),
    Merge,
    /// The key itself is unusable and comes next: it is dropped, and so is its value.
    Bad,
    /// The value of an unusable key comes next.
    Dropped,
}

#[derive(Default)]
struct Builder<'a> {
    text: &'a str,
    open: Vec<Open>,
    root: Option<(Arc<Node>, usize)>,
    anchors: HashMap<usize, (Arc<Node>, usize)>,
    problems: Vec<Diagnostic>,
    nodes: usize,
    documents: usize,
}

impl Builder<'_> {
    fn error(
        &mut self,
        code: &'static str,
        span: Range<usize>,
        message: impl Into<String>,
    ) -> &mut Diagnostic {
        self.problems.push(Diagnostic::error(code, span, message));
        let last = self.problems.len() - 1;
        &mut self.problems[last]
    }

    /// Takes an event in; false when reading must stop.
    fn take(&mut self, event: Ev, span: Range<usize>) -> bool {
        let place = span.clone();
        match event {
            Ev::Document => {
                self.documents += 1;
                if self.documents > 1 {
                    self.error(codes::DOCUMENTS, span, "a second document begins here").help =
                        Some("a file holds one runbook: put the other one into its own file".to_owned());
                    return false;
                }
            }
            Ev::Scalar { text, plain, anchor, tag } => {
                let size = weight(&text);
                if text.contains('\0') {
                    let message = "a text can hold no NUL: it would end there for the system";
                    self.error(codes::CHARACTER, span.clone(), message).help =
                        Some("take `\\0` away".to_owned());
                }
                let kind = self.scalar(&text, plain, &tag, &span);
                let merge = plain && text == "<<";
                if let Some(Open::Map { key: key @ Key::Wanted, .. }) = self.open.last_mut() {
                    *key = if merge { Key::Merge } else { Key::Read(text, span) };
                    if anchor != 0 {
                        self.anchors.insert(anchor, (Arc::new(Node { span: place.clone(), kind }), size));
                    }
                    return self.charge(size, &place);
                }
                self.add(Arc::new(Node { span, kind }), anchor, size);
                return self.charge(size, &place);
            }
            Ev::ListStart { anchor, tag } => {
                self.collection_tag(&tag, "seq", &span);
                self.bad_key(&span);
                self.open.push(Open::List { start: span, anchor, items: Vec::new(), size: 1 });
                return self.charge(1, &place) && self.depth();
            }
            Ev::MapStart { anchor, tag } => {
                self.collection_tag(&tag, "map", &span);
                self.bad_key(&span);
                self.open.push(Open::Map {
                    start: span,
                    anchor,
                    entries: Vec::new(),
                    index: HashMap::new(),
                    merges: Vec::new(),
                    key: Key::Wanted,
                    size: 1,
                });
                return self.charge(1, &place) && self.depth();
            }
            Ev::End => self.close(&span),
            Ev::Alias(id) => {
                self.bad_key(&span);
                if let Some((node, size)) = self.anchors.get(&id).cloned() {
                    self.add(node, 0, size);
                    return self.charge(size, &place);
                }
                self.error(codes::ALIAS, span.clone(), "this alias stands inside what it repeats").help =
                    Some("a value can not hold itself: write out the part that is meant".to_owned());
                self.add(Arc::new(Node { span, kind: Kind::Null }), 0, 1);
            }
            Ev::UnknownAlias(name) => {
                self.bad_key(&span);
                self.error(codes::ALIAS, span.clone(), format!("there is no anchor `&{name}` above")).help =
                    Some("a text that begins with `*` is quoted".to_owned());
                self.add(Arc::new(Node { span, kind: Kind::Null }), 0, 1);
            }
        }
        true
    }

    fn charge(&mut self, size: usize, place: &Range<usize>) -> bool {
        self.nodes = self.nodes.saturating_add(size);
        if self.nodes > MAX_NODES {
            let message = format!("the file has more than {MAX_NODES} values, aliases counted each time");
            self.error(codes::TOO_LARGE, place.clone(), message).help =
                Some("an alias of a list of aliases grows with every level: repeat less".to_owned());
            return false;
        }
        true
    }

    fn depth(&mut self) -> bool {
        if self.open.len() > MAX_DEPTH {
            let span = match self.open.last() {
                Some(Open::List { start, .. } | Open::Map { start, .. }) => start.clone(),
                None => 0..0,
            };
            self.error(codes::TOO_LARGE, span, format!("values are nested more than {MAX_DEPTH} deep"));
            return false;
        }
        true
    }

    fn scalar(&mut self, text: &str, plain: bool, tag: &Tagged, span: &Range<usize>) -> Kind {
        let plain = match tag {
            Tagged::No => plain,
            Tagged::Core(name) if name == "str" => false,
            Tagged::Core(_) => true,
            Tagged::Other(name) => {
                let place = self.tag_place(name, span);
                self.error(codes::TAG, place, format!("there is no tag `{name}`")).help =
                    Some("tags mean nothing here; a text that begins with `!` is quoted".to_owned());
                plain
            }
        };
        if !plain {
            return Kind::String(text.to_owned());
        }
        match scalar::read(text) {
            Scalar::Null => Kind::Null,
            Scalar::Bool(flag) => Kind::Bool(flag),
            Scalar::Text => Kind::String(text.to_owned()),
            Scalar::Number(number) => {
                if scalar::has_leading_zero(text) {
                    self.problems.push(
                        Diagnostic::warning(
                            codes::NUMBER,
                            span.clone(),
                            format!("`{text}` is read as the number {number}"),
                        )
                        .help(format!("write {number}, or \"{text}\" if it is a text")),
                    );
                }
                Kind::Number(number)
            }
            Scalar::Unusable(why) => {
                self.error(codes::NUMBER, span.clone(), why).help =
                    Some(format!("write \"{text}\" if it is a text"));
                Kind::Null
            }
        }
    }

    fn collection_tag(&mut self, tag: &Tagged, fits: &str, span: &Range<usize>) {
        let name = match tag {
            Tagged::No => return,
            Tagged::Core(name) if name == fits => return,
            Tagged::Core(name) => format!("!!{name}"),
            Tagged::Other(name) => name.clone(),
        };
        let place = self.tag_place(&name, span);
        self.error(codes::TAG, place, format!("there is no tag `{name}` for this")).help =
            Some("tags mean nothing here: take it away".to_owned());
    }

    /// The bytes of the tag before a value; of the value when they are not found.
    fn tag_place(&self, name: &str, value: &Range<usize>) -> Range<usize> {
        // Only an anchor and blanks stand between the two.
        let near = value.start.saturating_sub(name.len() + 1000);
        let near = (near..=value.start).find(|at| self.text.is_char_boundary(*at)).unwrap_or(value.start);
        let before = self.text.get(near..value.start).unwrap_or_default();
        let at = before.rfind(name).filter(|at| before[at + name.len()..].trim().is_empty());
        at.map_or(value.clone(), |at| near + at..near + at + name.len())
    }

    /// A list, map or alias where a key should be.
    fn bad_key(&mut self, span: &Range<usize>) {
        let Some(Open::Map { key: key @ Key::Wanted, start, .. }) = self.open.last_mut() else { return };
        *key = Key::Bad;
        let braces = self.text.get(start.start..).is_some_and(|rest| rest.starts_with("{{"));
        let help = if braces {
            "an expression is written `\"${{ … }}\"`"
        } else {
            "a key is a text; a text with `{`, `[`, `*` or `?` at its beginning is quoted"
        };
        self.error(codes::KEY, span.clone(), "a key must be a text").help = Some(help.to_owned());
    }

    fn add(&mut self, node: Arc<Node>, anchor: usize, size: usize) {
        if anchor != 0 {
            self.anchors.insert(anchor, (node.clone(), size));
        }
        match self.open.last_mut() {
            None => self.root = Some((node, size)),
            Some(Open::List { items, size: total, .. }) => {
                items.push(node);
                *total = total.saturating_add(size);
            }
            Some(Open::Map { entries, index, merges, key, size: total, .. }) => {
                *total = total.saturating_add(size);
                match std::mem::replace(key, Key::Wanted) {
                    Key::Bad => *key = Key::Dropped,
                    Key::Dropped | Key::Wanted => {}
                    Key::Merge => merges.push(node),
                    Key::Read(name, key_span) => {
                        *total = total.saturating_add(weight(&name));
                        if let Some(first) = index.get(&name).map(|at| &entries[*at]) {
                            let problem = Diagnostic::error(
                                codes::DUPLICATE_KEY,
                                key_span,
                                format!("the key `{name}` is there twice"),
                            )
                            .label("again here")
                            .also(first.key_span.clone(), "first here");
                            self.problems.push(problem);
                        } else {
                            index.insert(name.clone(), entries.len());
                            entries.push(Entry { key: name, key_span, value: node });
                        }
                    }
                }
            }
        }
    }

    fn close(&mut self, end: &Range<usize>) {
        match self.open.pop() {
            Some(Open::List { start, anchor, items, size }) => {
                // A child that is an alias has its place elsewhere.
                let here = items.iter().filter(|item| item.span.start >= start.start);
                let last = here.map(|item| item.span.end).max().unwrap_or(start.end);
                let span = self.extent(&start, last, end);
                self.add(Arc::new(Node { span, kind: Kind::List(items) }), anchor, size);
            }
            Some(Open::Map { start, anchor, mut entries, mut index, merges, size, .. }) => {
                let last = entries
                    .iter()
                    .map(|entry| {
                        let here = entry.value.span.start >= entry.key_span.start;
                        if here { entry.value.span.end.max(entry.key_span.end) } else { entry.key_span.end }
                    })
                    .max()
                    .unwrap_or(start.end);
                for merge in merges {
                    self.merge(&mut entries, &mut index, &merge);
                }
                let span = self.extent(&start, last, end);
                self.add(Arc::new(Node { span, kind: Kind::Map(entries) }), anchor, size);
            }
            None => {}
        }
    }

    /// From the first byte to the closing bracket, or to the end of the last child in block style.
    fn extent(&self, start: &Range<usize>, last: usize, end: &Range<usize>) -> Range<usize> {
        let flow = self.text.get(start.start..).is_some_and(|rest| rest.starts_with(['{', '[']))
            && self.text.get(end.clone()).is_some_and(|close| close.starts_with(['}', ']']));
        let end = if flow { end.end } else { last };
        start.start..end.max(start.start)
    }

    /// Adds what `<<` names: keys that are there stay, earlier maps win over later ones.
    fn merge(&mut self, entries: &mut Vec<Entry>, index: &mut HashMap<String, usize>, node: &Arc<Node>) {
        match &node.kind {
            Kind::Map(more) => {
                for entry in more {
                    if !index.contains_key(&entry.key) {
                        index.insert(entry.key.clone(), entries.len());
                        entries.push(entry.clone());
                    }
                }
            }
            Kind::List(maps) if maps.iter().all(|map| map.entries().is_some()) => {
                for map in maps {
                    self.merge(entries, index, map);
                }
            }
            _ => {
                self.error(
                    codes::MERGE,
                    node.span.clone(),
                    format!("`<<` takes a map or a list of maps, and this is {}", node.describe()),
                )
                .help = Some("write `<<: *name`, with `&name` at the map whose entries are meant".to_owned());
            }
        }
    }
}

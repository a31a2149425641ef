//! What can be known of an expression without evaluating it: its references, and the mistakes that need no values.
//!
//! This walks minijinja's own syntax tree, so that what is checked is what is evaluated.

use std::ops::Range;

use minijinja::machinery::{Span, ast, parse_expr, tokenize};
use minijinja::syntax::SyntaxConfig;

use super::filters::FILTERS;
use super::template::{CLOSE, OPEN, Part, Unclosed, split};
use super::unknown::{self, Named};
use super::{foreign, rewrite};
use crate::suggest::{closest, listed};

/// What an expression may begin with.
pub const ROOTS: &[&str] = &["inputs", "steps", "run", "secrets"];

/// The longest expression, in bytes.
const MAX_BYTES: usize = 4096;
/// The longest text with expressions in it, in bytes.
const MAX_TEXT: usize = 64 * 1024;
/// The longest expression, in tokens: it bounds how deep its tree can be.
const MAX_TOKENS: usize = 400;

/// One name after another of a reference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The name.
    pub name: String,
    /// Its bytes in the text, quotes and brackets included.
    pub span: Range<usize>,
}

/// One use of a value, such as `steps.snap.outputs.count` or `steps['snap'].outputs.count`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// One of [`ROOTS`], or a name that means nothing.
    pub root: String,
    /// The names after it that are written out.
    pub path: Vec<Segment>,
    /// Whether a computed subscript follows, so that the rest cannot be known.
    pub dynamic: bool,
    /// Whether `default`, `is defined` or `is undefined` is applied to it, so that it may be absent.
    pub guarded: bool,
    /// Its bytes in the text.
    pub span: Range<usize>,
}

impl Reference {
    /// The reference with dots: `steps.snap.outputs.count`.
    pub fn text(&self) -> String {
        self.path.iter().fold(self.root.clone(), |text, segment| format!("{text}.{}", segment.name))
    }

    /// The name of this segment.
    pub fn name(&self, at: usize) -> Option<&str> {
        self.path.get(at).map(|segment| segment.name.as_str())
    }
}

/// A mistake in an expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// What kind of mistake.
    pub kind: ProblemKind,
    /// Its bytes in the text.
    pub span: Range<usize>,
    /// What is wrong, as a lower-case fragment.
    pub message: String,
    /// What to write instead.
    pub help: Option<String>,
}

/// What kind of mistake an expression has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProblemKind {
    /// It cannot be read.
    Syntax,
    /// No filter, function or test has this name.
    UnknownFunction,
    /// It begins with a name that is none of [`ROOTS`].
    UnknownVariable,
}

/// What is known of the expressions of one text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Analysis {
    /// Every use of a value, in order.
    pub references: Vec<Reference>,
    /// Every mistake.
    pub problems: Vec<Problem>,
}

/// Every use of a value in the `${{ }}` of a text, in order; those of an expression that cannot be read are left out.
pub fn references(text: &str) -> Vec<Reference> {
    analyse(text).references
}

/// Whether a text holds expressions, and they use nothing but inputs.
pub(crate) fn only_inputs(text: &str) -> bool {
    super::is_template(text) && references(text).iter().all(|reference| reference.root == "inputs")
}

/// What is known of the expressions in the `${{ }}` of a text. Spans are bytes of the text.
pub fn analyse(text: &str) -> Analysis {
    let mut found = Analysis::default();
    if text.len() > MAX_TEXT {
        let at = text.find(OPEN).unwrap_or_default();
        let message = format!("a text with expressions has more than {} KiB", MAX_TEXT / 1024);
        let help = Some("put the long part into a file, or into a text without expressions".to_owned());
        found.problems.push(Problem { kind: ProblemKind::Syntax, span: at..at + OPEN.len(), message, help });
        return found;
    }
    match split(text) {
        Ok(parts) => {
            for part in parts {
                if let Part::Expr(source, start) = part {
                    analyse_into(source, start, &mut found);
                }
            }
        }
        Err(Unclosed(span)) => {
            let help = if text[span.clone()].contains(CLOSE) {
                "a quote or a brace in it is opened and not closed"
            } else {
                "end the expression with `}}`"
            };
            found.problems.push(Problem {
                kind: ProblemKind::Syntax,
                span,
                message: "`${{` is not closed".to_owned(),
                help: Some(help.to_owned()),
            });
        }
    }
    found
}

/// What is known of one expression without its `${{ }}`.
pub fn analyse_expression(source: &str) -> Analysis {
    let mut found = Analysis::default();
    analyse_into(source, 0, &mut found);
    found
}

fn analyse_into(source: &str, start: usize, found: &mut Analysis) {
    match parse(source) {
        Ok(tree) => Walk { source, start, found }.visit(&tree, false),
        Err((range, message)) => {
            let (mut span, mut help) = (start + range.start..start + range.end, None);
            let mut message = message;
            if let Some((foreign, why, instead)) = foreign::find(source) {
                span = start + foreign.start..start + foreign.end;
                (message, help) = (why, Some(instead.to_owned()));
            }
            if help.is_none()
                && let Some(place) = foreign::duration(source)
            {
                let written = &source[place.clone()];
                message = format!("`{written}` is no value: a duration is written as a text here");
                let way = format!(
                    "write `'{written}' | duration` for its seconds, or `run.created_at | add_duration('{written}')`"
                );
                (span, help) = (start + place.start..start + place.end, Some(way));
            }
            if source.trim_start().starts_with("if ") {
                help =
                    Some("write `this if condition else that`; a condition alone needs no `if`".to_owned());
            }
            if source.trim().is_empty() {
                // There is nothing to point at but what surrounds it.
                span = start.saturating_sub(OPEN.len())..span.end + if start > 0 { CLOSE.len() } else { 0 };
                help = Some("write what is meant, such as `inputs.NAME`".to_owned());
            }
            found.problems.push(Problem { kind: ProblemKind::Syntax, span, message, help });
        }
    }
}

/// Reads an expression within bounds; otherwise its faulty bytes and what is wrong.
pub(super) fn parse(source: &str) -> Result<ast::Expr<'_>, (Range<usize>, String)> {
    let all = 0..source.len();
    if source.trim().is_empty() {
        return Err((all, "the expression is empty".to_owned()));
    }
    if source.len() > MAX_BYTES
        || tokenize(source, true, SyntaxConfig::default())
            // It repeats an error for ever.
            .take_while(Result::is_ok)
            .take(MAX_TOKENS + 1)
            .count()
            > MAX_TOKENS
    {
        return Err((all, "the expression is too long".to_owned()));
    }
    parse_expr(source).map_err(|error| {
        let detail = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
        let range = error.range().filter(|range| {
            range.start < range.end && range.end <= source.len() && source.get(range.clone()).is_some()
        });
        (range.unwrap_or(all), format!("the expression cannot be read: {detail}"))
    })
}

/// What may be absent in this: the value before `default`, `is defined` and `is undefined`.
pub(super) fn allows_absence<'t, 'a>(expr: &'t ast::Expr<'a>) -> Option<&'t ast::Expr<'a>> {
    match expr {
        ast::Expr::Filter(filter) if matches!(filter.name, "default" | "d") => filter.expr.as_ref(),
        ast::Expr::Test(test) if matches!(test.name, "defined" | "undefined") => Some(&test.expr),
        _ => None,
    }
}

/// The bytes of a node in its source.
pub(super) fn bytes(span: Span) -> Range<usize> {
    span.start_offset as usize..span.end_offset as usize
}

struct Walk<'a> {
    source: &'a str,
    start: usize,
    found: &'a mut Analysis,
}

impl Walk<'_> {
    fn place(&self, span: Span) -> Range<usize> {
        let range = bytes(span);
        let end = range.end.min(self.source.len());
        self.start + range.start.min(end)..self.start + end
    }

    fn visit(&mut self, expr: &ast::Expr<'_>, guarded: bool) {
        use ast::Expr;
        match expr {
            Expr::Var(_) | Expr::GetAttr(_) | Expr::GetItem(_) => self.reference(expr, guarded),
            Expr::Const(_) => {}
            Expr::Slice(slice) => {
                self.visit(&slice.expr, false);
                for part in [&slice.start, &slice.stop, &slice.step].into_iter().flatten() {
                    self.visit(part, false);
                }
            }
            Expr::UnaryOp(op) => self.visit(&op.expr, false),
            Expr::BinOp(op) => {
                self.visit(&op.left, false);
                self.visit(&op.right, false);
            }
            Expr::Compare(compare) => {
                self.visit(&compare.expr, false);
                compare.ops.iter().for_each(|op| self.visit(&op.expr, false));
            }
            Expr::IfExpr(choice) => {
                self.visit(&choice.test_expr, false);
                self.visit(&choice.true_expr, false);
                if let Some(other) = &choice.false_expr {
                    self.visit(other, false);
                }
            }
            Expr::Filter(filter) => {
                if let Some(inner) = &filter.expr {
                    self.visit(inner, allows_absence(expr).is_some());
                }
                self.known(Named::Filter, filter.name, filter.expr.as_ref(), filter.span());
                self.arguments(&filter.args);
            }
            Expr::Test(test) => {
                self.visit(&test.expr, allows_absence(expr).is_some());
                self.known(Named::Test, test.name, Some(&test.expr), test.span());
                self.arguments(&test.args);
            }
            Expr::Call(call) => self.call(call),
            Expr::List(list) => list.items.iter().for_each(|item| self.visit(item, false)),
            Expr::Tuple(tuple) => tuple.items.iter().for_each(|item| self.visit(item, false)),
            Expr::Map(map) => {
                map.keys.iter().chain(&map.values).for_each(|part| self.visit(part, false));
            }
        }
    }

    fn arguments(&mut self, args: &[ast::CallArg<'_>]) {
        for arg in args {
            match arg {
                ast::CallArg::Pos(expr)
                | ast::CallArg::Kwarg(_, expr)
                | ast::CallArg::PosSplat(expr)
                | ast::CallArg::KwargSplat(expr) => self.visit(expr, false),
            }
        }
    }

    fn call(&mut self, call: &ast::Spanned<ast::Call<'_>>) {
        match &call.expr {
            ast::Expr::Var(var) => {
                let on = match call.args.first() {
                    Some(ast::CallArg::Pos(on)) => Some(on),
                    _ => None,
                };
                self.known(Named::Function, var.id, on, var.span());
            }
            ast::Expr::GetAttr(attr) => {
                self.visit(&attr.expr, false);
                let help = FILTERS
                    .contains(&attr.name)
                    .then(|| format!("write it as a filter: `value | {}`", attr.name));
                self.problem(
                    ProblemKind::UnknownFunction,
                    call.span(),
                    format!("values have no methods, so `.{}()` cannot be called", attr.name),
                    help,
                );
            }
            other => {
                self.visit(other, false);
                let message = "only a function can be called".to_owned();
                self.problem(ProblemKind::UnknownFunction, call.span(), message, None);
            }
        }
        self.arguments(&call.args);
    }

    /// `on` is what it is applied to.
    fn known(&mut self, what: Named, name: &str, on: Option<&ast::Expr<'_>>, span: Span) {
        if !what.exists(name) {
            let argument =
                on.and_then(|on| self.source.get(rewrite::extent(on))).filter(|text| text.len() < 60);
            let message = format!("there is no {} `{name}`", what.word());
            let help = unknown::help(what, name, argument);
            self.problem(ProblemKind::UnknownFunction, span, message, Some(help));
        }
    }

    fn problem(&mut self, kind: ProblemKind, span: Span, message: String, help: Option<String>) {
        let span = self.place(span);
        self.found.problems.push(Problem { kind, span, message, help });
    }

    /// A chain of names down to a variable; what is below it is visited too when it is something else.
    fn reference(&mut self, expr: &ast::Expr<'_>, guarded: bool) {
        let (mut path, mut dynamic, mut at) = (Vec::new(), false, expr);
        let root = loop {
            match at {
                ast::Expr::Var(var) => break var,
                ast::Expr::GetAttr(attr) => {
                    let whole = self.place(attr.span());
                    path.push(Segment { name: attr.name.to_owned(), span: last(&whole, attr.name.len()) });
                    at = &attr.expr;
                }
                ast::Expr::GetItem(item) => {
                    if let Some(name) = constant_name(&item.subscript_expr) {
                        path.push(Segment { name, span: self.place(item.subscript_expr.span()) });
                    } else {
                        self.visit(&item.subscript_expr, false);
                        path.clear();
                        dynamic = true;
                    }
                    at = &item.expr;
                }
                other => return self.visit(other, false),
            }
        };
        if root.id == "null" {
            return;
        }
        path.reverse();
        let span = self.place(root.span()).start..self.place(expr.span()).end;
        if !ROOTS.contains(&root.id) {
            let help = closest(root.id, ROOTS.iter().copied()).map_or_else(
                || {
                    let quoted = format!("'{}'", root.id);
                    format!(
                        "an expression begins with one of {}; text is quoted: {quoted}",
                        listed(ROOTS.iter().copied())
                    )
                },
                |close| format!("did you mean `{close}`?"),
            );
            let message = format!("there is no variable `{}`", root.id);
            self.problem(ProblemKind::UnknownVariable, root.span(), message, Some(help));
        }
        self.found.references.push(Reference { root: root.id.to_owned(), path, dynamic, guarded, span });
    }
}

/// A subscript that is written out: a text, or a number of a place in a list.
fn constant_name(expr: &ast::Expr<'_>) -> Option<String> {
    let ast::Expr::Const(constant) = expr else { return None };
    constant
        .value
        .as_str()
        .map(str::to_owned)
        .or_else(|| constant.value.as_i64().map(|index| index.to_string()))
}

fn last(whole: &Range<usize>, len: usize) -> Range<usize> {
    whole.end.saturating_sub(len).max(whole.start)..whole.end
}

//! The source that minijinja is given: the author's, with our own functions around the places where our rules are others.
//!
//! - Each operand of `~` becomes text by our rules, since minijinja would write `True` and Python lists.
//! - What may be absent (`… | default(…)`, `… is defined`) may be absent from wherever in it: minijinja refuses to look into what is not
//!   there.

use std::ops::Range;

use minijinja::machinery::ast::{self, BinOpKind, Expr};

use super::analyse::{allows_absence, bytes};
use super::filters::{MAYBE, TEXT};

/// A place in the source where something is put in.
struct Mark {
    at: usize,
    /// The function that is called from here on; none where a call ends.
    opens: Option<&'static str>,
    /// Further arguments of a call that ends.
    arguments: String,
}

/// The source as minijinja is given it.
pub(super) fn rewritten(source: &str, tree: &Expr<'_>) -> String {
    let mut marks = Vec::new();
    operands(source, tree, &mut marks);
    // The sort is stable: at one place closing marks come first, and outer ones open before inner ones.
    marks.sort_by_key(|mark| (mark.at, mark.opens.is_some()));
    let (mut text, mut done) = (String::with_capacity(source.len() + marks.len() * (TEXT.len() + 1)), 0);
    for mark in marks {
        text.push_str(source.get(done..mark.at).unwrap_or_default());
        match mark.opens {
            Some(function) => {
                text.push_str(function);
                text.push('(');
            }
            None => {
                text.push_str(&mark.arguments);
                text.push(')');
            }
        }
        done = mark.at;
    }
    text.push_str(source.get(done..).unwrap_or_default());
    text
}

fn call(function: &'static str, around: Range<usize>, arguments: String, marks: &mut Vec<Mark>) {
    marks.push(Mark { at: around.start, opens: Some(function), arguments: String::new() });
    marks.push(Mark { at: around.end, opens: None, arguments });
}

/// The variable at the bottom of a chain of lookups, and how many lookups there are.
fn bottom(expr: &Expr<'_>) -> Option<(Range<usize>, usize)> {
    let (mut at, mut lookups) = (expr, 0);
    loop {
        match at {
            Expr::Var(var) => return (lookups > 0).then(|| (bytes(var.span()), lookups)),
            Expr::GetAttr(attr) => at = &attr.expr,
            Expr::GetItem(item) => at = &item.expr,
            _ => return None,
        }
        lookups += 1;
    }
}

fn is_concat(expr: &Expr<'_>) -> bool {
    matches!(expr, Expr::BinOp(op) if matches!(op.op, BinOpKind::Concat))
}

fn operands(source: &str, expr: &Expr<'_>, marks: &mut Vec<Mark>) {
    if let Expr::BinOp(op) = expr
        && is_concat(expr)
    {
        for side in [&op.left, &op.right].into_iter().filter(|side| !is_concat(side)) {
            call(TEXT, balanced(source, extent(side)), String::new(), marks);
        }
    }
    if let Some((variable, lookups)) = allows_absence(expr).and_then(bottom) {
        call(MAYBE, variable, format!(", {lookups}"), marks);
    }
    children(expr, &mut |child| operands(source, child, marks));
}

/// All bytes of a node, without the brackets around it; minijinja gives a filter or a test only those of its name.
pub(super) fn extent(expr: &Expr<'_>) -> Range<usize> {
    let mut range = bytes(expr.span());
    children(expr, &mut |child| {
        let inner = extent(child);
        range = range.start.min(inner.start)..range.end.max(inner.end);
    });
    range
}

/// The range with the brackets that belong to what is in it.
fn balanced(source: &str, range: Range<usize>) -> Range<usize> {
    let bytes = source.as_bytes();
    let (mut open, mut unopened, mut quote, mut at) = (0_usize, 0_usize, None, range.start);
    while at < range.end {
        match (quote, bytes[at]) {
            (Some(_), b'\\') => at += 1,
            (Some(mark), byte) if mark == byte => quote = None,
            (Some(_), _) => {}
            (None, byte @ (b'"' | b'\'')) => quote = Some(byte),
            (None, b'(' | b'[' | b'{') => open += 1,
            (None, b')' | b']' | b'}') if open > 0 => open -= 1,
            (None, b')' | b']' | b'}') => unopened += 1,
            (None, _) => {}
        }
        at += 1;
    }
    let (mut start, mut end) = (range.start, range.end);
    while unopened > 0 && start > 0 {
        start -= 1;
        unopened -= usize::from(matches!(bytes[start], b'(' | b'[' | b'{'));
    }
    while open > 0 && end < bytes.len() {
        open -= usize::from(matches!(bytes[end], b')' | b']' | b'}'));
        end += 1;
    }
    start..end
}

/// Calls back with each node right below one.
pub(super) fn children<'a>(expr: &Expr<'a>, visit: &mut dyn FnMut(&Expr<'a>)) {
    match expr {
        Expr::Var(_) | Expr::Const(_) => {}
        Expr::Slice(slice) => {
            visit(&slice.expr);
            [&slice.start, &slice.stop, &slice.step].into_iter().flatten().for_each(visit);
        }
        Expr::UnaryOp(op) => visit(&op.expr),
        Expr::BinOp(op) => [&op.left, &op.right].into_iter().for_each(visit),
        Expr::Compare(compare) => {
            visit(&compare.expr);
            compare.ops.iter().for_each(|op| visit(&op.expr));
        }
        Expr::IfExpr(choice) => {
            visit(&choice.test_expr);
            visit(&choice.true_expr);
            choice.false_expr.iter().for_each(visit);
        }
        Expr::Filter(filter) => {
            filter.expr.iter().for_each(&mut *visit);
            arguments(&filter.args, visit);
        }
        Expr::Test(test) => {
            visit(&test.expr);
            arguments(&test.args, visit);
        }
        Expr::GetAttr(attr) => visit(&attr.expr),
        Expr::GetItem(item) => [&item.expr, &item.subscript_expr].into_iter().for_each(visit),
        Expr::Call(call) => {
            visit(&call.expr);
            arguments(&call.args, visit);
        }
        Expr::List(list) => list.items.iter().for_each(visit),
        Expr::Tuple(tuple) => tuple.items.iter().for_each(visit),
        Expr::Map(map) => map.keys.iter().chain(&map.values).for_each(visit),
    }
}

fn arguments<'a>(args: &[ast::CallArg<'a>], visit: &mut dyn FnMut(&Expr<'a>)) {
    for arg in args {
        match arg {
            ast::CallArg::Pos(expr)
            | ast::CallArg::Kwarg(_, expr)
            | ast::CallArg::PosSplat(expr)
            | ast::CallArg::KwargSplat(expr) => visit(expr),
        }
    }
}

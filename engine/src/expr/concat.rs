//! Makes each operand of `~` text by our own rules, since minijinja would write `True` and Python lists.

use std::ops::Range;

use minijinja::machinery::ast::{self, BinOpKind, Expr};

use super::analyse::bytes;
use super::filters::TEXT;

/// The source with each operand of `~` wrapped in the function that refuses what is no text.
pub(super) fn with_text_operands(source: &str, tree: &Expr<'_>) -> String {
    let mut marks = Vec::new();
    operands(source, tree, &mut marks);
    // The sort is stable: at one place closing marks come first, and outer ones open before inner ones.
    marks.sort_by_key(|(at, opens)| (*at, *opens));
    let (mut text, mut done) = (String::with_capacity(source.len() + marks.len() * (TEXT.len() + 1)), 0);
    for (at, opens) in marks {
        text.push_str(source.get(done..at).unwrap_or_default());
        if opens {
            text.push_str(TEXT);
        }
        text.push(if opens { '(' } else { ')' });
        done = at;
    }
    text.push_str(source.get(done..).unwrap_or_default());
    text
}

fn is_concat(expr: &Expr<'_>) -> bool {
    matches!(expr, Expr::BinOp(op) if matches!(op.op, BinOpKind::Concat))
}

fn operands(source: &str, expr: &Expr<'_>, marks: &mut Vec<(usize, bool)>) {
    if let Expr::BinOp(op) = expr
        && is_concat(expr)
    {
        for side in [&op.left, &op.right].into_iter().filter(|side| !is_concat(side)) {
            let range = balanced(source, extent(side));
            marks.push((range.start, true));
            marks.push((range.end, false));
        }
    }
    children(expr, &mut |child| operands(source, child, marks));
}

/// All bytes of a node; minijinja gives a filter or a test only those of its name.
fn extent(expr: &Expr<'_>) -> Range<usize> {
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

fn children<'a>(expr: &Expr<'a>, visit: &mut dyn FnMut(&Expr<'a>)) {
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

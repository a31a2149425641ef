//! What an expression compares with values that are written out.

use std::ops::Range;

use minijinja::machinery::ast::{BinOpKind, CompareOpKind, Expr};
use serde_json::Value;

use super::analyse::{bytes, parse};
use super::rewrite::children;
use super::tracked::to_json;
use super::{Part, split};

/// A value that is compared with one that is written out, by `==`, `!=`, `in` or `not in`.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    /// The names of the reference, its root first: `["steps", "look", "status"]`.
    pub names: Vec<String>,
    /// What is written out.
    pub literal: Value,
    /// The bytes of that in the text.
    pub span: Range<usize>,
}

/// The comparisons of a text: in its `${{ }}`, or of the whole of it when it is a bare condition.
pub fn comparisons(text: &str, condition: bool) -> Vec<Comparison> {
    let mut found = Vec::new();
    let mut expression = |source: &str, start: usize| {
        if let Ok(tree) = parse(source) {
            visit(&tree, start, &mut found);
        }
    };
    if condition {
        expression(text, 0);
        return found;
    }
    for part in split(text).unwrap_or_default() {
        if let Part::Expr(source, start) = part {
            expression(source, start);
        }
    }
    found
}

fn visit(expr: &Expr<'_>, start: usize, found: &mut Vec<Comparison>) {
    match expr {
        Expr::BinOp(op) => match op.op {
            BinOpKind::Eq | BinOpKind::Ne => both(&op.left, &op.right, start, found),
            BinOpKind::In => one(&op.left, &op.right, start, found),
            _ => {}
        },
        Expr::Compare(compare) => {
            let mut left = &compare.expr;
            for op in &compare.ops {
                match op.op {
                    CompareOpKind::Eq | CompareOpKind::Ne => both(left, &op.expr, start, found),
                    CompareOpKind::In | CompareOpKind::NotIn => one(left, &op.expr, start, found),
                    _ => {}
                }
                left = &op.expr;
            }
        }
        _ => {}
    }
    children(expr, &mut |child| visit(child, start, found));
}

fn both(left: &Expr<'_>, right: &Expr<'_>, start: usize, found: &mut Vec<Comparison>) {
    one(left, right, start, found);
    one(right, left, start, found);
}

/// A reference, and what it is compared with: a constant, or each constant of a list.
fn one(reference: &Expr<'_>, with: &Expr<'_>, start: usize, found: &mut Vec<Comparison>) {
    let Some(names) = names(reference) else { return };
    let items = match with {
        Expr::List(list) => list.items.as_slice(),
        Expr::Tuple(tuple) => tuple.items.as_slice(),
        other => std::slice::from_ref(other),
    };
    for item in items {
        if let Expr::Const(constant) = item
            && let Ok(literal) = to_json(&constant.value)
        {
            let span = bytes(constant.span());
            found.push(Comparison {
                names: names.clone(),
                literal,
                span: start + span.start..start + span.end,
            });
        }
    }
}

/// The names of a reference that is written out, its root first.
pub(super) fn names(expr: &Expr<'_>) -> Option<Vec<String>> {
    let (mut names, mut at) = (Vec::new(), expr);
    loop {
        match at {
            Expr::GetAttr(attr) => {
                names.push(attr.name.to_owned());
                at = &attr.expr;
            }
            Expr::GetItem(item) => {
                let Expr::Const(name) = &item.subscript_expr else { return None };
                names.push(name.value.as_str()?.to_owned());
                at = &item.expr;
            }
            Expr::Var(var) => {
                names.push(var.id.to_owned());
                names.reverse();
                return Some(names);
            }
            _ => return None,
        }
    }
}

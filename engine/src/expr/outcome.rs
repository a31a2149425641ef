//! What an expression comes to, as far as its outermost operation tells.

use minijinja::machinery::ast::{BinOpKind, Expr, UnaryOpKind};
use minijinja::value::ValueKind;

use super::analyse::parse;
use super::compared::names;

/// One of the things that an expression may come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing.
    Null,
    /// True or false.
    Boolean,
    /// A whole number.
    Integer,
    /// A number.
    Number,
    /// A text.
    Text,
    /// A list.
    List,
    /// A map.
    Map,
    /// What a reference comes to: its names, the root first.
    Reference(Vec<String>),
}

/// Everything that an expression may come to; nothing when that can not be told.
pub fn outcomes(source: &str) -> Option<Vec<Outcome>> {
    of(&parse(source).ok()?)
}

fn of(expr: &Expr<'_>) -> Option<Vec<Outcome>> {
    let one = match expr {
        Expr::Const(constant) => match constant.value.kind() {
            ValueKind::None => Outcome::Null,
            ValueKind::Bool => Outcome::Boolean,
            ValueKind::Number if constant.value.is_integer() => Outcome::Integer,
            ValueKind::Number => Outcome::Number,
            ValueKind::String => Outcome::Text,
            _ => return None,
        },
        Expr::Var(_) | Expr::GetAttr(_) | Expr::GetItem(_) => Outcome::Reference(names(expr)?),
        Expr::List(_) | Expr::Tuple(_) => Outcome::List,
        Expr::Map(_) => Outcome::Map,
        Expr::Test(_) | Expr::Compare(_) => Outcome::Boolean,
        Expr::UnaryOp(op) if matches!(op.op, UnaryOpKind::Not) => Outcome::Boolean,
        Expr::UnaryOp(_) => Outcome::Number,
        Expr::BinOp(op) => match op.op {
            BinOpKind::ScAnd | BinOpKind::ScOr => return either(of(&op.left)?, of(&op.right)?),
            BinOpKind::Concat => Outcome::Text,
            BinOpKind::Sub | BinOpKind::Div | BinOpKind::FloorDiv | BinOpKind::Rem | BinOpKind::Pow => {
                Outcome::Number
            }
            // Texts and lists can be added, and repeated.
            BinOpKind::Add | BinOpKind::Mul => return None,
            _ => Outcome::Boolean,
        },
        Expr::IfExpr(choice) => return either(of(&choice.true_expr)?, of(choice.false_expr.as_ref()?)?),
        Expr::Filter(filter) => match filter.name {
            "length" | "int" => Outcome::Integer,
            "float" | "duration" | "timestamp" | "sum" | "round" => Outcome::Number,
            "bool" => Outcome::Boolean,
            "basename" | "capitalize" | "format_date" | "join" | "lower" | "quote" | "replace" | "sha256"
            | "string" | "title" | "to_json" | "trim" | "upper" => Outcome::Text,
            "batch" | "dictsort" | "groupby" | "items" | "lines" | "list" | "map" | "reject"
            | "rejectattr" | "select" | "selectattr" | "sort" | "split" | "unique" | "zip" => Outcome::List,
            _ => return None,
        },
        Expr::Slice(_) | Expr::Call(_) => return None,
    };
    Some(vec![one])
}

fn either(mut one: Vec<Outcome>, other: Vec<Outcome>) -> Option<Vec<Outcome>> {
    one.extend(other);
    Some(one)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_outermost_operation_tells() {
        for (source, told) in [
            ("inputs.list | length", Some(vec![Outcome::Integer])),
            ("inputs.list | length > 0", Some(vec![Outcome::Boolean])),
            ("not inputs.list", Some(vec![Outcome::Boolean])),
            ("'a' ~ 1", Some(vec![Outcome::Text])),
            ("inputs.list | join(', ')", Some(vec![Outcome::Text])),
            ("inputs.list + ['a']", None),
            ("1 if inputs.a else 'b'", Some(vec![Outcome::Integer, Outcome::Text])),
            ("inputs.list | first", None),
            ("[1, 2]", Some(vec![Outcome::List])),
            ("null", Some(vec![Outcome::Reference(vec!["null".to_owned()])])),
            ("1 +", None),
        ] {
            assert_eq!(outcomes(source), told, "{source}");
        }
    }
}

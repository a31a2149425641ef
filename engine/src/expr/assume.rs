//! What surely holds where a part of an expression is evaluated: `a and b` looks at `b` only when `a` is true.

use std::collections::BTreeMap;
use std::ops::Range;

use minijinja::machinery::ast::{BinOpKind, CallArg, CompareOpKind, Expr, UnaryOpKind};

use super::analyse::{bytes, parse};
use super::compared::names;
use super::rewrite::children;
use super::{Part, split, whole};

/// Some of the ways in which a step can stand when another one looks at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standings(u8);

impl Standings {
    /// None of them.
    pub const NONE: Self = Self(0);
    /// It has outputs.
    pub const SUCCEEDED: Self = Self(1);
    /// Its `if` was false.
    pub const SKIPPED: Self = Self(2);
    /// It failed, and something goes on.
    pub const FAILED: Self = Self(4);
    /// It never came to its end, and something goes on.
    pub const UNFINISHED: Self = Self(8);
    const ALL: Self = Self(15);

    /// Those that are in both.
    #[must_use]
    pub fn both(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Those that are in either.
    #[must_use]
    pub fn either(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Those that are not in it.
    #[must_use]
    pub fn others(self) -> Self {
        Self(Self::ALL.0 & !self.0)
    }

    /// Whether one of the others is in it.
    pub fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    fn of_status(status: &str) -> Self {
        match status {
            "succeeded" => Self::SUCCEEDED,
            "skipped" => Self::SKIPPED,
            "failed" => Self::FAILED,
            "pending" | "running" | "asking" | "answered" | "interrupted" => Self::UNFINISHED,
            _ => Self::NONE,
        }
    }
}

/// What surely holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Expressions in one spelling, and whether they are true.
    known: BTreeMap<String, bool>,
    /// In which of these ways each of some steps stands.
    steps: BTreeMap<String, Standings>,
}

impl Facts {
    /// What holds when a condition does; nothing when it can not be read.
    pub fn of_condition(source: &str) -> Self {
        let mut facts = Self::default();
        if let Ok(tree) = parse(source) {
            facts.assume(&tree, true);
        }
        facts
    }

    /// What holds where these bytes of a text are evaluated, by the expression that they stand in alone. They are those of a reference.
    pub fn at(text: &str, place: &Range<usize>) -> Self {
        let parts = split(text).unwrap_or_default();
        let inside = parts.iter().find_map(|part| match part {
            Part::Expr(source, start) if (*start..start + source.len()).contains(&place.start) => {
                Some((*source, *start))
            }
            _ => None,
        });
        // A condition needs no `${{ }}`.
        let (source, start) = inside.unwrap_or((text, 0));
        let mut facts = Self::default();
        if let Ok(tree) = parse(source) {
            facts.reach(&tree, place.start - start);
        }
        facts
    }

    /// These and those.
    pub fn and(&mut self, other: &Self) {
        self.known.extend(other.known.iter().map(|(source, truth)| (source.clone(), *truth)));
        for (id, standings) in &other.steps {
            self.narrow(id, *standings);
        }
    }

    /// In which ways a step can stand.
    pub fn standings(&self, id: &str) -> Standings {
        self.steps.get(id).copied().unwrap_or(Standings::ALL)
    }

    /// The steps that surely have succeeded.
    pub fn succeeded(&self) -> impl Iterator<Item = &str> {
        self.steps.iter().filter(|(_, one)| **one == Standings::SUCCEEDED).map(|(id, _)| id.as_str())
    }

    /// Whether a condition surely holds.
    pub fn imply(&self, condition: &str) -> bool {
        let source = whole(condition).map_or(condition, |(source, _)| source);
        parse(source).is_ok_and(|tree| self.says(&tree) == Some(true))
    }

    fn says(&self, expr: &Expr<'_>) -> Option<bool> {
        if let Some(truth) = self.known.get(&spelled(expr)) {
            return Some(*truth);
        }
        match expr {
            Expr::UnaryOp(op) if matches!(op.op, UnaryOpKind::Not) => self.says(&op.expr).map(|truth| !truth),
            Expr::BinOp(op) if matches!(op.op, BinOpKind::ScAnd | BinOpKind::ScOr) => {
                let absorbing = matches!(op.op, BinOpKind::ScOr);
                match (self.says(&op.left), self.says(&op.right)) {
                    (Some(one), _) | (_, Some(one)) if one == absorbing => Some(absorbing),
                    (Some(_), Some(_)) => Some(!absorbing),
                    _ => None,
                }
            }
            _ => {
                let (id, when_true) = standing(expr)?;
                let stands = self.standings(&id);
                match (stands.meets(when_true), stands.meets(when_true.others())) {
                    (true, false) => Some(true),
                    (false, true) => Some(false),
                    _ => None,
                }
            }
        }
    }

    fn narrow(&mut self, id: &str, standings: Standings) {
        let narrowed = self.standings(id).both(standings);
        self.steps.insert(id.to_owned(), narrowed);
    }

    /// Adds what follows when an expression is true, or false.
    fn assume(&mut self, expr: &Expr<'_>, truth: bool) {
        self.known.insert(spelled(expr), truth);
        match expr {
            Expr::UnaryOp(op) if matches!(op.op, UnaryOpKind::Not) => self.assume(&op.expr, !truth),
            Expr::BinOp(op) if matches!(op.op, BinOpKind::ScAnd | BinOpKind::ScOr) => {
                if truth == matches!(op.op, BinOpKind::ScAnd) {
                    self.assume(&op.left, truth);
                    self.assume(&op.right, truth);
                } else {
                    // One of them, and nobody knows which.
                    let side = |side: &Expr<'_>| {
                        let mut facts = Self::default();
                        facts.assume(side, truth);
                        facts
                    };
                    let (left, right) = (side(&op.left), side(&op.right));
                    for (id, standings) in left.steps {
                        self.narrow(&id, standings.either(right.standings(&id)));
                    }
                }
            }
            _ => {
                if let Some((id, when_true)) = standing(expr) {
                    self.narrow(&id, if truth { when_true } else { when_true.others() });
                } else {
                    self.trust(expr);
                }
            }
        }
    }

    /// A test of a status in a way that is not understood is taken for the right one.
    fn trust(&mut self, expr: &Expr<'_>) {
        if let Some((id, _)) = field(expr).filter(|(_, field)| field == "status") {
            self.narrow(&id, Standings::SUCCEEDED);
        }
        children(expr, &mut |child| self.trust(child));
    }

    /// Adds what holds at the variable that begins at this byte; false when it is not below.
    fn reach(&mut self, expr: &Expr<'_>, at: usize) -> bool {
        let mut below = |facts: &[(&Expr<'_>, bool)], child: &Expr<'_>| {
            let mut there = Self::default();
            if !there.reach(child, at) {
                return false;
            }
            for (condition, truth) in facts {
                there.assume(condition, *truth);
            }
            self.and(&there);
            true
        };
        match expr {
            Expr::Var(var) => bytes(var.span()).start == at,
            Expr::IfExpr(choice) => {
                let test = &choice.test_expr;
                below(&[], test)
                    || below(&[(test, true)], &choice.true_expr)
                    || choice.false_expr.as_ref().is_some_and(|other| below(&[(test, false)], other))
            }
            Expr::BinOp(op) if matches!(op.op, BinOpKind::ScAnd | BinOpKind::ScOr) => {
                let and = matches!(op.op, BinOpKind::ScAnd);
                below(&[], &op.left) || below(&[(&op.left, and)], &op.right)
            }
            _ => {
                let mut found = false;
                children(expr, &mut |child| found = found || below(&[], child));
                found
            }
        }
    }
}

/// An expression in one spelling, so that two that differ in blanks, quotes or brackets are the same.
fn spelled(expr: &Expr<'_>) -> String {
    let own = match expr {
        Expr::Var(var) => var.id.to_owned(),
        Expr::Const(constant) => format!("{:?}", constant.value),
        Expr::GetAttr(attr) => format!(".{:?}", attr.name),
        Expr::GetItem(item) => match &item.subscript_expr {
            Expr::Const(constant) => return format!(".{:?}({})", constant.value, spelled(&item.expr)),
            _ => "[]".to_owned(),
        },
        Expr::UnaryOp(op) if matches!(op.op, UnaryOpKind::Not) => "not".to_owned(),
        Expr::UnaryOp(_) => "minus".to_owned(),
        Expr::BinOp(op) => format!("binary {}", op.op as u8),
        Expr::Compare(compare) => compare.ops.iter().map(|op| format!("compare {} ", op.op as u8)).collect(),
        Expr::Filter(filter) => format!("| {} {}", filter.name, named(&filter.args)),
        Expr::Test(test) => format!("is {} {}", test.name, named(&test.args)),
        Expr::Call(call) => format!("call {}", named(&call.args)),
        Expr::Slice(slice) => {
            let parts = [&slice.start, &slice.stop, &slice.step].map(Option::is_some);
            format!("slice {parts:?}")
        }
        Expr::IfExpr(_) => "if".to_owned(),
        Expr::List(_) => "list".to_owned(),
        Expr::Tuple(_) => "tuple".to_owned(),
        Expr::Map(_) => "map".to_owned(),
    };
    let mut text = own + "(";
    children(expr, &mut |child| {
        text.push_str(&spelled(child));
        text.push(',');
    });
    text + ")"
}

/// The names of arguments, each by its place.
fn named(args: &[CallArg<'_>]) -> String {
    let name = |arg: &CallArg<'_>| match arg {
        CallArg::Pos(_) => ",".to_owned(),
        CallArg::Kwarg(name, _) => format!("{name},"),
        CallArg::PosSplat(_) => "*,".to_owned(),
        CallArg::KwargSplat(_) => "**,".to_owned(),
    };
    args.iter().map(name).collect()
}

/// The step and the field of `steps.ID.FIELD`, possibly with more behind.
fn field(expr: &Expr<'_>) -> Option<(String, String)> {
    let mut names = names(expr)?.into_iter();
    let root = names.next()?;
    Some((names.next()?, names.next()?)).filter(|_| root == "steps")
}

/// The step that an expression tests, and the ways in which it stands when the test is true.
fn standing(expr: &Expr<'_>) -> Option<(String, Standings)> {
    let (left, right, equal, listed) = match expr {
        Expr::BinOp(op) => match op.op {
            BinOpKind::Eq => (&op.left, &op.right, true, false),
            BinOpKind::Ne => (&op.left, &op.right, false, false),
            BinOpKind::In => (&op.left, &op.right, true, true),
            _ => return None,
        },
        Expr::Compare(compare) => match compare.ops.as_slice() {
            [one] => match one.op {
                CompareOpKind::Eq => (&compare.expr, &one.expr, true, false),
                CompareOpKind::Ne => (&compare.expr, &one.expr, false, false),
                CompareOpKind::In => (&compare.expr, &one.expr, true, true),
                CompareOpKind::NotIn => (&compare.expr, &one.expr, false, true),
                _ => return None,
            },
            _ => return None,
        },
        Expr::Test(test) => {
            let (id, _) = field(&test.expr).filter(|(_, field)| field == "outputs")?;
            return match test.name {
                "defined" => Some((id, Standings::SUCCEEDED)),
                "undefined" => Some((id, Standings::SUCCEEDED.others())),
                _ => None,
            };
        }
        _ => return None,
    };
    let status = |expr: &Expr<'_>| field(expr).filter(|(_, field)| field == "status").map(|(id, _)| id);
    let (id, values) = match (status(left), status(right)) {
        (Some(id), None) => (id, right),
        (None, Some(id)) if !listed => (id, left),
        _ => return None,
    };
    let standings =
        texts(values)?.iter().fold(Standings::NONE, |all, text| all.either(Standings::of_status(text)));
    Some((id, if equal { standings } else { standings.others() }))
}

/// The texts of a constant, one or a list of them.
fn texts(expr: &Expr<'_>) -> Option<Vec<String>> {
    let one = |expr: &Expr<'_>| match expr {
        Expr::Const(constant) => constant.value.as_str().map(str::to_owned),
        _ => None,
    };
    match expr {
        Expr::List(list) => list.items.iter().map(one).collect(),
        Expr::Tuple(tuple) => tuple.items.iter().map(one).collect(),
        other => Some(vec![one(other)?]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_tested_is_known_where_it_counts() {
        // Of `steps.a.outputs`: the ways in which `a` can stand there.
        let all = Standings::ALL;
        let (well, skipped, failed) = (Standings::SUCCEEDED, Standings::SKIPPED, Standings::FAILED);
        for (source, standings) in [
            ("steps.a.outputs.x", all),
            ("steps.a.status == 'succeeded' and steps.a.outputs.x > 1", well),
            ("'succeeded' == steps['a'].status and not (steps.a.outputs.x > 1)", well),
            ("steps.a.outputs.x > 1 and steps.a.status == 'succeeded'", all),
            ("steps.a.status == 'succeeded' or steps.a.outputs.x", well.others()),
            ("steps.a.status != 'succeeded' or steps.a.outputs.x", well),
            ("steps.a.outputs.x if steps.a.status == 'succeeded' else 'none'", well),
            (
                "'none' if steps.a.status in ['skipped', 'failed'] else steps.a.outputs.x",
                skipped.either(failed).others(),
            ),
            ("steps.a.outputs.x if steps.a.status not in ['skipped'] else ''", skipped.others()),
            (
                "steps.a.outputs.x if not (steps.a.status == 'skipped' or steps.a.status == 'failed') else 1",
                skipped.either(failed).others(),
            ),
            (
                "steps.a.outputs.x if steps.a.status == 'skipped' or steps.a.status == 'failed' else 1",
                skipped.either(failed),
            ),
            ("steps.a.outputs is defined and steps.a.outputs.x", well),
            ("steps.a.status | upper == 'SUCCEEDED' and steps.a.outputs.x", well),
            ("steps.b.status == 'succeeded' and steps.a.outputs.x", all),
            ("[1, steps.a.status == 'succeeded' and (steps.a.outputs.x | upper)]", well),
        ] {
            let text = format!("é ${{{{ 1 }}}} ${{{{ {source} }}}}");
            let found = crate::expr::references(&text);
            let last = found.iter().rfind(|one| one.text() == "steps.a.outputs.x").unwrap();
            assert_eq!(Facts::at(&text, &last.span).standings("a"), standings, "{source}");
        }
    }

    #[test]
    fn conditions_follow_from_others() {
        let facts = Facts::of_condition("inputs.a and (not inputs.b) and inputs.list|length>0");
        for (condition, follows) in [
            ("inputs.a", true),
            ("${{ (inputs.a) }}", true),
            ("inputs.list | length > 0", true),
            ("inputs.list | length > 1", false),
            ("inputs.a and not inputs.b", true),
            ("inputs.b", false),
            ("inputs.c or inputs.a", true),
            ("inputs.c and inputs.a", false),
        ] {
            assert_eq!(facts.imply(condition), follows, "{condition}");
        }
        assert!(Facts::of_condition("steps.a.status == 'failed'").imply("steps.a.status != 'skipped'"));
        assert_eq!(Facts::of_condition("1 +"), Facts::default());
    }
}

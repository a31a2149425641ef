//! From a runbook's text and what the command line gives, to a plan.

use std::fmt;
use std::path::{Path, PathBuf};

use runbook_engine::check::codes::SYNTAX;
use runbook_engine::compile;
use runbook_engine::diagnostic::Diagnostic;
use runbook_engine::inputs::{Given, InputError, resolve_inputs};
use runbook_engine::plan::Plan;
use runbook_engine::runbook::{InputKind, Runbook};
use runbook_steps::catalog::CATALOG;
use serde::Deserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde_json::{Map, Value};

use crate::args::Inputs;
use crate::diagnostics;
use crate::exit::{Exit, Failure, Outcome};
use crate::find::Source;
use crate::format;

/// The runbook when it has no error, and every mistake in it.
pub fn compile(source: &Source) -> (Option<Runbook>, Vec<Diagnostic>) {
    if let Some(at) = source.broken {
        let length = char::REPLACEMENT_CHARACTER.len_utf8();
        let message = "this is no UTF-8, and so no YAML";
        let problem = Diagnostic::error(SYNTAX, at..at + length, message);
        return (None, vec![problem.help("save the file as UTF-8")]);
    }
    compile::compile(&source.text, &CATALOG)
}

/// The plan that the source and the inputs make; mistakes in the source are told on the way.
pub fn plan(source: &Source, args: &Inputs) -> Outcome<Plan> {
    let (runbook, found) = compile(source);
    diagnostics::print(source, &found);
    let Some(runbook) = runbook else { return Err(Failure::silent(Exit::Invalid)) };
    let given = all(args, &runbook)?;
    let mut values = resolve_inputs(&runbook, &given).map_err(wrong)?;
    let here =
        std::env::current_dir().map_err(|error| Failure::usage(format!("the current folder: {error}")))?;
    absolute(&runbook, &mut values, &here);
    let plan = runbook.plan(values, &CATALOG).map_err(|found| {
        diagnostics::print(source, &found);
        Failure::silent(Exit::Invalid)
    })?;
    let folder = here.to_str().ok_or_else(|| {
        Failure::usage(format!("the current folder {} has no name in UTF-8", here.display()))
    })?;
    Ok(Plan { folder: Some(folder.to_owned()), ..plan })
}

/// The failure that names each mistake in what was given.
pub fn wrong(errors: Vec<InputError>) -> Failure {
    errors.into_iter().fold(Failure::usage("the inputs are wrong"), |failure, error| {
        let help = error.help.map_or_else(String::new, |help| format!(" ({help})"));
        failure.help(format!("{}{help}", error.message))
    })
}

/// What the command line, the inputs file and the environment give. The environment's file may be for several runbooks: what this one
/// has no input for is told and left out.
fn all(args: &Inputs, runbook: &Runbook) -> Outcome<Vec<(String, Given)>> {
    let Some(file) = file_of_environment().filter(|_| args.file.is_none()) else {
        return given(&args.input, args.file.as_deref());
    };
    let mut given = given(&args.input, Some(&file))?;
    let known = |name: &str| runbook.inputs.iter().any(|input| input.name.value == name);
    let others: Vec<String> = given
        .extract_if(.., |(name, value)| matches!(value, Given::Value(_)) && !known(name))
        .map(|(name, _)| format!("`{name}`"))
        .collect();
    if !others.is_empty() {
        format::warn(&format!(
            "{}, which RUNBOOK_INPUTS names, has values that `{}` has no input for: {}",
            file.display(),
            runbook.name.value,
            others.join(", ")
        ));
    }
    Ok(given)
}

/// What is given beside a plan that has its inputs: the environment's file is not meant then.
pub fn given_anew(args: &Inputs) -> Outcome<Vec<(String, Given)>> {
    given(&args.input, args.file.as_deref())
}

/// The inputs file that the environment names; an empty name is none.
fn file_of_environment() -> Option<PathBuf> {
    std::env::var_os("RUNBOOK_INPUTS").filter(|name| !name.is_empty()).map(PathBuf::from)
}

/// What the command line gives, then what the file gives beside it.
fn given(pairs: &[String], file: Option<&Path>) -> Outcome<Vec<(String, Given)>> {
    let mut given = Vec::new();
    for pair in pairs {
        let (name, text) = pair
            .split_once('=')
            .ok_or_else(|| Failure::usage(format!("`-i {pair}` has no value")).help("write -i NAME=VALUE"))?;
        given.push((name.to_owned(), Given::Text(text.to_owned())));
    }
    let named = given.len();
    for (name, value) in file.map(from_file).transpose()?.unwrap_or_default() {
        if !given[..named].iter().any(|(other, _)| *other == name) {
            given.push((name, Given::Value(value)));
        }
    }
    Ok(given)
}

fn from_file(path: &Path) -> Outcome<Map<String, Value>> {
    let wrong = |why: String| Failure::usage(format!("the inputs file {}: {why}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    serde_yaml::Deserializer::from_str(&text).deserialize_any(Named).map_err(|error| wrong(error.to_string()))
}

/// Values by their names, each of which stands there once; none in an empty file.
struct Named;

impl<'de> Visitor<'de> for Named {
    type Value = Map<String, Value>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a mapping of names to values")
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(Map::new())
    }

    fn visit_none<E: Error>(self) -> Result<Self::Value, E> {
        Ok(Map::new())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        let mut values = Map::new();
        while let Some((name, value)) = entries.next_entry::<String, Value>()? {
            if values.contains_key(&name) {
                return Err(A::Error::custom(format!("`{name}` is there twice: leave one of them out")));
            }
            values.insert(name, value);
        }
        Ok(values)
    }
}

/// A run may be resumed from anywhere: its paths do not depend on where it was started.
fn absolute(runbook: &Runbook, values: &mut Map<String, Value>, here: &Path) {
    let join = |value: &mut Value| {
        if let Value::String(path) = value {
            *path = here.join(&*path).display().to_string();
        }
    };
    for input in &runbook.inputs {
        let Some(value) = values.get_mut(&input.name.value) else { continue };
        match (input.kind, value) {
            (InputKind::Path, value) => join(value),
            (InputKind::List, Value::Array(items)) if input.items == InputKind::Path => {
                items.iter_mut().for_each(join);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_wins_and_keeps_everything_after_the_first_equals_sign() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("in.yaml");
        std::fs::write(&file, "a: 1\nb: [x, y]\n").unwrap();
        let pairs = ["a=k=v".to_owned(), "c=".to_owned()];
        let given = given(&pairs, Some(&file)).unwrap();
        let text = |text: &str| Given::Text(text.to_owned());
        let list = Given::Value(serde_json::json!(["x", "y"]));
        assert_eq!(
            given,
            [("a".to_owned(), text("k=v")), ("c".to_owned(), text("")), ("b".to_owned(), list)]
        );
    }

    #[test]
    fn a_file_that_is_no_mapping_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("in.yaml");
        for text in ["- a\n", "just text", "a: [\n"] {
            std::fs::write(&file, text).unwrap();
            assert_eq!(given(&[], Some(&file)).unwrap_err().exit, Exit::Usage, "{text}");
        }
        std::fs::write(&file, "{ \"size\": 1, \"other\": 2, \"size\": 3 }").unwrap();
        let twice = given(&[], Some(&file)).unwrap_err();
        assert!(twice.exit == Exit::Usage && twice.message.contains("`size` is there twice"), "{twice:?}");
        std::fs::write(&file, "").unwrap();
        assert_eq!(given(&[], Some(&file)).unwrap(), []);
    }
}

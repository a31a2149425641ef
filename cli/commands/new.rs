//! `runbook new`.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use dialoguer::Select;
use runbook_engine::compile::compile;
use runbook_steps::catalog::CATALOG;
use serde_json::json;

use crate::app::App;
use crate::args::New;
use crate::exit::{Exit, Failure, Outcome};
use crate::format;
use crate::prompt::{self, Reply};
use crate::report::describe;
use crate::template::{Field, TEMPLATES, Template};

/// Asks what is not given, and writes a runbook that passes the check.
pub fn run(app: &App, args: &New) -> Outcome {
    let given = settings(&args.set)?;
    let asks = !args.defaults && prompt::attended();
    if asks {
        prompt::begin();
        tokio::spawn(leave_on_ctrl_c());
    }
    let template = match &args.template {
        Some(name) => named(name)?,
        None if asks => ask_template()?,
        None => return Err(not_asked("which template")),
    };
    if let Some(key) = given.keys().find(|key| template.fields.iter().all(|field| field.key != **key)) {
        let keys: Vec<&str> = template.fields.iter().map(|field| field.key).collect();
        let known = if keys.is_empty() { "nothing".to_owned() } else { keys.join(", ") };
        return Err(Failure::usage(format!("the template `{}` has no `{key}`", template.name))
            .help(format!("it asks for {known}")));
    }
    let mut draft = Draft { template, name: "a-name".to_owned(), description: None, values: given };
    draft.name = match &args.name {
        Some(name) => name.clone(),
        None if asks => {
            let valid = |name: &str| draft.with_name(name).check();
            ask("Its name, such as rotate-keys", template.name, &valid)?
        }
        None => return Err(not_asked("which name")),
    };
    draft.check().map_err(Failure::usage)?;
    let path = args.output.clone().unwrap_or_else(|| place(&draft.name));
    // Before anybody is asked for what can not be written.
    if path.exists() {
        return Err(there_is_one(&path));
    }
    if asks {
        let valid = |text: &str| draft.with_description(text).check();
        draft.description = Some(ask("What it is for, in one line", template.description, &valid)?);
        for field in template.fields {
            if !draft.values.contains_key(field.key) {
                let valid = |text: &str| draft.with(*field, text).check();
                let value = ask(field.question, field.default, &valid)?;
                draft.values.insert(field.key.to_owned(), value);
            }
        }
    }
    write(&path, &(schema_line(&path) + &draft.text()))?;
    let shown = path.display();
    if app.json {
        return super::print_json(
            &json!({ "file": shown.to_string(), "template": template.name, "runbook": draft.name }),
        );
    }
    eprintln!("It passes `runbook check`. What it does, and what else a step can do:");
    eprintln!("  runbook graph {shown}");
    eprintln!("  runbook steps");
    super::print(&shown.to_string())
}

/// A prompt that Ctrl-C ends tells it at once; one that did not read the key yet would never know.
async fn leave_on_ctrl_c() {
    if tokio::signal::ctrl_c().await.is_ok() {
        tokio::time::sleep(Duration::from_millis(300)).await;
        eprintln!();
        format::failure(&nothing_written());
        prompt::restore_terminal();
        std::process::exit(Exit::Interrupted.code());
    }
}

/// A runbook in the making.
#[derive(Clone)]
struct Draft {
    template: &'static Template,
    name: String,
    description: Option<String>,
    values: BTreeMap<String, String>,
}

impl Draft {
    fn with_name(&self, name: &str) -> Self {
        Self { name: name.to_owned(), ..self.clone() }
    }

    fn with_description(&self, text: &str) -> Self {
        Self { description: Some(text.to_owned()), ..self.clone() }
    }

    fn with(&self, field: Field, value: &str) -> Self {
        let mut draft = self.clone();
        draft.values.insert(field.key.to_owned(), value.to_owned());
        draft
    }

    fn text(&self) -> String {
        let description = self.description.as_deref().unwrap_or(self.template.description);
        self.template.fill(&self.name, description, &|key| self.values.get(key).cloned())
    }

    /// Whether it passes the check; otherwise what is wrong with what was given.
    fn check(&self) -> Result<(), String> {
        match compile(&self.text(), &CATALOG).1.first() {
            None => Ok(()),
            Some(problem) => {
                // Nobody wrote a default: what is wrong with it is wrong with what was given.
                let broken = problem.message.split_once("breaks its own rules: ");
                let message = broken.map_or(problem.message.as_str(), |(_, why)| why);
                Err(match &problem.help {
                    Some(help) => format!("{message}: {help}"),
                    None => message.to_owned(),
                })
            }
        }
    }
}

fn settings(given: &[String]) -> Outcome<BTreeMap<String, String>> {
    let pair = |text: &String| {
        let (key, value) = text.split_once('=').ok_or_else(|| {
            Failure::usage(format!("`--set {text}` has no `=`")).help("write `--set KEY=VALUE`")
        })?;
        Ok((key.to_owned(), value.to_owned()))
    };
    given.iter().map(pair).collect()
}

fn named(name: &str) -> Outcome<&'static Template> {
    Template::named(name)
        .ok_or_else(|| with_templates(Failure::usage(format!("there is no template `{name}`"))))
}

fn not_asked(what: &str) -> Failure {
    let failure = Failure::usage(format!("{what} is not said, and there is nobody to ask"));
    with_templates(failure.help("write `runbook new NAME --template TEMPLATE`; the templates are"))
}

fn with_templates(failure: Failure) -> Failure {
    let width = TEMPLATES.iter().map(|template| template.name.len()).max().unwrap_or(0);
    let line = |template: &Template| format!("{:width$}  {}", template.name, template.summary);
    TEMPLATES.iter().fold(failure, |failure, template| failure.help(line(template)))
}

fn ask_template() -> Outcome<&'static Template> {
    let width = TEMPLATES.iter().map(|template| template.name.len()).max().unwrap_or(0);
    // A line that is wider than the terminal would be drawn again and again.
    let room = format::width().unwrap_or(80).saturating_sub(4);
    let items = TEMPLATES.iter().map(|template| {
        let line = format!("{:width$}  {}", template.name, template.summary);
        console::truncate_str(&line, room, "...").into_owned()
    });
    let chosen = Select::with_theme(&*prompt::theme())
        .with_prompt("What is it to do")
        .items(items.collect::<Vec<_>>())
        .default(0)
        .report(false)
        .interact_opt()
        .map_err(left)?;
    let template = chosen.map(|at| &TEMPLATES[at]).ok_or_else(nothing_written)?;
    for line in describe::wrap(&format!("{}: {}", template.name, template.summary), room) {
        eprintln!("  {line}");
    }
    Ok(template)
}

fn ask(question: &str, default: &str, valid: &dyn Fn(&str) -> Result<(), String>) -> Outcome<String> {
    match prompt::question(question, default, valid) {
        Ok(Reply::Text(text)) => Ok(text),
        Ok(Reply::Left | Reply::Stop) => Err(nothing_written()),
        Err(error) => Err(left(error.into())),
    }
}

fn left(error: dialoguer::Error) -> Failure {
    let dialoguer::Error::IO(error) = error;
    match error.kind() {
        ErrorKind::Interrupted | ErrorKind::UnexpectedEof => {
            // What was asked stands on the line still.
            eprintln!();
            nothing_written()
        }
        _ => Failure::usage(format!("the terminal can not be read: {error}")).help("nothing was written"),
    }
}

fn nothing_written() -> Failure {
    Failure::new(Exit::Interrupted, "left before the end: nothing was written")
}

/// Beside the other runbooks when there are some.
fn place(name: &str) -> PathBuf {
    let file = format!("{name}.yaml");
    if Path::new("runbooks").is_dir() { Path::new("runbooks").join(file) } else { PathBuf::from(file) }
}

/// The line that tells editors where the schema is, when there is one in a folder above the file.
fn schema_line(path: &Path) -> String {
    let Ok(path) = std::path::absolute(path) else { return String::new() };
    let above = path.ancestors().skip(1).enumerate();
    let mut found = above.filter(|(_, folder)| folder.join(SCHEMA).is_file());
    found.next().map_or_else(String::new, |(up, _)| {
        format!("# yaml-language-server: $schema={}{SCHEMA}\n", "../".repeat(up))
    })
}

const SCHEMA: &str = "schemas/runbook.schema.json";

fn there_is_one(path: &Path) -> Failure {
    Failure::usage(format!("{} is there already, and was left as it is", path.display()))
        .help("give another name, or another place with `--output FILE`")
}

fn write(path: &Path, text: &str) -> Outcome<()> {
    let failed = |error: std::io::Error| match error.kind() {
        ErrorKind::AlreadyExists => there_is_one(path),
        _ => Failure::usage(format!("{}: {error}", path.display())).help("nothing was written"),
    };
    let mut file = OpenOptions::new().write(true).create_new(true).open(path).map_err(failed)?;
    file.write_all(text.as_bytes()).map_err(failed)
}

//! The command line.

use std::path::PathBuf;

use clap::builder::{PossibleValue, PossibleValuesParser, Styles};
use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use crate::template::TEMPLATES;

const ABOUT: &str = "Runs dangerous operational procedures, written as YAML, to the end: frozen, snapshotted, confirmed, resumable.";

const AFTER: &str = "\
Examples:
  runbook check reset-chatkit.yaml          look for mistakes, do nothing
  runbook exec reset-chatkit -i environment=staging
  runbook resume                            go on with the unfinished run
  runbook cancel                            end it, and put back what it froze

RUNBOOK_LOG=debug shows what the program itself does.

Exit codes:
  0 succeeded       4 a step or gate failed      8 busy: owned by another
  1 a bug           5 waiting for a person      10 a limit was reached
  2 usage, inputs   6 cancelled                130 stopped by Ctrl-C, resumable
  3 runbook invalid 7 the state store failed   143 stopped by SIGTERM, resumable
                    9 not as in the plan";

/// The whole command line.
#[derive(Debug, Parser)]
#[command(name = "runbook", version, about = ABOUT, after_help = AFTER, styles = Styles::plain())]
#[command(disable_help_subcommand = true, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,

    /// Where runs are kept: `sqlite:PATH`. The default is a file in the XDG state directory.
    #[arg(long, global = true, value_name = "URL", env = "RUNBOOK_STATE", hide_env_values = true)]
    pub state: Option<String>,

    /// Print machine-readable data on stdout: one event a line while a run goes on, one document otherwise.
    #[arg(long, global = true)]
    pub json: bool,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    Plan(Plan),
    Exec(Exec),
    Resume(Resume),
    Answer(Answer),
    Cancel(Cancel),
    Runs(Runs),
    Show(Show),
    Logs(Logs),
    New(New),
    Check(Check),
    Explain(Explain),
    Graph(Graph),
    Steps(Steps),
    Schema(Schema),
    Reconcile(Reconcile),
    Completions(Completions),
}

/// Run a runbook from its first step.
///
/// The run keeps its own copy of the definition and of the inputs. Whatever happens to this process, `runbook resume` goes on where
/// it stopped. Without a terminal a question makes the run wait (exit 5) until `runbook answer`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  runbook exec runbooks/reset-chatkit.yaml -i environment=staging
  runbook exec reset-chatkit --inputs staging.yaml -i batch_size=50
  runbook exec reset-chatkit --json > events.jsonl")]
pub struct Exec {
    /// A file, or the name of one in `runbooks/` here or in a folder above, with or without `.yaml`. With `--plan` the plan's own one,
    /// unless another is named.
    #[arg(value_name = "FILE|NAME", required_unless_present = "plan")]
    pub runbook: Option<String>,

    #[command(flatten)]
    pub inputs: Inputs,

    /// Start the run with a plan that `runbook plan -o` saved. The world is read again first: when anything is not as the plan says,
    /// nothing is done (exit 9); with `--json` one line `{"refused": …}` names each difference. What is destroyed is in the plan, and nothing
    /// else is.
    #[arg(long, value_name = "FILE", conflicts_with = "dry_run")]
    pub plan: Option<PathBuf>,

    /// Only show what would be done: the same as `runbook plan`.
    #[arg(long)]
    pub dry_run: bool,

    /// Answer the question of a step beforehand; may be repeated, in the order of its phrases. Only with `--plan`, and only what the plan
    /// says that it asks.
    #[arg(long, value_name = "STEP=PHRASE", requires = "plan")]
    pub confirm: Vec<String>,

    /// Who looked at the plan. The default is the user and the host.
    #[arg(long = "as", value_name = "NAME", requires = "plan")]
    pub seen_by: Option<String>,
}

/// The values of a runbook's inputs.
#[derive(Debug, Args)]
pub struct Inputs {
    /// The value of an input; may be repeated. It wins over the inputs file.
    #[arg(short = 'i', long = "input", value_name = "KEY=VALUE")]
    pub input: Vec<String>,

    /// A YAML or JSON file with the values of inputs; without it, the one that the variable RUNBOOK_INPUTS names.
    #[arg(long = "inputs", value_name = "FILE")]
    pub file: Option<PathBuf>,
}

/// Show what a run would do, by reading the world and changing nothing.
///
/// Every read of the runbook is done and no write. For each step it shows what would be done, how many items it would touch and some of
/// them, and what would be asked. What depends on what an earlier step does is known after that step. A plan that is saved can be
/// looked at and compared, and a run that is started with it touches nothing else. A step that would fail makes it exit 4; then
/// nothing is saved.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
#[command(after_help = "\
Examples:
  runbook plan reset-chatkit -i environment=staging -o plan.json
  runbook plan show plan.json
  runbook plan diff yesterday.json today.json
  runbook exec --plan plan.json")]
pub struct Plan {
    #[command(subcommand)]
    pub what: Option<PlanCommand>,

    /// A file, or the name of one in `runbooks/` here or in a folder above, with or without `.yaml`.
    #[arg(value_name = "FILE|NAME", required = true)]
    pub runbook: Option<String>,

    #[command(flatten)]
    pub inputs: Inputs,

    /// Save it in this file, and the sets of items in a folder beside it.
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,

    /// For how long a saved plan can be applied, such as 30m or 24h. A run that was started in time begins no step that destroys after it;
    /// a delete that has begun by then is finished.
    #[arg(long, value_name = "DURATION", default_value = "24h")]
    pub expires: String,
}

/// What is done with saved plans.
#[derive(Debug, Subcommand)]
pub enum PlanCommand {
    /// Show a saved plan.
    Show {
        /// The plan.
        file: PathBuf,
    },
    /// Show what differs between two saved plans. Exit 9 when something does.
    Diff {
        /// One plan.
        before: PathBuf,
        /// The other one.
        after: PathBuf,
    },
}

/// Go on with a run from where it stands.
///
/// Finished steps keep their outputs, a batch whose result is unknown is settled by reading the world, and a step that failed is
/// tried again. The run's own copy of the definition is used, even if the file has changed since.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  runbook resume            the only unfinished run
  runbook resume x7k2       the run whose id ends like this")]
pub struct Resume {
    /// The run: its id, or 4 characters or more of its beginning or end. Without it, the only unfinished run.
    pub run: Option<String>,
}

/// Answer what a run asks, and go on with it.
///
/// A phrase is compared before anything is recorded: a wrong one changes nothing. A question about a step whose outcome is not
/// known is answered with `done`, `retry` or `abort`; of a hold that could not be lifted a person says `done` who has lifted it by
/// hand, and `abandon` who gives it up as it is (exit 4). When another process works on the run it takes the answer up; otherwise this
/// one goes on with the run.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  runbook answer x7k2 'RESET CHATKIT'
  runbook answer x7k2 confirm 'RESET CHATKIT'
  runbook answer x7k2 restart done
  runbook answer x7k2 freeze done")]
pub struct Answer {
    /// The run: its id, or 4 characters or more of its beginning or end.
    pub run: String,

    /// The step that asks, when several do, and the answer. Without an answer it is asked for on the terminal.
    #[arg(value_name = "[STEP] TEXT", num_args = 0..=2)]
    pub words: Vec<String>,
}

/// End a run without going on, and put back everything it changed for its own time.
///
/// A process that works on the run is told and waited for; otherwise this one does it. What somebody else changed meanwhile is left
/// alone and said (exit 4). A run whose record can not be read is ended with `--abandon`, which puts nothing back: the run gives up
/// its lock and what it holds, and its log says who wanted that (exit 4 when it held something). What a killed step left behind and
/// can not be reached now, with other secrets than then, keeps the run open (exit 4): cancel it again when it can be, or end it with
/// `--abandon`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  runbook cancel            the only unfinished run
  runbook cancel x7k2       the run whose id ends like this
  runbook cancel reset-20261121-0226-x7k2 --abandon")]
pub struct Cancel {
    /// The run: its id, or 4 characters or more of its beginning or end. Without it, the only unfinished run.
    pub run: Option<String>,

    /// Give up a run whose record can not be read, or that a cancel could not tidy up. Asks for its id as a phrase.
    #[arg(long, requires = "run")]
    pub abandon: bool,

    /// The id of the run that is given up, where there is no terminal to ask on.
    #[arg(long, value_name = "RUN", requires = "abandon")]
    pub confirm: Option<String>,
}

/// List the runs, newest first.
#[derive(Debug, Args)]
pub struct Runs {
    /// How many at most.
    #[arg(short = 'n', long, default_value_t = 20)]
    pub limit: usize,

    /// Only those that are not finished.
    #[arg(long)]
    pub unfinished: bool,
}

/// Show a run: its steps, what it holds, and what to type next.
#[derive(Debug, Args)]
pub struct Show {
    /// The run: its id, or 4 characters or more of its beginning or end. Without it, the newest run.
    pub run: Option<String>,
}

/// Print what a run did and said, line by line.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  runbook logs              of the newest run
  runbook logs x7k2 -f      and what comes, until it ends
  runbook logs --step purge --json")]
pub struct Logs {
    /// The run: its id, or 4 characters or more of its beginning or end. Without it, the newest run.
    pub run: Option<String>,

    /// Go on printing until the run ends.
    #[arg(short, long)]
    pub follow: bool,

    /// Only what concerns this step.
    #[arg(long, value_name = "ID")]
    pub step: Option<String>,
}

/// Look for every mistake in runbooks without doing anything.
///
/// Each mistake has a code, which `runbook explain CODE` explains. Errors make it exit 3, a file that can not be read 2; warnings alone
/// are a success.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  runbook check runbooks/*.yaml
  runbook check reset-chatkit --json
  runbook check --format sarif runbooks/*.yaml > runbook.sarif
  git show HEAD:runbooks/reset.yaml | runbook check -")]
pub struct Check {
    /// Files, or names of runbooks; `-` is stdin.
    #[arg(required = true, value_name = "FILE|NAME")]
    pub runbooks: Vec<String>,

    /// How to tell it: on stderr for people; as JSON, as SARIF 2.1.0 or as annotations of a GitHub workflow on stdout.
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<CheckFormat>,
}

/// How `check` tells what it finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum CheckFormat {
    /// Source lines with carets.
    Human,
    /// One list with an entry for each file.
    Json,
    /// The Static Analysis Results Interchange Format.
    Sarif,
    /// Workflow commands.
    Github,
}

/// Explain a part of the language, or a code that `check` prints with a wrong and a right example.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  runbook explain              all topics and codes, a line each
  runbook explain step         the keys of a step: needs, if, retry, timeout ...
  runbook explain expressions  what may stand in ${{ }}
  runbook explain RB0501       a code; 501 is enough")]
pub struct Explain {
    /// A topic (runbook, step, inputs, secrets, connections, collections, expressions) or a code.
    #[arg(value_name = "TOPIC or CODE")]
    pub what: Option<String>,
}

/// Write a new runbook that passes `check`: asks what it needs to know, and overwrites nothing.
///
/// Without a terminal, or with `--defaults`, nothing is asked: the name and the template must be given, and what is not set has its
/// default.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  runbook new
  runbook new clear-old-logs --template clean-up --set pattern='*.log'
  runbook new is-it-well --template health-check --defaults --output checks/is-it-well.yaml")]
pub struct New {
    /// Its name, kebab-case.
    #[arg(value_name = "NAME")]
    pub name: Option<String>,

    /// What it begins from.
    #[arg(long, value_name = "TEMPLATE", value_parser = template_names())]
    pub template: Option<String>,

    /// What the template would ask; may be repeated.
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,

    /// Ask nothing, and take the default for what is not given.
    #[arg(long)]
    pub defaults: bool,

    /// The file to write. Without it: NAME.yaml, in `runbooks/` when there is such a folder here.
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

fn template_names() -> PossibleValuesParser {
    TEMPLATES
        .iter()
        .map(|template| PossibleValue::new(template.name).help(template.summary))
        .collect::<Vec<_>>()
        .into()
}

/// Draw a runbook: what runs after what, what destroys, who is asked, and what is frozen meanwhile.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  runbook graph reset-chatkit
  runbook graph reset-chatkit --format dot | dot -Tsvg > reset-chatkit.svg
  runbook graph reset-chatkit --format mermaid > reset-chatkit.mmd")]
pub struct Graph {
    /// A file, or the name of a runbook.
    #[arg(value_name = "FILE|NAME")]
    pub runbook: String,

    /// How it is drawn.
    #[arg(long, value_enum, default_value = "tree")]
    pub format: GraphFormat,
}

/// How a runbook is drawn.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum GraphFormat {
    /// For the terminal, from top to bottom.
    Tree,
    /// A Mermaid flowchart, which GitHub and many wikis draw.
    Mermaid,
    /// For Graphviz.
    Dot,
}

/// List the step kinds, or explain one.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  runbook steps
  runbook steps delete-batch")]
pub struct Steps {
    /// A step kind.
    pub kind: Option<String>,
}

/// Print a JSON Schema: of runbooks, for editors; of plans or of events, for programs.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  runbook schema > runbook.schema.json
  runbook schema event > event.schema.json

A first line such as `# yaml-language-server: $schema=runbook.schema.json` makes an editor complete and check a runbook.")]
pub struct Schema {
    /// What is described.
    #[arg(value_enum, value_name = "WHAT", default_value = "runbook")]
    pub of: SchemaOf,
}

/// What has a schema.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum SchemaOf {
    /// What an author writes.
    Runbook,
    /// What a run is frozen to: the definition with its inputs resolved.
    Plan,
    /// What `runbook plan -o` saves.
    SavedPlan,
    /// A line of `runbook exec --json`.
    Event,
}

/// Put back what was held longer than its `max_hold`, in every run that no process works on.
///
/// With `--json` it prints one list of everything that was overdue, empty when nothing was: `run`, `obligation`, `label`, and `outcome`,
/// which is `put-back`, `never-changed`, `by-hand`, `undone-by-others` (the original was there before anything put it back: whoever did that, or this
/// environment leads to another system than the one that was frozen), `left-alone` (somebody else's value is there: `present`), `busy` (the process
/// that works on the run puts it back) or `still-held` (see `error`). What is still held, was left alone or was undone by others makes it exit 4.
#[derive(Debug, Args)]
pub struct Reconcile {}

/// Print a completion script for a shell.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  runbook completions bash > ~/.local/share/bash-completion/completions/runbook")]
pub struct Completions {
    /// The shell.
    pub shell: Shell,
}

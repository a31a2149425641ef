//! `command`: runs a program.

use std::collections::BTreeMap;
use std::path::PathBuf;

use async_trait::async_trait;
use runbook_engine::duration::Duration;
use runbook_engine::error::{ErrorKind, Outcome, StepError};
use runbook_engine::kinds::{Class, Effect, Repeat};
use runbook_engine::saved::Foresight;
use runbook_engine::step::{Intent, Settlement};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::effect::{Declared, declared, uncharged};
use crate::had;
use crate::kind::{Context, End, Step, read_now, would};
use crate::process::{Ended, Finished, IfOrphaned, Process};
use crate::text::{Text, in_brief};

/// Runs a program, without a shell: `argv` is passed on as it is, and nothing in it is interpreted. Where a shell is needed, name
/// it (`[sh, -c, "…"]`) and hand values over in `env`.
///
/// The program has no standard input and its own process group. When the run stops it is told to end (TERM), and killed with its
/// children after `grace`. What it leaves running when it ends by itself is not touched; a server that it starts should send its
/// output to a file, because nobody reads it any more. Killed itself (`kill -9`), runbook can not do that: then the program and its
/// children are ended when the run is resumed or cancelled, before anything else is done.
///
/// What it prints is shown, and its end is stored with the run: in the state, the log and the report. Of secrets only those that the
/// runbook declares are replaced. A program that prints others, such as one that makes a password, needs `output: hidden`.
///
/// Without `effect` nobody knows what it does: after a crash in the middle of it a person is asked whether it happened, a plan binds it
/// like what destroys, and no rule asks for a snapshot or a confirmation before it. `check` warns of that in a runbook for production
/// (RB0507).
///
/// Of a program that destroys, the limits are asked before it starts, for as many items as `effect.items` says. An attempt that
/// failed, or of which nobody knows what it did, has been charged already: its repetition is not charged again. One whose success was
/// recorded before runbook was killed is not run again.
///
/// With `check` the step may be entered again after any crash: a second program tells whether the first one had its effect.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("not" = {"required": ["parse", "output"]}))]
pub struct Command {
    /// The program and its arguments, one item each.
    #[schemars(length(min = 1))]
    argv: Vec<Text>,
    /// Variables in addition to those that runbook itself has. Secrets may be used here, and only here.
    #[serde(default)]
    #[schemars(extend("propertyNames" = {
        "pattern": "^[^=]+$",
        "patternErrorMessage": "the name of a variable, which is not empty and holds no `=`",
    }))]
    env: BTreeMap<String, Text>,
    /// The folder it starts in. Default: the one runbook was started in.
    #[serde(default)]
    cwd: Option<PathBuf>,
    /// How long it may take before it is stopped. Default: no limit of its own.
    #[serde(default)]
    timeout: Option<Duration>,
    /// How long it has to end by itself, once told to, before it is killed. Default: 10s.
    #[serde(default = "grace")]
    grace: Duration,
    /// The exit codes that count as success. Default: `[0]`.
    #[serde(default = "zero")]
    expect_exit: Vec<i32>,
    /// What it does to the world. Without it nobody knows: the step counts as able to do anything, and when it is not known
    /// whether it ran, a person is asked.
    #[serde(default)]
    effect: Option<Declared>,
    /// A look that tells whether it has had its effect. It is taken when an attempt was cut short, and the program is not run again
    /// when the effect is there. Outputs that the cut-short attempt would have had are then those of the check.
    #[serde(default)]
    check: Option<Check>,
    /// What its standard output is. Default: `none`.
    #[serde(default)]
    parse: Parse,
    /// What becomes of what it prints. Default: `kept`. It does not go with `parse`, which makes outputs of it.
    #[serde(default)]
    output: Printed,
}

/// A program that only looks: exit code 0 says that the effect is there, 1 that it is not. With any other nothing is known, and the
/// step fails.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Check {
    /// The program and its arguments, one item each. It gets the folder and the limits of time of the step.
    #[schemars(length(min = 1))]
    argv: Vec<Text>,
    /// Variables in addition to `env` of the step. Secrets may be used here.
    #[serde(default)]
    env: BTreeMap<String, Text>,
}

/// What becomes of what a program prints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Printed {
    /// It is shown live, and its end is an output and stands in the log and in the report. Declared secrets are replaced.
    #[default]
    Kept,
    /// It is read and dropped: neither shown nor stored anywhere, also when the program fails. The output `stdout` is empty then.
    Hidden,
}

/// What the standard output of a program is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Parse {
    /// Text for people.
    #[default]
    None,
    /// One JSON value: the output `json`. At most 64 KiB.
    Json,
    /// A list of lines: the output `lines`. At most 64 KiB.
    Lines,
}

fn grace() -> Duration {
    Duration::from_secs(10)
}

fn zero() -> Vec<i32> {
    vec![0]
}

/// What a program left.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CommandOutputs {
    /// Its exit code.
    pub exit_code: i32,
    /// The end of its standard output, at most 64 KiB, without secrets.
    pub stdout: String,
    /// Its standard output as JSON, with `parse: json`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub json: Option<Value>,
    /// The lines of its standard output, with `parse: lines`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lines: Option<Vec<String>>,
    /// How long it ran, in milliseconds.
    pub duration_ms: u64,
}

#[async_trait]
impl Step for Command {
    const NAME: &'static str = "command";
    const FLEETING_OUTPUTS: &'static [&'static str] = &["/duration_ms"];
    const SUMMARY: &'static str = "Runs a program, and stops it with its children when the run stops";
    const EXAMPLE: &'static str = "\
- id: reindex
  uses: command
  with:
    argv: [reindexer, --corpus, chatkit]
    env: { API_KEY: \"${{ secrets.store_key }}\" }
    timeout: 10m
    effect: { class: write, repeat: repeatable }
";
    const SECRET_FIELDS: &'static [&'static str] = &["/env/*", "/check/env/*"];
    const SHOWN_FIELDS: &'static [&'static str] = &["/argv", "/env"];
    type Outputs = CommandOutputs;

    fn effect(with: &Value) -> Effect {
        let effect = declared(with).unwrap_or(Effect::UNDETERMINED);
        match with.get("check") {
            Some(check) if !check.is_null() => Effect { repeat: Repeat::Repeatable, ..effect },
            _ => effect,
        }
    }

    fn counts(with: &Value) -> bool {
        with.pointer("/effect/items").is_some_and(|items| !items.is_null())
    }

    async fn foresee(self, effect: Effect, cx: &Context) -> Result<Foresight, StepError> {
        if effect.class == Class::Read {
            return read_now(self, cx).await;
        }
        let argv: Vec<String> = self.argv.iter().map(|word| in_brief(&cx.redactor.text(&word.0))).collect();
        let env: Vec<String> = self
            .env
            .iter()
            .map(|(name, value)| format!("{name}={}", in_brief(&cx.redactor.text(&value.0))))
            .collect();
        let env = if env.is_empty() { String::new() } else { format!(" with {}", env.join(", ")) };
        let folder = self.cwd.as_ref().map_or_else(String::new, |cwd| format!(" in {}", cwd.display()));
        let items = self.effect.map_or(0, Declared::destroyed);
        Ok(Foresight { items, ..would(format!("run `{}`{env}{folder}", Process::new(&argv).line())) })
    }

    async fn run(self, cx: &Context) -> Result<End<CommandOutputs>, StepError> {
        cx.checkpoint()?;
        let process = self.process(&self.argv, &self.env);
        let announced = match self.enter(cx).await? {
            Entered::Had(outputs) => return Ok(End::Done(*outputs)),
            Entered::Announced(announced) => Some(announced),
            Entered::Uncounted => None,
        };
        let result = match process.run(&cx.engine, &cx.stop).await {
            Ok(finished) => self.judge(&process, &finished),
            Err(error) => Err(error),
        };
        if let Some(announced) = announced {
            announced.settle(&result, cx).await?;
        }
        result.map(End::Done)
    }
}

/// What a program that is about to run is to the ledger.
enum Entered {
    /// It ran, and its success was recorded or seen: this is what it came to.
    Had(Box<CommandOutputs>),
    /// It destroys, or can be looked for, and is announced.
    Announced(Announced),
    /// It destroys nothing, and nothing tells whether it ran.
    Uncounted,
}

/// A program that is about to run.
struct Announced {
    batch: u64,
    items: u64,
    series: u32,
}

impl Announced {
    /// Records what became of it; of one that was cut short nobody knows.
    async fn settle(
        &self,
        result: &Result<CommandOutputs, StepError>,
        cx: &Context,
    ) -> Result<(), StepError> {
        let settlement = match result {
            Ok(outputs) => {
                let outcome = json!({ "exit_code": outputs.exit_code });
                Settlement { done: self.items, ..had::settlement(outputs, self.series, outcome)? }
            }
            Err(error) if error.outcome == Outcome::Unknown => return Ok(()),
            Err(error) => {
                let outcome = json!({ "failed": error.message, "causes": error.causes });
                Settlement { outcome: cx.redactor.value(&outcome), ..Settlement::default() }
            }
        };
        cx.ledger.settle(self.batch, settlement).await
    }
}

impl Command {
    fn process(&self, argv: &[Text], env: &BTreeMap<String, Text>) -> Process {
        Process {
            argv: argv.iter().map(|word| word.0.clone()).collect(),
            env: env.iter().map(|(name, value)| (name.clone(), value.0.clone())).collect(),
            cwd: self.cwd.clone(),
            timeout: self.timeout.map(|timeout| timeout.0),
            grace: self.grace.0,
            quiet: self.output == Printed::Hidden,
            if_orphaned: IfOrphaned::End,
        }
    }

    /// Asks the limits for what a program that destroys will destroy, and records that it is about to start. Of an attempt that was
    /// cut short the check is asked.
    async fn enter(&self, cx: &Context) -> Result<Entered, StepError> {
        let items = self.effect.map_or(0, Declared::destroyed);
        let destroys = self.effect.is_some_and(|effect| effect.class == Class::Destroy);
        if !destroys && self.check.is_none() {
            return Ok(Entered::Uncounted);
        }
        let series = had::series(cx).await?;
        let view = cx.ledger.view().await?;
        if let Some(outputs) = had::outputs(&view, series) {
            return Ok(Entered::Had(Box::new(outputs)));
        }
        let seen = match &self.check {
            Some(check) if !view.unsettled.is_empty() => self.look(check, cx).await?,
            _ => None,
        };
        let settlement = match &seen {
            Some(outputs) => {
                Settlement { already: items, ..had::settlement(outputs, series, json!({ "seen": true }))? }
            }
            None => Settlement { outcome: json!({ "unknown": true }), ..Settlement::default() },
        };
        for batch in view.unsettled {
            cx.ledger.settle(batch.number, settlement.clone()).await?;
        }
        if let Some(outputs) = seen {
            cx.live.say("it has had its effect already, and is not run again");
            return Ok(Entered::Had(Box::new(outputs)));
        }
        let charged_items = if items == 0 { 0 } else { uncharged(items, cx).await? };
        let what = json!({ "program": self.argv.first().map(|word| &word.0) });
        let intent = Intent { what: cx.redactor.value(&what), items, charged_items, charged_bytes: 0 };
        let batch = cx.ledger.intend(intent).await?.number;
        Ok(Entered::Announced(Announced { batch, items, series }))
    }

    /// What the check printed, when it says that the effect is there.
    async fn look(&self, check: &Check, cx: &Context) -> Result<Option<CommandOutputs>, StepError> {
        let env = self.env.iter().chain(&check.env);
        let env = env.map(|(name, value)| (name.clone(), value.clone())).collect();
        let process = self.process(&check.argv, &env);
        let finished = process.run(&cx.engine, &cx.stop).await?;
        match (finished.ended, finished.code()) {
            (Ended::Exited, Some(0)) => Ok(Some(CommandOutputs {
                exit_code: 0,
                stdout: self.kept(&finished.stdout.text),
                json: None,
                lines: None,
                duration_ms: u64::try_from(finished.took.as_millis()).unwrap_or(u64::MAX),
            })),
            (Ended::Exited, Some(1)) => Ok(None),
            (Ended::Stopped, _) => Err(StepError::interrupted()),
            _ => {
                let told = format!("the check `{}` {}", process.program(), finished.how());
                let error = StepError::refused(format!(
                    "{told}: nobody knows whether `{}` took effect",
                    self.argv[0].0
                ));
                Err(self.with_last_line(error, &finished))
            }
        }
    }

    fn judge(&self, process: &Process, finished: &Finished) -> Result<CommandOutputs, StepError> {
        let program = process.program();
        let effect = self.effect.map_or(Effect::UNDETERMINED, Declared::effect);
        let once = effect.repeat == Repeat::Once || self.check.is_some();
        let ended_early = |kind, message: String| {
            let error = StepError::new(kind, message);
            if once { error.unknown() } else { error }
        };
        match finished.ended {
            Ended::Exited => {}
            Ended::TimedOut => {
                let limit = self.timeout.unwrap_or_default();
                let message = format!("`{program}` did not end within {limit} and was stopped");
                return Err(self.with_last_line(ended_early(ErrorKind::Timeout, message), finished));
            }
            Ended::Stopped if once => {
                let message = format!("`{program}` was stopped before its end");
                return Err(self.with_last_line(ended_early(ErrorKind::Interrupted, message), finished));
            }
            Ended::Stopped => return Err(StepError::interrupted()),
        }
        let exit_code = finished.code().filter(|code| self.expect_exit.contains(code)).ok_or_else(|| {
            let error = StepError::refused(format!("`{program}` {}", finished.how()));
            self.with_last_line(error, finished)
        })?;
        let mut outputs = CommandOutputs {
            exit_code,
            stdout: self.kept(&finished.stdout.text),
            json: None,
            lines: None,
            duration_ms: u64::try_from(finished.took.as_millis()).unwrap_or(u64::MAX),
        };
        if self.parse != Parse::None && finished.stdout.cut {
            let message = format!("the output of `{program}` is longer than the 64 KiB that are parsed");
            return Err(StepError::refused(message).with_help("let it write to a file, and print less"));
        }
        match self.parse {
            Parse::None => {}
            Parse::Lines => outputs.lines = Some(outputs.stdout.lines().map(str::to_owned).collect()),
            Parse::Json => {
                let parsed = serde_json::from_str(&outputs.stdout).map_err(|error| {
                    StepError::refused(format!("the output of `{program}` is not JSON")).with_source(&error)
                })?;
                outputs.json = Some(parsed);
            }
        }
        Ok(outputs)
    }

    /// What is kept of what it printed.
    fn kept(&self, printed: &str) -> String {
        if self.output == Printed::Hidden { String::new() } else { printed.to_owned() }
    }

    fn with_last_line(&self, mut error: StepError, finished: &Finished) -> StepError {
        if self.output == Printed::Kept {
            error.causes.extend(finished.last_line());
        }
        error
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_nobody_declared_is_undetermined() {
        assert_eq!(Command::effect(&json!({"argv": ["x"]})), Effect::UNDETERMINED);
        let read = json!({"argv": ["x"], "effect": {"class": "read", "repeat": "repeatable"}});
        assert_eq!(Command::effect(&read), Effect::READ);
        let unreadable = json!({"argv": ["x"], "effect": "${{ inputs.effect }}"});
        assert_eq!(Command::effect(&unreadable), Effect::UNDETERMINED);
    }

    #[test]
    fn a_check_makes_it_repeatable() {
        let once =
            json!({"argv": ["x"], "effect": {"class": "write", "repeat": "once"}, "check": {"argv": ["y"]}});
        assert_eq!(Command::effect(&once), Effect::WRITE);
        assert_eq!(
            Command::effect(&json!({"argv": ["x"], "check": {"argv": ["y"]}})).class,
            Class::Undetermined
        );
    }
}

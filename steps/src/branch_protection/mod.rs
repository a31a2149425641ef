//! Step kind `branch-protection`: nothing gets into a branch without these checks.

mod rules;

use async_trait::async_trait;
use runbook_engine::error::StepError;
use runbook_engine::kinds::Effect;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use self::rules::Rules;
use crate::connections::github::Github;
use crate::kind::{Context, End, Step};
use crate::one_or_many::OneOrMany;
use crate::text::in_brief;

/// Looks whether GitHub requires checks to have passed before anything gets into a branch, and fails unless all of them are required.
///
/// A check is required when it is among the `contexts` or the `checks` of the branch's protection, or of a ruleset that is active for the
/// branch. Names are compared as they are, letter for letter: what the page of a pull request shows as `CI / build` is required as `build`
/// where it is the job of a workflow.
///
/// A branch that is not protected fails the step. A repository or branch that is not there, a token that may not look, and a server in
/// trouble say nothing about the branch: they are errors, and not that. Of a server that knows of no rulesets, as older ones of GitHub
/// Enterprise do not, only the protection counts.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BranchProtection {
    /// The name of a connection of type `github`.
    pub connection: String,
    /// The repository, `OWNER/NAME`.
    #[schemars(extend("pattern" = r"^[A-Za-z0-9-]+/[A-Za-z0-9._-]+$", "patternErrorMessage" = "a repository as `OWNER/NAME`"))]
    pub repository: String,
    /// The branch. Default: `main`.
    #[serde(default = "default_branch")]
    #[schemars(length(min = 1))]
    pub branch: String,
    /// The checks that have to be required, by their exact names.
    pub required: OneOrMany<String>,
    /// What is done: `plan` tells what it finds, and its status is `DRY_RUN` whatever that is. Default: `check`.
    #[serde(default)]
    pub mode: Mode,
}

fn default_branch() -> String {
    "main".to_owned()
}

/// What is done about what is found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Tells it.
    Plan,
    /// Fails unless every check is required.
    #[default]
    Check,
}

/// What protects the branch.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Outputs {
    /// `PASS`; of a `plan`, `DRY_RUN`, which is no pass.
    pub status: Status,
    /// The repository and the branch, with the server.
    pub branch: String,
    /// Whether the branch has a protection of its own, beside rulesets.
    pub protected: bool,
    /// The checks that are required, each once, by name.
    pub required: Vec<String>,
    /// Those asked for that are not required; empty unless this is a `plan`.
    pub missing: Vec<String>,
}

/// How it went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Status {
    /// Every check is required.
    Pass,
    /// Nobody asked whether it is.
    DryRun,
}

#[async_trait]
impl Step for BranchProtection {
    const NAME: &'static str = "branch-protection";
    const SUMMARY: &'static str = "Check that GitHub requires checks before anything gets into a branch";
    const EXAMPLE: &'static str = "\
- id: gate_is_required
  uses: branch-protection
  with:
    connection: github
    repository: balungpisah/gotong-royong
    branch: main
    required: CI / surreal-release-gates
";
    type Outputs = Outputs;

    fn effect(_: &Value) -> Effect {
        Effect::READ
    }

    async fn run(self, cx: &Context) -> Result<End<Outputs>, StepError> {
        if self.required.0.iter().all(String::is_empty) {
            return Err(StepError::invalid("`required` is empty: name the checks that have to be required"));
        }
        let github = cx.resources.connection::<Github>(&self.connection)?;
        cx.checkpoint()?;
        let rules = cx.unless_abandoned(Rules::of(&github, &self.repository, &self.branch)).await?;
        let missing: Vec<String> =
            self.required.0.iter().filter(|name| !rules.checks.contains(*name)).cloned().collect();
        let branch = format!("{} of {} at {}", self.branch, self.repository, github.describe());
        if self.mode == Mode::Check && !missing.is_empty() {
            return Err(refused(&branch, &rules, &missing));
        }
        Ok(End::Done(Outputs {
            status: if self.mode == Mode::Check { Status::Pass } else { Status::DryRun },
            branch,
            protected: rules.protected,
            required: rules.checks.into_iter().collect(),
            missing,
        }))
    }
}

/// That checks are not required, with what is.
fn refused(branch: &str, rules: &Rules, missing: &[String]) -> StepError {
    let quoted = |names: &[String]| {
        names.iter().map(|name| format!("`{}`", in_brief(name))).collect::<Vec<_>>().join(", ")
    };
    let there: Vec<String> = rules.checks.iter().cloned().collect();
    let message = match (rules.protected, there.is_empty()) {
        (false, true) => format!("{branch} is not protected: {} must be required", quoted(missing)),
        (true, true) => format!("{branch} requires no checks, and {} must be required", quoted(missing)),
        (_, false) => {
            format!("{branch} does not require {}; it requires {}", quoted(missing), quoted(&there))
        }
    };
    // The name that a page shows has the workflow before it, and often is not the name that is required.
    let job = |name: &str| name.rsplit(" / ").next().unwrap_or(name).trim().to_lowercase();
    let near = missing.iter().find_map(|name| {
        let other = there.iter().find(|other| job(other) == job(name))?;
        Some(format!("`{other}` is another name than `{name}`: require exactly what the check is called, or mend `required`"))
    });
    let help = near.unwrap_or_else(|| {
        "have the checks required by the branch's protection or by a ruleset, and resume the run".to_owned()
    });
    StepError::gate(message).with_help(help)
}

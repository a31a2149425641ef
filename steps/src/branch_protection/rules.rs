//! What GitHub requires of a branch, from everywhere that it may be said.

use std::collections::BTreeSet;

use reqwest::{Method, Response, StatusCode};
use runbook_engine::error::StepError;
use serde::Deserialize;
use serde_json::Value;

use crate::connections::github::Github;
use crate::connections::http::{check_status, read_json, segment, transport_error};
use crate::retry::patiently;

/// What is required.
#[derive(Debug, Default)]
pub(super) struct Rules {
    /// Whether the branch has a protection of its own.
    pub(super) protected: bool,
    /// The names of the checks.
    pub(super) checks: BTreeSet<String>,
}

/// The longest answer, in bytes.
const ANSWER: usize = 4 * 1024 * 1024;

/// How many rules one page has.
const PAGE: usize = 100;

/// The most pages of rules that are read.
const PAGES: usize = 50;

/// What the API says of a branch that is there and has no protection.
const NOT_PROTECTED: &str = "Branch not protected";

#[derive(Deserialize)]
struct Protection {
    required_status_checks: Option<StatusChecks>,
}

/// A branch, as everybody is told of it who may read the repository.
#[derive(Deserialize)]
struct Branch {
    /// Whether it has a protection of its own, or a ruleset that is active for it.
    protected: bool,
}

#[derive(Deserialize)]
struct StatusChecks {
    #[serde(default)]
    contexts: Vec<String>,
    #[serde(default)]
    checks: Vec<Check>,
}

#[derive(Deserialize)]
struct Check {
    context: String,
}

/// A rule of a ruleset that is active for the branch.
#[derive(Deserialize)]
struct Rule {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    parameters: Value,
}

#[derive(Deserialize)]
struct RequiredChecks {
    #[serde(default)]
    required_status_checks: Vec<Check>,
}

impl Rules {
    /// Asks for both kinds of rules.
    pub(super) async fn of(github: &Github, repository: &str, branch: &str) -> Result<Self, StepError> {
        let mut rules = Self::default();
        let branch = segment(branch);
        let what = format!("asking {} what protects the branch", github.describe());
        let path = format!("/repos/{repository}/branches/{branch}");
        if let Some(protection) = patiently(|| protection(github, &what, &path)).await? {
            rules.protected = true;
            if let Some(checks) = protection.required_status_checks {
                rules.checks.extend(checks.contexts);
                rules.checks.extend(checks.checks.into_iter().map(|check| check.context));
            }
        }
        let what = format!("asking {} for the rulesets of the branch", github.describe());
        for page in 1..=PAGES {
            let path = format!("/repos/{repository}/rules/branches/{branch}?per_page={PAGE}&page={page}");
            let Some(found) = patiently(|| ruleset(github, &what, &path)).await? else { break };
            let read = found.len();
            for rule in found.into_iter().filter(|rule| rule.kind == "required_status_checks") {
                let required: RequiredChecks = serde_json::from_value(rule.parameters).map_err(|_| {
                    StepError::refused(format!("{what}: a rule is not of the shape expected"))
                })?;
                rules.checks.extend(required.required_status_checks.into_iter().map(|check| check.context));
            }
            if read < PAGE {
                break;
            }
        }
        Ok(rules)
    }
}

async fn get(github: &Github, what: &str, path: &str) -> Result<Response, StepError> {
    let request = github.http().request(Method::GET, path)?;
    request.send().await.map_err(|error| transport_error(what, error))
}

/// The protection of the branch at `path`; none when it has none.
async fn protection(github: &Github, what: &str, path: &str) -> Result<Option<Protection>, StepError> {
    let response = get(github, what, &format!("{path}/protection")).await?;
    if response.status() != StatusCode::NOT_FOUND {
        let response = check_status(what, response).await.map_err(helped)?;
        return read_json(what, response, ANSWER).await.map(Some);
    }
    let said: Value = read_json(what, response, ANSWER).await?;
    let message = match said["message"].as_str() {
        Some(NOT_PROTECTED) => return Ok(None),
        message => message.unwrap_or("Not Found"),
    };
    // It may be the repository, the branch or the right to look that is not there, and servers are worded in their own way. The branch itself
    // says to everybody who may read it whether there is anything to look at.
    if is_open(github, what, path).await? {
        return Ok(None);
    }
    Err(helped(StepError::refused(format!("{what}: status 404 Not Found: {message}"))))
}

/// Whether the branch at `path` is there, and nothing protects it.
async fn is_open(github: &Github, what: &str, path: &str) -> Result<bool, StepError> {
    let response = get(github, what, path).await?;
    if response.status() == StatusCode::NOT_FOUND {
        return Ok(false);
    }
    let response = check_status(what, response).await.map_err(helped)?;
    let branch: Branch = read_json(what, response, ANSWER).await?;
    Ok(!branch.protected)
}

/// A page of the rules of rulesets; none where the server knows of no rulesets. That the branch is there is known before. Nothing passes by
/// what is not there: only a check that the protection requires is required then.
async fn ruleset(github: &Github, what: &str, path: &str) -> Result<Option<Vec<Rule>>, StepError> {
    let response = get(github, what, path).await?;
    if response.status() == StatusCode::NOT_FOUND {
        return Ok(None);
    }
    let response = check_status(what, response).await.map_err(helped)?;
    read_json(what, response, ANSWER).await.map(Some)
}

fn helped(error: StepError) -> StepError {
    match error.help {
        Some(_) => error,
        None => error.with_help(
            "this says nothing about the branch: look at its name, at the repository, and at whether the token may read the \
             repository's administration",
        ),
    }
}

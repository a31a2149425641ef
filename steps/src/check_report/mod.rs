//! Step kind `check-report`: reports that others wrote say what they have to say, and are not old ones.

mod read;
mod words;

use std::collections::BTreeMap;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use jiff::Timestamp;
use runbook_engine::error::StepError;
use runbook_engine::kinds::Effect;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use url::Url;

use self::read::Reading;
use self::words::{Says, says};
use crate::digest::sha256;
use crate::kind::{Context, End, Step};
use crate::one_or_many::OneOrMany;
use crate::records::blocking;
use crate::text::Text;

/// Checks reports that scripts and tools wrote as files: that each is there, says `PASS`, was written since the run began, in the right
/// mode, about the right target. All of them are looked at, and everything that is wrong is told at once.
///
/// Markdown is read with a line `Status: …`, `Overall result: …`, `Result: …` or `Decision: …`, or with nothing but a table whose rows say
/// `PASS` or `FAIL`; JSON by a top-level `verdict`, `status` or `result`. It passed when everything in it that gives a verdict says so: a second
/// one, a row of a table, or a `status` deeper in JSON that says `FAIL`, `HOLD` or a word that is not known fails a report whose head says `PASS`.
///
/// A date has to be a time with its zone, and one that is not yet is none. A report without a date counts as written when its file was last
/// changed.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CheckReport {
    /// The reports.
    #[schemars(length(min = 1))]
    pub reports: Vec<Expected>,
    /// Written then or later, RFC 3339. Default: when the run was created.
    #[serde(default)]
    pub since: Option<String>,
}

/// A report, and what it has to say.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Expected {
    /// The file, absolute.
    pub path: PathBuf,
    /// The verdict, or the verdicts one of which it has to give. Default: `PASS`.
    #[serde(default)]
    pub verdict: Option<OneOrMany<String>>,
    /// The mode, or the modes one of which it was written in, such as `apply`. Default: any.
    #[serde(default)]
    pub mode: Option<OneOrMany<String>>,
    /// What its fields say, by name (`Bucket`) or, of JSON, by pointer (`/inputs/environment`). An item of a list is known by its `id`: `/steps/wipe/status`.
    #[serde(default)]
    pub fields: BTreeMap<String, Text>,
    /// What its fields must not say, by name or pointer, so that it is not about the same thing. They have to be there. URLs are the
    /// same that lead to the same host, port and path: the scheme, the account, the case of the host, a dot or a `/` at its end, a default port, a query
    /// and a fragment make no difference.
    #[serde(default)]
    pub differs: BTreeMap<String, Text>,
    /// Whether rows of its table may say `SKIPPED`. Default: no.
    #[serde(default)]
    pub allow_skipped: bool,
    /// Whether it may be older than `since`, such as the evidence of another run. Default: no.
    #[serde(default)]
    pub allow_old: bool,
}

/// What the reports say.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Checked {
    /// Each report, in the order written.
    pub reports: Vec<One>,
}

/// A report that says what it has to say.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct One {
    /// The file.
    pub path: PathBuf,
    /// Its verdict.
    pub verdict: String,
    /// Its mode, when it names one.
    pub mode: Option<String>,
    /// When it was written, RFC 3339.
    #[schemars(with = "String")]
    pub date: Timestamp,
    /// The SHA-256 of the file, 64 hex digits.
    pub sha256: String,
}

/// The most of a report that is read, in bytes.
const LARGEST: u64 = 4 * 1024 * 1024;

#[async_trait]
impl Step for CheckReport {
    const NAME: &'static str = "check-report";
    const SUMMARY: &'static str = "Check that reports of other tools are there, passed, and are of this run";
    const EXAMPLE: &'static str = "\
- id: reports
  uses: check-report
  with:
    reports:
      - path: /srv/app/docs/research/lifecycle-policy-latest.md
        mode: apply
        fields: { Bucket: evidence-staging, Prefix: chat-attachments/staging/ }
      - path: /srv/app/docs/research/s3-smoke-latest.md
";
    type Outputs = Checked;

    fn effect(_: &Value) -> Effect {
        Effect::READ
    }

    async fn run(self, cx: &Context) -> Result<End<Checked>, StepError> {
        let late = if self.since.is_some() { "it is too old" } else { NOT_OURS };
        let since = match &self.since {
            Some(text) => text.parse().map_err(|error| {
                StepError::invalid(format!("`since` is {text:?}, which is no time: {error}"))
            })?,
            None => cx.run.created_at,
        };
        let (mut reports, mut wrong) = (Vec::new(), Vec::new());
        for expected in self.reports {
            let path = expected.path.clone();
            let found = blocking("reading a report", move || Ok(load(&path))).await?;
            match found.and_then(|file| expected.check(&file, since, late)) {
                Ok(one) => reports.push(one),
                Err(whys) => wrong.extend(whys.into_iter().map(|why| (expected.path.clone(), why))),
            }
        }
        if wrong.is_empty() {
            return Ok(End::Done(Checked { reports }));
        }
        let all: Vec<String> = wrong.iter().map(|(path, why)| format!("{}: {why}", path.display())).collect();
        Err(StepError::gate(all.join("; "))
            .with_help("mend what they are about, have them written again, and resume the run; where what is expected of them is no longer right, cancel it and begin anew"))
    }
}

/// A file as it was read.
struct File {
    text: String,
    sha256: String,
    modified: Timestamp,
}

/// Reads a report; what is wrong with it when it can not be read is the report's fault, and told with the others.
fn load(path: &Path) -> Result<File, Vec<String>> {
    let whole = || -> io::Result<(Vec<u8>, Timestamp)> {
        let file = std::fs::File::open(path)?;
        let modified = Timestamp::try_from(file.metadata()?.modified()?).map_err(io::Error::other)?;
        let mut bytes = Vec::new();
        file.take(LARGEST + 1).read_to_end(&mut bytes)?;
        Ok((bytes, modified))
    };
    if !path.is_absolute() {
        return Err(vec!["the path is not absolute".to_owned()]);
    }
    let (bytes, modified) = whole().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => vec!["it is not there".to_owned()],
        _ => vec![format!("it can not be read: {error}")],
    })?;
    if bytes.len() as u64 > LARGEST {
        return Err(vec![format!("it is larger than {} MiB, which is no report", LARGEST >> 20)]);
    }
    let sha256 = sha256(&bytes);
    let text = String::from_utf8(bytes).map_err(|_| vec!["it is no text".to_owned()])?;
    Ok(File { text, sha256, modified })
}

/// What is said of a report that is older than the run it is to be of.
const NOT_OURS: &str = "it is not of this run";

/// The ports that need not be told from none: what a client of the scheme takes when none is given, and for HTTP with TLS what it takes without.
const DEFAULT_PORTS: [(&str, u16); 10] = [
    ("http", 80),
    ("http", 443),
    ("https", 443),
    ("https", 80),
    ("postgres", 5432),
    ("postgresql", 5432),
    ("mysql", 3306),
    ("mariadb", 3306),
    ("redis", 6379),
    ("rediss", 6379),
];

/// Whether two texts name the same thing. URLs do that lead to the same host, port and path: who asks, how, and what for makes no other place.
fn same(one: &str, other: &str) -> bool {
    let place = |text: &str| {
        let url = Url::parse(text).ok()?;
        let host = url.host_str()?.trim_end_matches('.').to_lowercase();
        let is_default = |port: &u16| DEFAULT_PORTS.contains(&(url.scheme(), *port));
        let port = url.port().filter(|port| !is_default(port));
        Some((host, port, url.path().trim_end_matches('/').to_owned()))
    };
    one == other || place(one).is_some_and(|url| Some(url) == place(other))
}

/// How far the clock of whoever wrote a report may be ahead of ours.
const AHEAD: jiff::SignedDuration = jiff::SignedDuration::from_mins(5);

impl Expected {
    /// The verdict that it gives, when it is a wanted one. Everything else that it says of how it went must not speak against it.
    fn verdict(&self, reading: &Reading, wrong: &mut Vec<String>) -> Option<String> {
        let pass = OneOrMany(vec!["PASS".to_owned()]);
        let wanted = &self.verdict.as_ref().unwrap_or(&pass).0;
        let verdicts = reading.verdicts();
        let verdict = verdicts.iter().map(|(_, word)| word).find(|word| wanted.contains(word)).cloned();
        match (&verdict, verdicts.first()) {
            (Some(_), _) => {}
            (None, Some((_, said))) => wrong.push(format!("it says {said}, not {}", wanted.join(" or "))),
            (None, None) => wrong.push("it gives no verdict".to_owned()),
        }
        // Whoever wants a report of a failure gets one.
        if !wanted.iter().any(|word| says(word) == Some(Says::Pass)) {
            return verdict;
        }
        let against = |word: &String| !wanted.contains(word) && says(word) != Some(Says::Pass);
        if verdict.is_some() {
            let others = verdicts.iter().filter(|(_, word)| against(word));
            wrong.extend(others.map(|(name, word)| format!("its {name} says {word} as well")));
        }
        let told = |says| {
            let rows = reading.rows_that_say(says).filter(|row| !wanted.contains(&row.word));
            rows.map(|row| format!("{} ({})", row.about, row.word)).collect::<Vec<_>>().join(", ")
        };
        let (failed, skipped) = (told(Says::Otherwise), told(Says::Skipped));
        if !failed.is_empty() {
            wrong.push(format!("failed in it: {failed}"));
        }
        if !skipped.is_empty() && !self.allow_skipped {
            wrong.push(format!("skipped in it: {skipped}"));
        }
        verdict
    }

    /// Everything that is wrong with it.
    /// `late` is what is said of one that is older than `since`.
    fn check(&self, file: &File, since: Timestamp, late: &str) -> Result<One, Vec<String>> {
        let reading = Reading::of(&file.text);
        let mut wrong = Vec::new();
        let verdict = self.verdict(&reading, &mut wrong);
        if let Some(modes) = &self.mode {
            for mode in reading.modes().iter().filter(|mode| !modes.0.contains(mode)) {
                wrong.push(format!("its mode is {mode}, not {}", modes.0.join(" or ")));
            }
            if reading.modes().is_empty() {
                wrong.push(format!("it names no mode, and {} is wanted", modes.0.join(" or ")));
            }
        }
        let date = reading.date().unwrap_or_else(|said| {
            wrong.push(format!("its date is {said:?}, which is no time with its zone"));
            None
        });
        let date = date.unwrap_or(file.modified);
        // Reports name whole seconds.
        if !self.allow_old && date.as_second() < since.as_second() {
            wrong.push(format!("it is of {date}, before {since}: {late}"));
        }
        if date.duration_since(Timestamp::now()) > AHEAD {
            wrong.push(format!("it is of {date}, which is not yet"));
        }
        for (name, value) in &self.fields {
            match reading.get(name) {
                Some(said) if said == value.as_str() => {}
                Some(said) => wrong.push(format!("its `{name}` is {said}, not {value}")),
                None => wrong.push(format!("it has no `{name}`, and {value} is wanted")),
            }
        }
        for (name, value) in &self.differs {
            match reading.get(name) {
                Some(said) if !same(said, value.as_str()) => {}
                Some(_) => wrong.push(format!("its `{name}` is {value} too, and must be another")),
                None => wrong.push(format!("it has no `{name}`, which must be another than {value}")),
            }
        }
        match (wrong.is_empty(), verdict) {
            (true, Some(verdict)) => Ok(One {
                path: self.path.clone(),
                verdict,
                mode: reading.modes().first().cloned(),
                date,
                sha256: file.sha256.clone(),
            }),
            _ => Err(wrong),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(text: &str) -> Vec<String> {
        let expected = Expected {
            path: "/report.md".into(),
            verdict: None,
            mode: None,
            fields: BTreeMap::new(),
            differs: BTreeMap::new(),
            allow_skipped: false,
            allow_old: false,
        };
        let file = File { text: text.to_owned(), sha256: String::new(), modified: Timestamp::now() };
        let since = Timestamp::now() - jiff::SignedDuration::from_mins(1);
        expected.check(&file, since, NOT_OURS).map_or_else(|wrong| wrong, |_| Vec::new())
    }

    #[test]
    fn a_report_passes_when_everything_that_is_a_verdict_says_so() {
        let now = Timestamp::now();
        for text in [
            format!("# R\nDate: {now}\nStatus: `PASS`\n"),
            format!("Overall result: `PASS`\nDate: {now}\nDecision: GO\n| Step | Result | Took |\n|---|---|---|\n| a | PASS | 1s |\n"),
            "| `chat/` | `id` | 45 | PASS | ok |\n".to_owned(),
            "| Metric | Value |\n|---|---:|\n| Rules before | 1 |\n| Rule add needed | true |\n\nStatus: PASS".to_owned(),
            format!(r#"{{ "status": "PASS", "generated_at": "{now}", "steps": [{{ "status": "succeeded" }}] }}"#),
        ] {
            assert_eq!(wrong(&text), [""; 0], "{text}");
        }
    }

    #[test]
    fn a_url_is_the_same_however_it_is_written() {
        let url = "http://Prometheus.example:80";
        for (other, wanted) in [
            ("http://prometheus.example/", true),
            ("http://prometheus.example", true),
            ("https://prometheus.example", true),
            ("https://prometheus.example:443/", true),
            ("http://prometheus.example.", true),
            ("https://ada:secret@PROMETHEUS.example.:443/?x=1#y", true),
            ("http://prometheus.example:9090?x", false),
            ("http://prometheus.example.org", false),
            ("http://prometheus.example/staging/", false),
            ("http://prometheus.example:9090", false),
            ("prometheus.example", false),
        ] {
            assert_eq!(same(url, other), wanted, "{other}");
        }
        assert!(same("postgres://ada@db.:5432/hub", "postgresql://bob:b@DB/hub?sslmode=require"));
        assert!(
            !same("postgres://db/hub", "postgres://db/staging") && !same("redis://db:6380", "redis://db")
        );
        assert!(same("evidence", "evidence") && !same("evidence", "Evidence"), "a name is as it is written");
    }

    #[test]
    fn a_report_does_not_pass_by_its_first_word() {
        for (text, why) in [
            ("Status: PASS\n\n| a | HOLD | 1s |\n", "a (HOLD)"),
            ("Status: PASS\n\n| a | SKIPPED | 1s |\n", "skipped in it: a (SKIPPED)"),
            ("Status: PASS\nStatus: FAIL\n", "its status says FAIL as well"),
            ("Overall result: PASS\nDecision: NO_GO\n", "its decision says NO_GO"),
            ("Status: PASS (2 of 3 checks failed)\n", "not PASS"),
            ("| upload | PASS | 200 |\n| redirect | Fail | 200 |\n", "it says Fail"),
            ("Date: 2020-01-01\nStatus: PASS\n", "no time with its zone"),
            ("Date: 2020-01-01 00:00:00 UTC\nStatus: PASS\n", "it is not of this run"),
            ("Date: 2099-01-01T00:00:00Z\nStatus: PASS\n", "is not yet"),
            (r#"{ "status": "PASS", "generated_at": "2020-01-01T00:00:00Z" }"#, "it is not of this run"),
            (
                r#"{ "status": "PASS", "steps": [{ "name": "x", "status": "FAIL" }] }"#,
                "/steps/0/status (FAIL)",
            ),
        ] {
            let told = wrong(text).join("; ");
            assert!(told.contains(why), "{text}: {told:?}");
        }
    }
}

//! Step kind `prometheus-query`: what is measured is within bounds, and is measured at all.

mod answer;
mod bind;

use std::collections::BTreeMap;

use async_trait::async_trait;
use jiff::Timestamp;
use runbook_engine::duration::Duration;
use runbook_engine::error::StepError;
use runbook_engine::kinds::Effect;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use self::answer::Answer;
use crate::connections::prometheus::Prometheus;
use crate::kind::{Context, End, Step};
use crate::retry::patiently;
use crate::text::{Text, in_brief};

/// Asks a Prometheus server, and fails unless every value of every series is within bounds. The server must say that it is ready first.
///
/// **No data is not a pass.** A query that gives no series, a series with too few samples, and a value that is no number (`NaN`, as of a
/// division by nothing) fail the step, and so does an answer that the server itself calls incomplete. Write the query so that it gives a
/// value when all is well: `errors / requests` with `max: 0.03`, and not `errors / requests > 0.03`, which gives nothing when all is well and
/// nothing when nothing is measured.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PrometheusQuery {
    /// The name of a connection of type `prometheus`.
    pub connection: String,
    /// The query, PromQL. `$NAME` stands for a value of `values`, as a text of PromQL in quotes.
    pub query: String,
    /// Values of the query, by name: `bucket=$bucket` becomes `bucket="evidence-staging"`, whatever the value holds. Each must be used.
    #[serde(default)]
    pub values: BTreeMap<String, Text>,
    /// Asks for the values over a time rather than for the present one.
    #[serde(default)]
    pub range: Option<Range>,
    /// What the values must be.
    pub expect: Expect,
}

/// The time that is asked for: it ends now.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Range {
    /// How far back it reaches, such as `30m`.
    pub last: Duration,
    /// How far apart the values are. Default `60s`.
    #[serde(default = "default_step")]
    pub step: Duration,
}

fn default_step() -> Duration {
    Duration::from_secs(60)
}

/// What every value of every series must be.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("anyOf" = [{"required": ["min"]}, {"required": ["max"]}]))]
pub struct Expect {
    /// The least. At least one of `min` and `max`.
    #[serde(default)]
    pub min: Option<f64>,
    /// The most.
    #[serde(default)]
    pub max: Option<f64>,
    /// How many series there must be at least. Default: 1.
    #[serde(default = "one")]
    #[schemars(range(min = 1))]
    pub series: u64,
    /// How many samples each series must have at least; of a `range`, fewer mean that it was not measured all the time. Default: 1.
    #[serde(default = "one")]
    #[schemars(range(min = 1))]
    pub samples: u64,
}

fn one() -> u64 {
    1
}

/// What was measured.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Outputs {
    /// When it was asked, RFC 3339, UTC.
    #[schemars(with = "String")]
    pub queried_at: Timestamp,
    /// The query, with its values.
    pub query: String,
    /// How many series there are.
    pub series: u64,
    /// How many samples they have together.
    pub samples: u64,
    /// The lowest value of all.
    pub lowest: f64,
    /// The highest value of all.
    pub highest: f64,
    /// The series, at most twenty.
    pub values: Vec<Series>,
}

/// A series.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Series {
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// How many samples it has.
    pub samples: u64,
    /// Its lowest value.
    pub lowest: f64,
    /// Its highest value.
    pub highest: f64,
    /// Its last value.
    pub last: f64,
}

/// What is sent with a query, by name.
type Parameters = Vec<(&'static str, String)>;

/// How many series are among the outputs.
const SHOWN: usize = 20;

#[async_trait]
impl Step for PrometheusQuery {
    const NAME: &'static str = "prometheus-query";
    const SUMMARY: &'static str = "Hold what Prometheus measures to bounds; no data is not a pass";
    const EXAMPLE: &'static str = r#"id: few_errors
uses: prometheus-query
with:
  connection: metrics
  query: sum(rate(http_errors_total{job=$job}[5m])) / sum(rate(http_requests_total{job=$job}[5m]))
  values: { job: gotong-api }
  range: { last: 30m, step: 60s }
  expect: { max: 0.03, samples: 25 }
retry: { max_attempts: 5, delay: 30s, on: [gate, transient] }
"#;
    const CODE_FIELDS: &'static [&'static str] = &["/query"];
    const FLEETING_OUTPUTS: &'static [&'static str] = &["/queried_at"];
    type Outputs = Outputs;

    fn effect(_: &Value) -> Effect {
        Effect::READ
    }

    async fn run(self, cx: &Context) -> Result<End<Outputs>, StepError> {
        let query = bind::bind(&self.query, &self.values)?;
        let server = cx.resources.connection::<Prometheus>(&self.connection)?;
        cx.checkpoint()?;
        let queried_at = Timestamp::now();
        let (path, parameters) = self.parameters(&query, queried_at)?;
        let answer = cx
            .unless_abandoned(patiently(async || {
                server.need_ready().await?;
                server.get(path, &parameters).await
            }))
            .await?;
        let answer = Answer::read(answer)
            .map_err(|why| StepError::refused(format!("querying {}: {why}", server.describe())))?;
        let shown = in_brief(&query);
        let series = self.expect.judge(answer).map_err(|why| {
            StepError::gate(cx.redactor.text(&format!("{why}: `{shown}` at {}", server.describe())))
                .with_help("look at what is measured; when it is well again, resume the run, which asks anew")
        })?;
        let all = |value: fn(&Series) -> f64, of: fn(f64, f64) -> f64| series.iter().map(value).reduce(of);
        Ok(End::Done(Outputs {
            queried_at,
            query,
            samples: series.iter().map(|one| one.samples).sum(),
            lowest: all(|one| one.lowest, f64::min).unwrap_or_default(),
            highest: all(|one| one.highest, f64::max).unwrap_or_default(),
            series: series.len() as u64,
            values: series.into_iter().take(SHOWN).collect(),
        }))
    }
}

impl PrometheusQuery {
    /// The path of the API, and what is sent with it.
    fn parameters(&self, query: &str, now: Timestamp) -> Result<(&'static str, Parameters), StepError> {
        let query = ("query", query.to_owned());
        let Some(range) = &self.range else {
            return Ok(("/api/v1/query", vec![query, ("time", now.to_string())]));
        };
        if range.step.as_millis() == 0 || range.last.as_millis() < range.step.as_millis() {
            return Err(StepError::invalid(format!(
                "`range` asks for a value every {} of the last {}",
                range.step, range.last
            )));
        }
        let start = now - std::time::Duration::from_millis(range.last.as_millis());
        let step = std::time::Duration::from_millis(range.step.as_millis()).as_secs_f64();
        let times = [("start", start.to_string()), ("end", now.to_string()), ("step", step.to_string())];
        Ok(("/api/v1/query_range", [vec![query], times.to_vec()].concat()))
    }
}

impl Expect {
    /// The series, or why they are no pass.
    fn judge(&self, answer: Answer) -> Result<Vec<Series>, String> {
        if !answer.warnings.is_empty() {
            return Err(format!("the server calls its answer incomplete ({})", answer.warnings.join("; ")));
        }
        if answer.series.is_empty() {
            return Err("no data: nothing is measured, which is not a pass".to_owned());
        }
        let found = answer.series.len() as u64;
        if found < self.series {
            return Err(format!("no data for all: {found} series, and {} are expected", self.series));
        }
        answer.series.into_iter().map(|(labels, values)| self.series(labels, &values)).collect()
    }

    fn series(&self, labels: BTreeMap<String, String>, values: &[f64]) -> Result<Series, String> {
        let of = || {
            let named: Vec<String> = labels.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
            if named.is_empty() { String::new() } else { format!(" of {{{}}}", named.join(", ")) }
        };
        let samples = values.len() as u64;
        if samples < self.samples {
            return Err(format!(
                "no data all the time: {samples} samples{}, and {} are expected",
                of(),
                self.samples
            ));
        }
        for value in values {
            if !value.is_finite() {
                return Err(format!("no data: a value{} is {value}, which is no number to go by", of()));
            }
            if let Some(max) = self.max.filter(|max| value > max) {
                return Err(format!("a value{} is {value}, and {max} is the most", of()));
            }
            if let Some(min) = self.min.filter(|min| value < min) {
                return Err(format!("a value{} is {value}, and {min} is the least", of()));
            }
        }
        let [lowest, highest] = [f64::min, f64::max].map(|of| values.iter().copied().reduce(of));
        Ok(Series {
            samples,
            lowest: lowest.unwrap_or_default(),
            highest: highest.unwrap_or_default(),
            last: values.last().copied().unwrap_or_default(),
            labels,
        })
    }
}

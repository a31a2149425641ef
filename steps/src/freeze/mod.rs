//! `freeze`: changes one value of a system so that it takes no more writes, and makes sure that the value comes back.

mod attributes;
mod bound;
mod by_hand;
mod command;
mod env_file;
mod env_line;
mod exact;
mod http;
mod kubernetes;
mod late;
#[cfg(test)]
mod model;
mod probe;
mod refusals;
mod undo;
mod way;

use std::time::Duration as StdDuration;

use async_trait::async_trait;
use jiff::Timestamp;
use runbook_engine::drive::obligations::Standing;
use runbook_engine::duration::Duration;
use runbook_engine::error::{ErrorKind, StepError};
use runbook_engine::event::{Closed, Obligation};
use runbook_engine::kinds::Effect;
use runbook_engine::saved::Foresight;
use runbook_engine::step::{Found, Hold, Look, Release};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::Instant;

pub use self::by_hand::{ByHand, by_hand};
pub use self::command::CommandWay;
pub use self::env_file::{EnvFile, Restart};
pub use self::http::HttpWay;
pub use self::kubernetes::{KubernetesScale, Workload};
use self::late::Late;
use self::probe::Left;
pub use self::probe::{Answered, Probe};
use self::refusals::{frozen_by_another, left_alone, neither, secret, unread};
use self::way::{Freezing, Releasing, Side, Way, freezing, releasing};
use crate::kind::{Context, End, Step, would};
use crate::text::of_value;

/// Changes one value of a system, so that it stays as it is while the run works on it. The original value is read and recorded
/// before it is changed, and it is put back by an `unfreeze` step, at the latest when the run succeeds or is cancelled. A run that failed
/// holds it, so that `resume` can go on, for `max_hold` at most: then it is put back by whichever process of runbook sees it, such as
/// `runbook reconcile`, which a timer is to run.
///
/// Exactly one of `env_file`, `command`, `http` and `kubernetes` says how. With `probe` the freeze is proven by a request that a frozen
/// system refuses; a freeze that turns out not to be effective is lifted at once, and the step fails. A workload that `kubernetes` scales is
/// proven to be without pods by the cluster, and one without pods answers no probe.
///
/// A value that equals the replacement already is refused: somebody else froze the target, and the original value is not known.
/// A value that is neither the original nor the replacement is never overwritten.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("oneOf" = [{"required": ["env_file"]}, {"required": ["command"]}, {"required": ["http"]}, {"required": ["kubernetes"]}]))]
pub struct Freeze {
    /// By a variable in an env file and a restart.
    #[serde(default)]
    env_file: Option<EnvFile>,
    /// By commands.
    #[serde(default)]
    command: Option<CommandWay>,
    /// By requests.
    #[serde(default)]
    http: Option<HttpWay>,
    /// By scaling a workload of a Kubernetes cluster.
    #[serde(default)]
    kubernetes: Option<KubernetesScale>,
    /// The proof that it is effective. Default: none; the value alone is checked.
    #[serde(default)]
    probe: Option<Probe>,
    /// The longest that it may be held. Then it is lifted, and the run fails. Default: 2h.
    #[serde(default = "max_hold")]
    max_hold: Duration,
    /// How long the system may take to come up with a new value, and how long at least a change by `http` or `kubernetes` that was not
    /// answered may still come: as long is waited before it is said to be lifted. Default: 60s.
    #[serde(default = "settle")]
    settle: Duration,
}

fn max_hold() -> Duration {
    Duration::from_secs(7200)
}

fn settle() -> Duration {
    Duration::from_secs(60)
}

/// What is frozen, and how that is known.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct FreezeOutputs {
    /// What is frozen, unique among everything that can be.
    pub target: String,
    /// The original value, for people.
    pub original: String,
    /// The value that freezes.
    pub replacement: Value,
    /// Whether it is proven: by a probe, or by what the cluster says of a workload.
    pub proven: bool,
    /// What the system answered to the probe.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub probe: Option<Answered>,
    /// When the change had been made.
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub frozen_at: Timestamp,
}

/// The form in which the original value is recorded.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Original {
    /// For people.
    text: String,
    /// For the way, to put it back exactly.
    state: Value,
}

impl Original {
    fn of(obligation: &Obligation) -> Result<Self, StepError> {
        Self::deserialize(&obligation.original).map_err(|error| {
            let message =
                format!("the original value of {} can not be read from the record", obligation.label);
            StepError::new(ErrorKind::Bug, message).with_source(&error)
        })
    }
}

/// The original value that an obligation of a freeze recorded, for people.
pub fn original_text(obligation: &Obligation) -> String {
    let plain =
        || obligation.original.as_str().map_or_else(|| obligation.original.to_string(), str::to_owned);
    Original::of(obligation).map_or_else(|_| plain(), |original| original.text)
}

#[async_trait]
impl Step for Freeze {
    const NAME: &'static str = "freeze";
    const SUMMARY: &'static str =
        "Changes one value of a system for the time of the run, and makes sure that it comes back";
    const EXAMPLE: &'static str = "\
- id: freeze_uploads
  uses: freeze
  with:
    env_file:
      path: /etc/chatkit/gateway.env
      variable: CHATKIT_ATTACHMENT_MAX_MB
      value: \"0.0000001\"
      restart: { argv: [systemctl, restart, chatkit-gateway] }
    probe:
      connection: gateway
      path: /chatkit/upload
      multipart: { file_name: probe.txt, content_type: text/plain }
      expect: [{ status: 413 }, { status: 400, contains: attachment_too_large }]
      undo: { field: attachment_id, collections: [blobs, metadata], find_by: fileName }
    max_hold: 2h
";
    const FLEETING_OUTPUTS: &'static [&'static str] = &["/frozen_at"];
    const SHOWN_FIELDS: &'static [&'static str] =
        &["/env_file/restart", "/command", "/http", "/kubernetes", "/probe"];
    type Outputs = FreezeOutputs;

    fn effect(_: &Value) -> Effect {
        Effect::WRITE
    }

    async fn foresee(self, _: Effect, cx: &Context) -> Result<Foresight, StepError> {
        let way = self.way(None, cx).await?;
        let present = way.read(cx).await?;
        if way.frozen(&present) {
            return Err(frozen_by_another(&*way, &present));
        }
        way.possible(cx, &present).await?;
        if cx.redactor.text(&way.text(&present)) != way.text(&present) {
            return Err(secret(&*way));
        }
        let does = would(format!(
            "change {} from {} to {}",
            way.label(),
            way.text(&present),
            of_value(&way.replacement())
        ));
        Ok(Foresight { binds: bound::bound(&*way, &present, cx), ..does })
    }

    async fn run(self, cx: &Context) -> Result<End<FreezeOutputs>, StepError> {
        cx.checkpoint()?;
        if let Some(probe) = &self.probe {
            probe.check(cx)?;
        }
        let (standing, way) = match cx.obligations.standing().await? {
            Some(standing) => {
                let original = Original::of(&standing.obligation)?.state;
                let way = self.way(Some(&original), cx).await?;
                (standing, way)
            }
            None => {
                let way = self.way(None, cx).await.map_err(unread)?;
                (self.take_on(&*way, cx).await?, way)
            }
        };
        self.bring_about(&*way, &standing, cx).await?;
        let frozen_at =
            cx.ledger.remember(&format!("frozen_at {}", standing.id), json!(Timestamp::now())).await?;
        let answered = self.proof(&*way, cx).await?;
        Ok(End::Done(FreezeOutputs {
            target: standing.obligation.target.clone(),
            original: original_text(&standing.obligation),
            replacement: standing.obligation.replacement.clone(),
            proven: answered.is_some() || way.proves(),
            probe: answered,
            frozen_at: serde_json::from_value(frozen_at).unwrap_or_else(|_| Timestamp::now()),
        }))
    }

    async fn release(self, obligation: &Obligation, hold: Hold, cx: &Context) -> Result<Release, StepError> {
        // Whatever stands there, nothing of it is this run's.
        if hold == Hold::Opened {
            return Ok(Release::Untouched);
        }
        let original = Original::of(obligation)?.state;
        let way = self.way(Some(&original), cx).await?;
        let mut late = Late::of(cx).await?;
        let present = way.read(cx).await?;
        let what = releasing(way.side(&present, &original));
        match what {
            Releasing::Leave => return left_alone(&*way, hold, way.text(&present)),
            Releasing::PutBack => {
                if hold == Hold::Changing {
                    late.came(cx).await?;
                }
                way.put_back(cx, &original).await?;
            }
            // What was seen to be applied was put back by somebody else.
            Releasing::Restart if hold == Hold::Applied => {}
            Releasing::Restart => way.insist(cx, &original).await?,
        }
        way.restart(cx).await?;
        self.seen(&*way, cx, &original, Side::Original).await?;
        if let Some(present) = self.outlast(&*way, &mut late, cx, &original).await? {
            return left_alone(&*way, Hold::Releasing, present);
        }
        if let Some(probe) = &self.probe
            && let Err(error) = probe.settle_earlier(cx).await
        {
            cx.live.say(&format!("what an earlier probe may have created could not be looked for: {error}"));
        }
        Ok(match what {
            // Nobody but this run puts it back after a release has begun; before that it was somebody else.
            Releasing::Restart if hold == Hold::Applied => Release::Undone,
            _ => Release::Restored,
        })
    }

    async fn inspect(self, obligation: &Obligation, look: Look, cx: &Context) -> Result<Found, StepError> {
        let original = Original::of(obligation)?.state;
        let way = self.way(Some(&original), cx).await?;
        let present = way.read(cx).await?;
        match way.side(&present, &original) {
            Side::Original if look == Look::Back => {
                let may_come = self.may_come(&*way, cx).await?;
                return may_come.map_or(Ok(Found::Original), Err);
            }
            Side::Original => return Ok(Found::Original),
            Side::Foreign => return Ok(Found::Foreign(way.text(&present))),
            Side::Ours => {}
        }
        if look != Look::Proof {
            return Ok(Found::InForce);
        }
        if way.proves()
            && let Some(words) = self.awaited(&*way, cx, &original, Side::Ours).await?
        {
            return Ok(Found::Ineffective(words));
        }
        let Some(probe) = &self.probe else { return Ok(Found::InForce) };
        probe.settle_earlier(cx).await?;
        let mut left = Left::default();
        match probe.prove(cx, self.settle, &mut left).await {
            Ok(_) => Ok(Found::InForce),
            Err(error) if left.taken => Ok(Found::Ineffective(error.message)),
            // A system that takes no request at all, because it was stopped, takes no upload either.
            Err(error) if error.kind == ErrorKind::Gate => {
                cx.live.say(&format!("{} is there; {}", way.label(), error.message));
                Ok(Found::InForce)
            }
            Err(error) => Err(error),
        }
    }
}

impl Freeze {
    async fn way(&self, original: Option<&Value>, cx: &Context) -> Result<Box<dyn Way>, StepError> {
        match (&self.env_file, &self.command, &self.http, &self.kubernetes) {
            (Some(env_file), None, None, None) => Ok(Box::new(env_file.way(original)?)),
            (None, Some(command), None, None) => Ok(Box::new(command.clone())),
            (None, None, Some(http), None) => Ok(Box::new(http.way(cx)?)),
            (None, None, None, Some(kubernetes)) => Ok(Box::new(kubernetes.way(original, cx).await?)),
            _ => {
                let message = "exactly one of `env_file`, `command`, `http` and `kubernetes` is needed";
                Err(StepError::invalid(message))
            }
        }
    }

    /// Reads the original value and records the obligation to put it back. Nothing is changed.
    async fn take_on(&self, way: &dyn Way, cx: &Context) -> Result<Standing, StepError> {
        let state = way.read(cx).await.map_err(unread)?;
        let held = cx.history.store.obligations().await.map_err(|error| error.for_step())?;
        let same = |one: &Obligation| one.target == way.target() || way.is_called(one);
        if let Some(other) = held.iter().find(|one| same(&one.obligation)) {
            let message = format!("{} is already held by run {}", way.label(), other.run);
            return Err(StepError::new(ErrorKind::Busy, message)
                .with_help("resume or cancel that run first: it knows the original value"));
        }
        if way.frozen(&state) {
            return Err(frozen_by_another(way, &state));
        }
        way.possible(cx, &state).await?;
        bound::as_planned(way, &state, cx)?;
        let original = Original { text: way.text(&state), state };
        let obligation = Obligation {
            step: cx.step.clone(),
            target: way.target(),
            label: way.label(),
            original: json!(original),
            replacement: way.replacement(),
            max_hold: self.max_hold,
        };
        let id = cx.obligations.open(obligation.clone()).await?;
        Ok(Standing { id, obligation, hold: Hold::Opened })
    }

    /// Makes the replacement be there and in force, from wherever an earlier attempt left it.
    async fn bring_about(&self, way: &dyn Way, standing: &Standing, cx: &Context) -> Result<(), StepError> {
        let original = Original::of(&standing.obligation)?;
        let present = way.read(cx).await?;
        let side = way.side(&present, &original.state);
        let what = freezing(standing.hold, side);
        if what == Freezing::Refuse && side == Side::Ours {
            return Err(frozen_by_another(way, &present));
        }
        if what == Freezing::Refuse {
            return Err(neither(way, standing.hold, &way.text(&present), &original.text));
        }
        if what == Freezing::Keep {
            return Ok(());
        }
        cx.live.say(&format!(
            "{}: from {} to {}",
            way.label(),
            original.text,
            standing.obligation.replacement
        ));
        let mut announced = None;
        if what == Freezing::Apply {
            cx.obligations.changing(&standing.id).await?;
            announced = match self.applied(way, cx, &original.state).await {
                Ok(announced) => Some(announced),
                Err(error) => {
                    // Something else stood there: nothing was written, so nothing of it is this run's to put back.
                    if error.kind == ErrorKind::Gate {
                        cx.obligations.unchanged(&standing.id).await?;
                    }
                    return Err(error);
                }
            };
        }
        way.restart(cx).await?;
        self.seen(way, cx, &original.state, Side::Ours).await?;
        if let Some(announced) = announced {
            announced.arrived(cx).await?;
        }
        cx.obligations.applied(&standing.id).await
    }

    /// Waits until the value that is read is `side`'s, and the system has taken it.
    async fn seen(&self, way: &dyn Way, cx: &Context, original: &Value, side: Side) -> Result<(), StepError> {
        self.awaited(way, cx, original, side).await?.map_or(Ok(()), |words| Err(StepError::transient(words)))
    }

    /// Waits like [`Freeze::seen`]; what is not as it should be when the time is over.
    async fn awaited(
        &self,
        way: &dyn Way,
        cx: &Context,
        original: &Value,
        side: Side,
    ) -> Result<Option<String>, StepError> {
        let deadline = Instant::now() + self.settle.0;
        let mut pause = StdDuration::from_millis(100);
        loop {
            let problem = match looked(way, cx, original, side).await {
                Ok(None) => return Ok(None),
                Err(error) if error.kind != ErrorKind::Transient => return Err(error),
                problem => problem,
            };
            if Instant::now() + pause >= deadline {
                return problem;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(StdDuration::from_secs(2));
        }
    }

    /// Proves the freeze, or lifts it and says why.
    async fn proof(&self, way: &dyn Way, cx: &Context) -> Result<Option<Answered>, StepError> {
        let Some(probe) = &self.probe else { return Ok(None) };
        probe.settle_earlier(cx).await?;
        match probe.prove(cx, self.settle, &mut Left::default()).await {
            Ok(answered) => Ok(Some(answered)),
            Err(error) if matches!(error.kind, ErrorKind::Gate | ErrorKind::Invalid) => {
                Err(lifted(error, way, cx).await)
            }
            Err(error) => Err(error),
        }
    }
}

/// What is not as it should be: the value, or what the system has made of it.
async fn looked(
    way: &dyn Way,
    cx: &Context,
    original: &Value,
    side: Side,
) -> Result<Option<String>, StepError> {
    let present = way.read(cx).await?;
    if way.side(&present, original) != side {
        return Ok(Some(format!("{} still reads {}", way.label(), way.text(&present))));
    }
    way.unsettled(cx).await
}

/// Lifts a freeze that is not proven; the error says what became of it.
async fn lifted(mut error: StepError, way: &dyn Way, cx: &Context) -> StepError {
    let label = way.label();
    let mut help = match cx.obligations.release(&cx.step).await {
        Ok(released) => match released.into_iter().map(|one| one.how).find(|how| *how != Closed::Restored) {
            None => format!("{label} is back at its original value"),
            Some(Closed::Foreign { present }) => {
                format!("{label} was changed by somebody else to {present} and was left alone")
            }
            Some(_) => format!("{label} is at its original value"),
        },
        Err(release) => {
            error.causes.push(format!("lifting the freeze failed: {release}"));
            error.causes.extend(release.causes);
            format!(
                "{label} is STILL CHANGED: {}",
                release.help.unwrap_or_else(|| "resume or cancel".to_owned())
            )
        }
    };
    if let Some(advice) = way.advice() {
        help = format!("{advice}; {help}");
    }
    error.with_help(help)
}

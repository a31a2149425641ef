//! The files one by one, until all of them are in one live session.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use runbook_engine::error::{ErrorKind, Outcome, StepError};
use runbook_engine::step::Progress;

use super::files::{Files, wrong};
use super::held::{Announced, Became, Held, Open, Stored};
use super::send::{Lost, Sent, file_name, send};
use super::world::World;
use super::{Descriptor, ManifestEntry, OnMissing, Upload, Uploaded};
use crate::backoff::{exponential, pause};
use crate::connections::http::{Http, http_of};
use crate::connections::session::SessionValue;
use crate::in_flight;
use crate::kind::Context;
use crate::records::{read_records, write_records};
use crate::retry::asked;

/// How often one file is tried.
const TRIES: u32 = 4;
/// The wait after the first try; it doubles.
const FIRST_WAIT: Duration = Duration::from_millis(250);
/// The longest wait between tries, whatever the server asks for.
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// How long until it is looked again whether what is under way was stored.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// How often the session may end during one attempt of the step before that is an error.
const SESSIONS: u32 = 5;
/// How many discrepancies the outputs hold, and how many files an error names.
const MOST: usize = 50;

/// What becomes of one file, and whether this attempt of the step ends with it.
struct Fate {
    became: Became,
    stop: Option<StepError>,
}

impl Fate {
    fn is(became: Became) -> Self {
        Self { became, stop: None }
    }

    fn failed(why: impl Into<String>) -> Self {
        Self::is(Became::Failed(why.into()))
    }

    /// Nothing was stored; the step ends with this error and tries again when it is entered again.
    fn stop(error: StepError) -> Self {
        let became = Became::Again(error.message.clone());
        Self { became, stop: Some(StepError { outcome: Outcome::Failed, ..error }) }
    }
}

/// What one step of kind `upload` works with.
pub(super) struct Work<'a> {
    upload: &'a Upload,
    cx: &'a Context,
    http: Arc<Http>,
    files: Files,
    world: Option<World<'a>>,
    /// The keys wanted, in order, with their lines of the manifest.
    wanted: Vec<(String, Option<ManifestEntry>)>,
    held: Held,
    open: Vec<Open>,
    series: u32,
    session: Option<SessionValue>,
    left_behind: Vec<String>,
}

impl<'a> Work<'a> {
    /// What the manifest wants and what the ledger says.
    pub(super) async fn enter(upload: &'a Upload, cx: &'a Context) -> Result<Self, StepError> {
        let http = http_of(&cx.resources, &upload.connection)?;
        if upload.recorded_in.is_some() && http.session().is_none() {
            let message =
                format!("`recorded_in` needs a session, and connection `{}` has none", upload.connection);
            return Err(StepError::invalid(message)
                .with_help("without a session the records of others could be taken for this run's"));
        }
        let files = Files::of(cx, upload.directory.as_deref())?;
        let world = upload.recorded_in.as_ref().map(|settings| World::open(settings, cx)).transpose()?;
        let entries: Vec<ManifestEntry> = read_records(cx, &upload.manifest).await?;
        let wanted = wanted(entries, upload.only.as_deref())?;
        let series = cx.history.state().await?.step(&cx.step).map_or(0, |state| state.reopened);
        let (held, open) = Held::read(cx).await?;
        let (session, left_behind) = (None, Vec::new());
        Ok(Self { upload, cx, http, files, world, wanted, held, open, series, session, left_behind })
    }

    /// Settles what an earlier attempt announced and never recorded.
    pub(super) async fn settle_open(&mut self) -> Result<(), StepError> {
        for Open { batch, announced, .. } in std::mem::take(&mut self.open) {
            let became = match &self.world {
                Some(world) => match world.settle(&announced, &self.held.ids()).await? {
                    Some(stored) => Became::Stored(stored),
                    None => Became::Again("nothing was stored".to_owned()),
                },
                // The person who was asked said that it may be sent again.
                None if self.cx.answers.last().is_some_and(|answer| answer.text.trim() == "retry") => {
                    Became::Again("a person decided to send it again".to_owned())
                }
                None => return Err(unsettled(&announced)),
            };
            self.held.settle(self.cx, batch, &announced, became).await?;
        }
        Ok(())
    }

    /// Settles for a cancel what an attempt announced and never recorded: what is under way still is waited for, and nothing is sent again.
    pub(super) async fn conclude(mut self) -> Result<(), StepError> {
        let Some(world) = &self.world else { return Ok(()) };
        for Open { batch, announced, what } in std::mem::take(&mut self.open) {
            let end = Instant::now() + in_flight::left(&what, takes(&self.http));
            let stored = loop {
                let begun = Instant::now();
                if begun >= end {
                    break world.settle(&announced, &self.held.ids()).await?;
                }
                let stored = world.look(&announced, &self.held.ids()).await?;
                if stored.is_some() {
                    break stored;
                }
                let left = in_flight::soon_over(end - begun)?;
                tokio::time::sleep(left.min(LOOK_AGAIN)).await;
            };
            let became = if stored.is_some() { "is stored" } else { "was not stored" };
            self.cx.live.say(&format!("the upload of {} was cut off: it {became}", announced.key));
            let became =
                stored.map_or_else(|| Became::Again("nothing was stored".to_owned()), Became::Stored);
            self.held.settle(self.cx, batch, &announced, became).await?;
        }
        Ok(())
    }

    /// Uploads until every file is in the live session or has failed.
    pub(super) async fn upload_all(&mut self) -> Result<(), StepError> {
        // What was uploaded before is worth nothing unless the server still knows the session, and only asking tells.
        self.reconnect().await?;
        for _ in 0..SESSIONS {
            if self.pass().await? {
                return Ok(());
            }
            self.cx.live.say("the session has ended: what was uploaded in it is uploaded again");
            self.renew().await?;
        }
        Err(StepError::transient(format!("the session ended {SESSIONS} times before all was uploaded")))
    }

    /// Every file that is not in the live session yet, in order. False when the session ended meanwhile.
    async fn pass(&mut self) -> Result<bool, StepError> {
        let pending: Vec<usize> = (0..self.wanted.len()).filter(|index| self.is_pending(*index)).collect();
        for index in pending {
            self.cx.checkpoint()?;
            self.show();
            // Refreshed when it is due, so that a long list does not outlive its session.
            let before = self.session_id();
            self.renew().await?;
            if self.session_id() != before {
                return Ok(false);
            }
            self.item(index).await?;
            if self.session_id() != before {
                return Ok(false);
            }
        }
        self.show();
        Ok(true)
    }

    fn is_pending(&self, index: usize) -> bool {
        let key = &self.wanted[index].0;
        self.held.failed(key, self.series).is_none() && self.in_session(key).is_none()
    }

    fn in_session(&self, key: &str) -> Option<&Stored> {
        self.held.stored(key).filter(|stored| stored.session == self.session_id())
    }

    fn session_id(&self) -> String {
        self.session.as_ref().map(|session| session.id.clone()).unwrap_or_default()
    }

    async fn renew(&mut self) -> Result<(), StepError> {
        if let Some(session) = self.http.session() {
            self.session = Some(session.get().await?);
        }
        Ok(())
    }

    /// One file, until something is recorded of it.
    async fn item(&mut self, index: usize) -> Result<(), StepError> {
        let (key, entry) = self.wanted[index].clone();
        let stale = self.held.stored(&key).cloned();
        let announced = Announced {
            series: self.series,
            name: entry.as_ref().map(file_name).unwrap_or_default(),
            sha256: entry.as_ref().map(|entry| entry.sha256.to_ascii_lowercase()).unwrap_or_default(),
            session: self.session_id(),
            replaces: stale.as_ref().map(|stored| stored.id.clone()),
            key,
        };
        let mut batch = Held::intend(self.cx, &announced, takes(&self.http)).await?.number;
        let fate = match entry {
            None => Fate::failed("it is not in the manifest"),
            Some(entry) => self.replace(&mut batch, &announced, &entry).await?,
        };
        self.held.settle(self.cx, batch, &announced, fate.became).await?;
        fate.stop.map_or(Ok(()), Err)
    }

    async fn replace(
        &mut self,
        batch: &mut u64,
        announced: &Announced,
        entry: &ManifestEntry,
    ) -> Result<Fate, StepError> {
        let Some(bytes) = self.files.read(&entry.path).await? else {
            return Ok(Fate::failed(format!("{} is missing", entry.path)));
        };
        if let Some(why) = wrong(entry, &bytes) {
            return Ok(Fate::failed(why));
        }
        match (&self.world, &announced.replaces) {
            (Some(world), Some(stale)) => world.remove(stale).await?,
            (None, Some(stale)) => self.left_behind.push(format!(
                "{}: {stale}, of a session that has ended, was left where it is",
                announced.key
            )),
            _ => {}
        }
        self.tries(batch, announced, entry, &bytes).await
    }

    /// Sends a file until its fate is known. An error leaves the batch unsettled, for the next attempt to settle.
    async fn tries(
        &mut self,
        batch: &mut u64,
        announced: &Announced,
        entry: &ManifestEntry,
        bytes: &[u8],
    ) -> Result<Fate, StepError> {
        let (mut renewed, mut unsure, mut attempt) = (false, false, 1);
        loop {
            let session = self.session.as_ref();
            let lost = match send(self.upload, &self.http, session, entry, bytes.to_vec()).await? {
                Sent::Stored(stored) => {
                    if let Some(world) = self.world.as_ref().filter(|_| unsure) {
                        world.tidy(announced, &stored.id, &self.held.ids()).await?;
                    }
                    return Ok(Fate::is(Became::Stored(stored)));
                }
                Sent::Refused(why) => return Ok(Fate::failed(why)),
                Sent::NoSession(why) if renewed => return Ok(Fate::failed(why)),
                Sent::NoSession(why) => {
                    renewed = true;
                    if let Err(error) = self.reconnect().await {
                        return Ok(Fate::stop(error));
                    }
                    if self.session_id() != announced.session {
                        return Ok(Fate::is(Became::Again(why)));
                    }
                    self.announce_anew(batch, announced).await?;
                    continue;
                }
                Sent::Lost(lost) => lost,
            };
            let last = attempt == TRIES;
            if !last && let Err(error) = self.rest(attempt, &lost).await {
                return if lost.maybe { Err(error) } else { Ok(Fate::stop(error)) };
            }
            if lost.maybe {
                unsure = true;
                let Some(world) = &self.world else {
                    return Err(unsettled(announced).with_source(&lost.error));
                };
                if let Some(stored) = world.settle(announced, &self.held.ids()).await? {
                    return Ok(Fate::is(Became::Stored(stored)));
                }
            }
            if last && lost.answered {
                return Ok(Fate::failed(lost.error.message));
            }
            if last {
                return Ok(Fate::stop(lost.error));
            }
            attempt += 1;
            self.announce_anew(batch, announced).await?;
        }
    }

    /// What is sent again may be under way for as long again. The earlier announcement is open until there is the new one.
    async fn announce_anew(&mut self, batch: &mut u64, announced: &Announced) -> Result<(), StepError> {
        let anew = Held::intend(self.cx, announced, takes(&self.http)).await?.number;
        let earlier = std::mem::replace(batch, anew);
        self.held.settle(self.cx, earlier, announced, Became::Again("it was sent again".to_owned())).await
    }

    async fn rest(&self, attempt: u32, lost: &Lost) -> Result<(), StepError> {
        // As long as the server asks for, however long that is: a stop is heard all the while.
        let wait = exponential(FIRST_WAIT, attempt, LONGEST_WAIT).max(asked(&lost.error));
        pause(self.cx, wait).await
    }

    /// The server does not know the session: the same one with a new secret or, when it has ended, a new one.
    async fn reconnect(&mut self) -> Result<(), StepError> {
        let Some(session) = self.http.session() else { return Ok(()) };
        match session.refresh().await {
            Ok(fresh) => self.session = Some(fresh),
            Err(error) if error.kind == ErrorKind::Refused => {
                session.forget().await;
                self.session = Some(session.get().await?);
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn failures(&self) -> Vec<String> {
        let why = |key: &String| Some(format!("{key}: {}", self.held.failed(key, self.series)?));
        self.wanted.iter().filter_map(|(key, _)| why(key)).collect()
    }

    fn show(&self) {
        let stored = self.wanted.iter().filter(|(key, _)| self.in_session(key).is_some()).count();
        self.cx.live.progress(Progress {
            done: stored as u64,
            total: Some(self.wanted.len() as u64),
            unit: "files".to_owned(),
            failed: self.failures().len() as u64,
            note: String::new(),
        });
    }

    /// What there is to say at the end; an error when files failed and that is to stop the run.
    pub(super) async fn outputs(self) -> Result<Uploaded, StepError> {
        let failures = self.failures();
        if !failures.is_empty() && self.upload.on_missing == OnMissing::Stop {
            let (failed, all) = (failures.len(), self.wanted.len());
            let message = format!("{failed} of {all} files were not uploaded: {}", listed(failures, "; "));
            return Err(StepError::gate(message)
                .with_help("the others are stored; once the cause is gone, a resume uploads what is left"));
        }
        let (descriptors, mut discrepancies) = self.descriptors();
        let failed = failures.len() as u64;
        discrepancies.splice(0..0, failures);
        let more = discrepancies.len().saturating_sub(MOST);
        if more > 0 {
            discrepancies.truncate(MOST - 1);
            discrepancies.push(format!("and {} more", more + 1));
        }
        Ok(Uploaded {
            uploaded: descriptors.len() as u64,
            failed,
            replaced: self.held.replaced,
            descriptors: write_records(self.cx, "descriptors.jsonl", &descriptors).await?,
            session_id: self.session.map(|session| session.id),
            discrepancies,
        })
    }

    fn descriptors(&self) -> (Vec<Descriptor>, Vec<String>) {
        let (mut descriptors, mut discrepancies) = (Vec::new(), self.left_behind.clone());
        let template = self.upload.recorded_in.as_ref().and_then(|settings| settings.url.clone());
        let link = template.or_else(|| self.held.link());
        for (key, entry) in &self.wanted {
            let (Some(stored), Some(entry)) = (self.in_session(key), entry) else { continue };
            let adopted = || link.as_ref().map(|link| link.replace("{id}", &stored.id));
            let upload_url = stored.url.clone().or_else(adopted);
            if upload_url.is_none() {
                discrepancies
                    .push(format!("{key}: its link is not known; the server has it as {}", stored.id));
            }
            if let (Some(theirs), Some(ours)) = (&stored.mime_type, &entry.mime_type)
                && !theirs.eq_ignore_ascii_case(ours)
            {
                discrepancies.push(format!("{key}: recorded as {theirs}, and the file is {ours}"));
            }
            descriptors.push(Descriptor {
                key: key.clone(),
                attachment_id: stored.id.clone(),
                upload_url,
                mime_type: stored.mime_type.clone(),
                name: file_name(entry),
                asset_mime_type: entry.mime_type.clone(),
                path: entry.path.clone(),
                bytes: entry.bytes,
                sha256: entry.sha256.clone(),
                session_id: Some(stored.session.clone()).filter(|session| !session.is_empty()),
            });
        }
        (descriptors, discrepancies)
    }
}

/// How long an announced upload may be under way: what comes before it, such as reading the file, and the request itself.
fn takes(http: &Http) -> Duration {
    http.timeout() * 2
}

/// The wanted keys in order, each once, with their lines of the manifest.
fn wanted(
    entries: Vec<ManifestEntry>,
    only: Option<&[String]>,
) -> Result<Vec<(String, Option<ManifestEntry>)>, StepError> {
    let order: Vec<String> = match only {
        Some(only) => only.to_vec(),
        None => entries.iter().map(|entry| entry.key.clone()).collect(),
    };
    let mut by_key = BTreeMap::new();
    for entry in entries {
        let key = entry.key.clone();
        if by_key.insert(key.clone(), entry).is_some() {
            return Err(StepError::invalid(format!("the manifest has the key `{key}` twice")));
        }
    }
    let mut seen = BTreeSet::new();
    let once = order.into_iter().filter(|key| seen.insert(key.clone()));
    Ok(once.map(|key| (key.clone(), by_key.get(&key).cloned())).collect())
}

fn unsettled(announced: &Announced) -> StepError {
    let Announced { key, name, .. } = announced;
    StepError::refused(format!("it is not known whether {key} ({name}) was stored"))
        .unknown()
        .with_help("look whether the server has it; `recorded_in` lets the step look by itself")
}

/// The first of many, with how many more there are.
fn listed(mut all: Vec<String>, between: &str) -> String {
    let more = all.len().saturating_sub(MOST);
    all.truncate(MOST);
    if more > 0 {
        all.push(format!("and {more} more"));
    }
    all.join(between)
}

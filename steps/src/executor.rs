//! Runs steps of the catalog for the engine.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use runbook_engine::error::StepError;
use runbook_engine::event::Obligation;
use runbook_engine::kinds::StepKindInfo;
use runbook_engine::saved::Foresight;
use runbook_engine::step::{Executor, Found, Hold, Look, Release, StepCall, StepContext, StepEnd};

use crate::catalog;
use crate::kind::{Context, StepEntry};
use crate::resources::{Resources, in_words};

/// The executor for production.
pub struct CatalogExecutor {
    resources: Arc<Resources>,
}

impl CatalogExecutor {
    /// Runs steps on these systems.
    pub fn new(resources: Resources) -> Self {
        Self { resources: Arc::new(resources) }
    }

    fn context(&self, engine: StepContext, call: &StepCall) -> Context {
        Context { engine, resources: Arc::clone(&self.resources), lazy: call.lazy.clone() }
    }
}

fn entry(uses: &str) -> Result<&'static StepEntry, StepError> {
    catalog::step(uses).ok_or_else(|| StepError::invalid(format!("there is no step kind `{uses}`")))
}

#[async_trait]
impl Executor for CatalogExecutor {
    fn lazy_fields(&self, uses: &str) -> &'static [&'static str] {
        catalog::step(uses).map_or(&[], |entry| entry.info.lazy_fields)
    }

    async fn run(&self, call: StepCall, cx: StepContext) -> Result<StepEnd, StepError> {
        let cx = self.context(cx, &call);
        (entry(&call.uses)?.run)(call.with, cx).await
    }

    async fn foresee(&self, call: StepCall, cx: StepContext) -> Result<Foresight, StepError> {
        let entry = entry(&call.uses)?;
        let effect =
            cx.history.plan.step(&call.id).map_or((entry.info.effect)(&call.with), |step| step.effect);
        let cx = self.context(cx, &call);
        (entry.foresee)(call.with, effect, cx).await
    }

    fn kind(&self, uses: &str) -> Option<&'static StepKindInfo> {
        catalog::step(uses).map(|entry| &entry.info)
    }

    async fn systems(&self) -> Result<BTreeMap<String, String>, StepError> {
        Ok(in_words(&self.resources.identities().await?))
    }

    async fn release(
        &self,
        call: StepCall,
        obligation: &Obligation,
        hold: Hold,
        cx: StepContext,
    ) -> Result<Release, StepError> {
        let cx = self.context(cx, &call);
        (entry(&call.uses)?.release)(call.with, obligation.clone(), hold, cx).await
    }

    fn tidies(&self, uses: &str) -> bool {
        catalog::step(uses).is_some_and(|entry| entry.tidies)
    }

    async fn tidy(&self, call: StepCall, cx: StepContext) -> Result<(), StepError> {
        let cx = self.context(cx, &call);
        (entry(&call.uses)?.tidy)(call.with, cx).await
    }

    async fn inspect(
        &self,
        call: StepCall,
        obligation: &Obligation,
        look: Look,
        cx: StepContext,
    ) -> Result<Found, StepError> {
        let cx = self.context(cx, &call);
        (entry(&call.uses)?.inspect)(call.with, obligation.clone(), look, cx).await
    }
}

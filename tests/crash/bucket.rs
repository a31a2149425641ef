//! A bucket of its own for a world, in the store that all worlds of a process share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use runbook_engine::redact::Redactor;
use runbook_steps::connections::s3::S3;
use runbook_steps::kind::{NoVault, Vault};
use runbook_steps::resources::Resources;
use serde_json::{Map, Value, json};

use crate::picture::RUNTIME;

static NUMBER: AtomicU64 = AtomicU64::new(0);

/// A bucket, gone with its handle.
pub struct Bucket {
    pub name: String,
    /// The settings of a connection to it.
    pub settings: Value,
    /// The same as a person sees it.
    pub s3: Arc<S3>,
}

impl Bucket {
    /// Makes one in the store of these settings.
    pub fn make(store: &Value) -> Self {
        let name = format!("world-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let mut settings = store.clone();
        settings["bucket"] = json!(name);
        let one = Map::from_iter([("bucket".to_owned(), settings.clone())]);
        let vault: Arc<dyn Vault> = Arc::new(NoVault);
        let resources = Resources::open(&one, &Map::new(), &Redactor::default(), &vault).unwrap();
        let s3 = resources.connection::<S3>("bucket").unwrap();
        RUNTIME.block_on(async { s3.client().await.create_bucket().bucket(&name).send().await.unwrap() });
        Self { name, settings, s3 }
    }

    /// The keys in it, sorted.
    pub async fn keys(&self) -> Vec<String> {
        let listed = self.s3.client().await.list_objects_v2().bucket(&self.name).send().await.unwrap();
        listed.contents().iter().filter_map(|object| object.key().map(str::to_owned)).collect()
    }
}

impl Drop for Bucket {
    /// The store keeps room for each bucket apart.
    fn drop(&mut self) {
        RUNTIME.block_on(async {
            let client = self.s3.client().await;
            for key in self.keys().await {
                let _ = client.delete_object().bucket(&self.name).key(key).send().await;
            }
            let _ = client.delete_bucket().bucket(&self.name).send().await;
        });
    }
}

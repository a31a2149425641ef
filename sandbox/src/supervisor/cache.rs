//! A Redis server as a service: stopped, it writes down what it holds, and finds it again when it is started.

use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::future::{BoxFuture, FutureExt as _};
use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::{Controlled, Verb};
use crate::redis::RedisServer;

/// The server of a cache.
pub(crate) struct Cache {
    server: Mutex<RedisServer>,
    restarts: AtomicU64,
}

impl Cache {
    pub(crate) fn new(server: RedisServer) -> Self {
        Self { server: Mutex::new(server), restarts: AtomicU64::new(0) }
    }
}

impl Controlled for Cache {
    fn name(&self) -> &'static str {
        "redis"
    }

    fn order(&self, verb: Verb) -> BoxFuture<'_, anyhow::Result<()>> {
        async move {
            let mut server = self.server.lock().await;
            if matches!(verb, Verb::Stop | Verb::Restart) {
                server.stop().await?;
            }
            match verb {
                Verb::Stop => {}
                Verb::Kill => server.kill(),
                Verb::Start if server.is_up() => {}
                Verb::Start => server.restart().await?,
                Verb::Restart => {
                    self.restarts.fetch_add(1, Ordering::Relaxed);
                    server.restart().await?;
                }
            }
            Ok(())
        }
        .boxed()
    }

    fn describe(&self) -> BoxFuture<'_, Value> {
        async move {
            let up = self.server.lock().await.is_up();
            json!({ "up": up, "restarts": self.restarts.load(Ordering::Relaxed) })
        }
        .boxed()
    }
}

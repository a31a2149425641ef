//! Every kind there is, as plain lists.

use std::sync::LazyLock;

use runbook_engine::kinds::Catalog;

use crate::approval::Approval;
use crate::archive::Archive;
use crate::assert::Assert;
use crate::backup::Backup;
use crate::branch_protection::BranchProtection;
use crate::check_report::CheckReport;
use crate::collections::files::FilesCollection;
use crate::collections::fountainstore_documents::FountainStoreDocuments;
use crate::collections::redis_keys::RedisKeysCollection;
use crate::collections::s3_objects::S3ObjectsCollection;
use crate::collections::sql_rows::SqlRows;
use crate::command::Command;
use crate::confirm_prompt::ConfirmPrompt;
use crate::connections::directory::DirectoryConnection;
use crate::connections::fountainstore::FountainStoreConnection;
use crate::connections::github::GithubConnection;
use crate::connections::http::HttpConnection;
use crate::connections::kubernetes::KubernetesConnection;
use crate::connections::prometheus::PrometheusConnection;
use crate::connections::redis::RedisConnection;
use crate::connections::s3::S3Connection;
use crate::connections::sql::mysql::MysqlConnection;
use crate::connections::sql::postgres::PostgresConnection;
use crate::connections::sql::sqlite::SqliteConnection;
use crate::count::Count;
use crate::delete_batch::DeleteBatch;
use crate::freeze::Freeze;
use crate::generate_secret::GenerateSecret;
use crate::http::HttpRequest;
use crate::keygen::Keygen;
use crate::kind::{self, CollectionEntry, ConnectionEntry, StepEntry};
use crate::kubernetes_apply::KubernetesApply;
use crate::notify::Notify;
use crate::prometheus_query::PrometheusQuery;
use crate::reconcile::Reconcile;
use crate::redis_flush::RedisFlush;
use crate::redis_info::RedisInfo;
use crate::report::Report;
use crate::s3_inventory::S3Inventory;
use crate::s3_lifecycle::S3Lifecycle;
use crate::smoke_upload::SmokeUpload;
use crate::snapshot::Snapshot;
use crate::sql::Sql;
use crate::sql_reset::SqlReset;
use crate::unfreeze::Unfreeze;
use crate::upload::Upload;
use crate::verify_header::VerifyHeader;
use crate::wait_for::WaitFor;
use crate::watch_log::WatchLog;

/// The step kinds.
pub static STEPS: &[StepEntry] = &[
    // Alphabetic, one a line.
    kind::step::<Approval>(),
    kind::step::<Archive>(),
    kind::step::<Assert>(),
    kind::step::<Backup>(),
    kind::step::<BranchProtection>(),
    kind::step::<CheckReport>(),
    kind::step::<Command>(),
    kind::step::<ConfirmPrompt>(),
    kind::step::<Count>(),
    kind::step::<DeleteBatch>(),
    kind::step::<Freeze>(),
    kind::step::<GenerateSecret>(),
    kind::step::<HttpRequest>(),
    kind::step::<Keygen>(),
    kind::step::<KubernetesApply>(),
    kind::step::<Notify>(),
    kind::step::<PrometheusQuery>(),
    kind::step::<Reconcile>(),
    kind::step::<RedisFlush>(),
    kind::step::<RedisInfo>(),
    kind::step::<Report>(),
    kind::step::<S3Inventory>(),
    kind::step::<S3Lifecycle>(),
    kind::step::<SmokeUpload>(),
    kind::step::<Snapshot>(),
    kind::step::<Sql>(),
    kind::step::<SqlReset>(),
    kind::step::<Unfreeze>(),
    kind::step::<Upload>(),
    kind::step::<VerifyHeader>(),
    kind::step::<WaitFor>(),
    kind::step::<WatchLog>(),
];

/// The connection kinds.
pub static CONNECTIONS: &[ConnectionEntry] = &[
    // Alphabetic, one a line.
    kind::connection::<DirectoryConnection>(),
    kind::connection::<FountainStoreConnection>(),
    kind::connection::<GithubConnection>(),
    kind::connection::<HttpConnection>(),
    kind::connection::<KubernetesConnection>(),
    kind::connection::<MysqlConnection>(),
    kind::connection::<PostgresConnection>(),
    kind::connection::<PrometheusConnection>(),
    kind::connection::<RedisConnection>(),
    kind::connection::<S3Connection>(),
    kind::connection::<SqliteConnection>(),
];

/// The collection kinds.
pub static COLLECTIONS: &[CollectionEntry] = &[
    // Alphabetic, one a line.
    kind::collection::<FilesCollection>(),
    kind::collection::<FountainStoreDocuments>(),
    kind::collection::<RedisKeysCollection>(),
    kind::collection::<S3ObjectsCollection>(),
    kind::collection::<SqlRows>(),
];

/// What the engine knows of all of them.
pub static CATALOG: LazyLock<Catalog> = LazyLock::new(|| Catalog {
    steps: STEPS.iter().map(|entry| entry.info).collect::<Vec<_>>().leak(),
    connections: CONNECTIONS.iter().map(|entry| entry.info).collect::<Vec<_>>().leak(),
    collections: COLLECTIONS.iter().map(|entry| entry.info).collect::<Vec<_>>().leak(),
});

/// The step kind of this name.
pub fn step(name: &str) -> Option<&'static StepEntry> {
    STEPS.iter().find(|entry| entry.info.name == name)
}

/// The connection kind of this name.
pub fn connection(name: &str) -> Option<&'static ConnectionEntry> {
    CONNECTIONS.iter().find(|entry| entry.info.name == name)
}

/// The collection kind of this name.
pub fn collection(name: &str) -> Option<&'static CollectionEntry> {
    COLLECTIONS.iter().find(|entry| entry.info.name == name)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    /// The JSON pointers to what a schema calls a time or a length of time. Lists are left out: nothing in them has a place of its own.
    fn times(schema: &Value, whole: &Value, at: &str, found: &mut Vec<String>) {
        if let Some(name) = schema["$ref"].as_str() {
            return times(whole.pointer(&name[1..]).unwrap(), whole, at, found);
        }
        for one in schema["anyOf"].as_array().into_iter().flatten() {
            times(one, whole, at, found);
        }
        for (name, below) in schema["properties"].as_object().into_iter().flatten() {
            let at = format!("{at}/{name}");
            if name.ends_with("_at") || name.ends_with("_ms") {
                found.push(at.clone());
            }
            times(below, whole, &at, found);
        }
    }

    #[test]
    fn every_time_and_length_of_time_among_the_outputs_is_fleeting() {
        for kind in CATALOG.steps {
            let (outputs, mut found) = ((kind.outputs)().to_value(), Vec::new());
            times(&outputs, &outputs, "", &mut found);
            assert_eq!(kind.fleeting_outputs, found, "{}", kind.name);
        }
    }
}

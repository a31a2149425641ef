//! Images whose rows are in a PostgreSQL and whose files are in an S3 store, some of them lost.

use anyhow::Context;
use serde_json::json;

use crate::{
    database::{DatabaseServer, Kind},
    supervisor::{Common, Scene, Stage, stand},
    weed::{ACCESS_KEY, SECRET_KEY, Weed},
};

const EXAMPLES: &str = "\
Examples:
  sandbox images -- bash                                               a shell beside the servers
  sandbox images -- runbook exec reconcile-images -i mode=dry-run      look for the images whose files are lost";

const BUCKET: &str = "real-staging";

/// The tables as the migrations of the application leave them.
pub const SCHEMA: &str = "create table users (id uuid primary key default gen_random_uuid(), auth0_sub text unique not null); \
    create table projects (id uuid primary key, user_id uuid not null references users on delete cascade, name text not null); \
    create type image_status as enum ('queued', 'processing', 'ready', 'error'); \
    create table images (id uuid primary key default gen_random_uuid(), project_id uuid not null references projects on delete cascade, \
      original_url text not null, staged_url text, room_type text, style text, seed bigint, \
      status image_status not null default 'queued', error text, created_at timestamptz not null default now(), \
      updated_at timestamptz not null default now(), cost_usd numeric(10,4) default 0, model_used varchar(255)); \
    insert into users values ('a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', 'auth0|test'); \
    insert into projects values ('b0eebc99-9c0b-4ef8-bb6d-6bb9bd380a12', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', 'one'); \
    insert into projects values ('b0eebc99-9c0b-4ef8-bb6d-6bb9bd380a13', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', 'two')";

/// Start a PostgreSQL with images and an S3 store with their files, and run COMMAND beside them.
///
/// COMMAND gets, in its environment: SANDBOX_DIR, SANDBOX_CONTROL_URL, DATABASE_URL, S3_ENDPOINT, S3_ACCESS_KEY, S3_SECRET_KEY,
/// RUNBOOK_INPUTS (an inputs file for the runbook reconcile-images, which needs `-i mode=dry-run` or `-i mode=apply` beside it).
/// The sandbox stops when COMMAND ends, and exits with its code (128 + the signal that killed it).
///
/// Without COMMAND, one JSON line with that environment goes to standard output, and the sandbox runs until
/// SIGTERM, SIGINT, or the end of standard input. However it ends, its servers end with it.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// How many images there are
    #[arg(long, value_name = "N", default_value_t = 100)]
    images: u32,
    /// How many of them have lost their files
    #[arg(long, value_name = "N", default_value_t = 3)]
    lost: u32,
    #[command(flatten)]
    common: Common,
}

/// Runs the sandbox; the exit code is the command's.
///
/// # Errors
/// When it cannot be set up; what the command does is in the exit code.
pub async fn run(args: Args) -> anyhow::Result<u8> {
    stand(&args.common, async |stage| scene(&args, stage).await).await
}

async fn scene(args: &Args, stage: &Stage) -> anyhow::Result<Scene> {
    let database = DatabaseServer::start(Kind::Postgres).await?;
    let store = Weed::start().await?;
    database.execute(SCHEMA).await?;
    let rows = format!(
        "insert into images (project_id, original_url, status, created_at) select 'b0eebc99-9c0b-4ef8-bb6d-6bb9bd380a12', \
         '{}/{BUCKET}/uploads/' || n || '.jpg', (array['ready', 'queued', 'processing'])[n % 3 + 1]::image_status, '2025-06-01' \
         from generate_series(1, {}) n",
        store.url, args.images
    );
    database.execute(&rows).await?;
    store.make_bucket(BUCKET).await?;
    store.put(BUCKET, "known", b"x".to_vec()).await?;
    for number in args.lost + 1..=args.images {
        store.put(BUCKET, &format!("uploads/{number}.jpg"), b"x".to_vec()).await?;
    }
    let inputs = json!({
        "known_key": "known",
        "created_before": "2026-01-01T00:00:00Z",
        "bucket": BUCKET,
        "s3_endpoint": store.url,
        "archive_dir": stage.text("archive"),
    });
    std::fs::write(stage.path("inputs.yaml"), serde_yaml::to_string(&inputs)?)
        .context("cannot write inputs.yaml")?;
    let mut environment = stage.environment();
    environment.extend([
        ("DATABASE_URL", database.url()),
        ("S3_ENDPOINT", store.url.clone()),
        ("S3_ACCESS_KEY", ACCESS_KEY.to_owned()),
        ("S3_SECRET_KEY", SECRET_KEY.to_owned()),
        ("RUNBOOK_INPUTS", stage.text("inputs.yaml")),
    ]);
    Ok(Scene {
        environment,
        services: Vec::new(),
        routes: axum::Router::new(),
        held: vec![Box::new(database), Box::new(store)],
    })
}

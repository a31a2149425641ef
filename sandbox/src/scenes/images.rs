//! Images whose rows are in a PostgreSQL and whose files are in an S3 store, some of them lost.

use anyhow::Context;
use serde_json::json;

use crate::{
    chat, crypto,
    database::{DatabaseServer, Kind},
    supervisor::{Common, Scene, Stage, stand},
    weed::{ACCESS_KEY, SECRET_KEY, Weed},
};

const EXAMPLES: &str = "\
Examples:
  sandbox images -- bash                                               a shell beside the servers
  sandbox images -- runbook exec reconcile-images -i mode=dry-run      look for the images whose files are lost
  sandbox images -- sh -c 'runbook exec ask-image-api --inputs $ASK_INPUTS'    ask the API what it would mark";

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
/// IMAGE_API_URL, IMAGE_API_TOKEN, ASK_INPUTS (an inputs file for the runbook ask-image-api), RUNBOOK_INPUTS (one for
/// reconcile-images, which needs `-i mode=dry-run` or `-i mode=apply` beside it).
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
    let secret = crypto::hex(&crypto::random::<24>());
    let settings = [
        ("DATABASE_URL", database.url()),
        ("S3_ENDPOINT", store.url.clone()),
        ("S3_ACCESS_KEY", ACCESS_KEY.to_owned()),
        ("S3_SECRET_KEY", SECRET_KEY.to_owned()),
    ];
    let own = [("JWT_SECRET", secret.clone()), ("RECONCILE_ENABLED", "1".to_owned())];
    let named = settings.iter().chain(&own).map(|(name, value)| ((*name).to_owned(), value.clone()));
    let api = super::service(stage, "image-api", Vec::new(), named.collect()).await?;
    let inputs = json!({
        "database": "app",
        "known_key": "known",
        "created_before": "2026-01-01T00:00:00Z",
        "bucket": BUCKET,
        "s3_endpoint": store.url,
        "archive_dir": stage.text("archive"),
    });
    let asked =
        json!({ "api_url": api.url(), "bucket": BUCKET, "s3_endpoint": store.url, "known_key": "known" });
    for (name, inputs) in [("inputs.yaml", inputs), ("ask.yaml", asked)] {
        std::fs::write(stage.path(name), serde_yaml::to_string(&inputs)?)
            .with_context(|| format!("cannot write {name}"))?;
    }
    let mut environment = stage.environment();
    environment.extend(settings);
    environment.extend([
        ("IMAGE_API_URL", api.url()),
        ("IMAGE_API_TOKEN", chat::token(&secret, "auth0|test")),
        ("ASK_INPUTS", stage.text("ask.yaml")),
        ("RUNBOOK_INPUTS", stage.text("inputs.yaml")),
    ]);
    Ok(Scene {
        environment,
        services: vec![Box::new(api)],
        routes: axum::Router::new(),
        held: vec![Box::new(database), Box::new(store)],
    })
}

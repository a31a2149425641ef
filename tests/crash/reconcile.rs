//! Rows that name files: looked for, marked where the file is gone, and put back, with the prior state in a file.

use std::path::PathBuf;
use std::process::Output;

use serde_json::{Value, json};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Executor as _, Row as _};

use crate::matrix::{Case, explore};
use crate::picture::RUNTIME;
use crate::place::Place;
use crate::trial::{Recovery, World, run_in};

/// How many rows there are: more than one batch of 2 times 40 reads.
const ROWS: u64 = 90;

/// Those of which the file is gone.
const LOST: [u64; 5] = [3, 40, 41, 85, 90];

struct Marked(Place);

impl Marked {
    fn database(&self) -> SqliteConnectOptions {
        SqliteConnectOptions::new().filename(self.0.path("app.db")).create_if_missing(true)
    }

    /// What a query gives, one text a row.
    fn texts(&self, sql: &str) -> Vec<String> {
        RUNTIME.block_on(async {
            let rows = self
                .database()
                .connect()
                .await
                .unwrap()
                .fetch_all(sqlx::query(AssertSqlSafe(sql.to_owned())))
                .await;
            rows.unwrap().iter().map(|row| row.get(0)).collect()
        })
    }
}

fn make() -> Box<dyn World> {
    let world = Marked(Place::new());
    let place = &world.0;
    std::fs::create_dir(place.path("store")).unwrap();
    for number in (1..=ROWS).filter(|number| !LOST.contains(number)) {
        place.write(&format!("store/{number}.jpg"), "x");
    }
    RUNTIME.block_on(async {
        let sql = format!(
            "create table images (id integer primary key, file text, status text, error text, times integer not null default 0); \
             create trigger counted after update of status on images begin update images set times = times + 1 where id = new.id; end; \
             insert into images (id, file, status) with recursive c(n) as (select 1 union all select n + 1 from c where n < {ROWS}) \
             select n, n || '.jpg', case n % 2 when 0 then 'ready' else 'queued' end from c"
        );
        world.database().connect().await.unwrap().execute(sqlx::raw_sql(AssertSqlSafe(sql))).await.unwrap();
    });
    let text = format!(
        r#"connections:
  db: {{ type: sqlite, path: "{}" }}
  store: {{ type: directory, path: "{}" }}
  archive: {{ type: directory, path: "{}" }}
collections:
  images: {{ type: sql-rows, connection: db, table: images }}
  store: {{ type: files, connection: store }}
lock: images
steps:
  - id: look
    uses: reconcile
    with:
      collection: images
      against: store
      action: report
      compare: listing
      batch_size: 2
      references:
        - {{ name: file, field: file, holds: key, set: {{ status: error, error: missing }} }}
  - {{ id: confirm, uses: confirm-prompt, with: {{ message: Mark them?, phrases: [MARK] }} }}
  - id: mark
    uses: reconcile
    with:
      collection: images
      against: store
      action: mark
      findings: "${{{{ steps.look.outputs.findings }}}}"
      save_to: {{ connection: archive, file: prior.jsonl }}
      batch_size: 2
  - id: undo
    uses: reconcile
    with: {{ collection: images, action: undo, saved_in: {{ connection: archive, file: prior.jsonl }}, only: ["3", "40", "41"], batch_size: 2 }}
finally:
  - {{ id: report, uses: report }}
"#,
        place.path("app.db").display(),
        place.path("store").display(),
        place.path("archive").display(),
    );
    place.runbook("images", &text);
    Box::new(world)
}

impl World for Marked {
    fn run(&self, arguments: &[String], variables: &[(String, String)]) -> Output {
        run_in(&self.0, arguments, variables)
    }

    fn state(&self) -> PathBuf {
        self.0.path("state")
    }

    fn exec(&self) -> Vec<String> {
        ["exec", "images.yaml"].map(str::to_owned).into()
    }

    fn took_effect(&self, step: &str) -> bool {
        panic!("`{step}` may be repeated");
    }

    fn names(&self) -> Vec<(String, String)> {
        vec![(self.0.path("").display().to_string(), "WORLD/".to_owned())]
    }

    fn picture(&self) -> Value {
        let rows = "select id || ' ' || status || ' ' || coalesce(error, '-') from images order by id";
        json!({ "images": self.texts(rows), "prior": std::fs::read_to_string(self.0.path("archive/prior.jsonl")).ok() })
    }

    fn wrong(&self, _: &[String]) -> Vec<String> {
        // What was marked and put back changed twice, what was marked once, and everything else never.
        let often = "select id || ' changed ' || times || ' times' from images where times > \
                     case when id in (3, 40, 41) then 2 when id in (85, 90) then 1 else 0 end";
        self.texts(often)
    }
}

#[test]
fn rows_are_marked_and_put_back_once() {
    explore(&Case {
        name: "rows and files",
        recovery: Recovery::Resume,
        make,
        stride: 3,
        second_stride: 149,
    });
}

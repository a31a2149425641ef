//! What a plan binds of SQLite databases that a run destroys in.

use sqlx::{AssertSqlSafe, ConnectOptions as _, Executor as _, Row as _};

use crate::place::Place;

/// Runs statements behind the back of the runbook; the texts of the first column of what they give.
fn sql(place: &Place, file: &str, statements: &str) -> Vec<String> {
    let options =
        sqlx::sqlite::SqliteConnectOptions::new().filename(place.path(file)).create_if_missing(true);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut connection = options.connect().await.unwrap();
        let statements = sqlx::raw_sql(AssertSqlSafe(statements.to_owned()));
        let rows = connection.fetch_all(statements).await.unwrap();
        sqlx::Connection::close(connection).await.unwrap();
        rows.iter().map(|row| row.get_unchecked(0)).collect()
    })
}

/// A runbook `it.yaml` that asks and then does `step`, on the database `app.db`.
fn asked(schema: &str, rest: &str, step: &str) -> Place {
    let place = Place::new();
    sql(&place, "app.db", schema);
    place.runbook(
        "it",
        &format!(
            "connections: {{ app: {{ type: sqlite, path: app.db }} }}\nlimits: {{ max_items: 10 }}\n{rest}steps:\n\
             \x20 - {{ id: sure, uses: confirm-prompt, with: {{ message: m, phrases: [\"YES\"] }} }}\n{step}"
        ),
    );
    place
}

const TABLE: &str =
    "create table s (id text primary key, e text); insert into s values ('a', '2020'), ('b', '2999')";

#[test]
fn a_statement_is_shown_with_its_values_and_counts_as_what_bounds_it() {
    let step = |more: &str| {
        format!(
            "  - id: purge\n    uses: sql\n    waive: {{ RB0501: test, RB0506: test }}\n    with: {{ connection: app, \
             statement: \"delete from s where e < ? and id <> ?\", parameters: [\"2026\", \"${{{{ secrets.key }}}}\"], {more}\
             effect: {{ class: destroy, repeat: repeatable{} }} }}\n",
            if more.is_empty() { ", items: 3" } else { "" }
        )
    };
    let shown = |more: &str, code: i32| {
        let place = asked(TABLE, "secrets: { key: { file: key } }\n", &step(more));
        place.write(
            "key",
            "a-secret-that-is-long-enough-to-be-cut-in-the-middle-of-a-line-of-eighty-characters-and-more",
        );
        let ran = place.expect(code, &["plan", "it.yaml"]);
        assert!(!ran.out.contains("a-secret"), "{}", ran.out);
        assert_eq!(sql(&place, "app.db", "select count(*) || '' from s"), ["2"]);
        ran.out.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let out = shown("", 0);
    assert!(
        out.contains("`delete from s where e < ? and id <> ?` with \"2026\", \"[REDACTED]\" on"),
        "{out}"
    );
    assert!(out.contains("the plan binds the statement and not its rows"), "{out}");
    assert!(out.contains("counts as 3 items, as declared") && out.contains("destroys 3 items"), "{out}");
    let out = shown("expect: { affected: { max: 4 } }, ", 0);
    assert!(out.contains("at most 4 rows") && out.contains("destroys 4 items"), "{out}");
    // The limits hold it to no more.
    let out = shown("expect: { affected: { max: 4000 } }, ", 0);
    assert!(out.contains("at most 4000 rows") && out.contains("destroys 10 items"), "{out}");
    let out = shown("max_rows: 5, ", 0);
    assert!(out.contains("counts as 1 item, because nobody says how many"), "{out}");
}

const WIPE: &str = "  - { id: wipe, uses: sql-reset, waive: { RB0501: test, RB0506: test }, \
                    with: { connection: app, files: [schema.sql] } }\n";

fn reset() -> Place {
    let place = asked(TABLE, "", WIPE);
    place.write("schema.sql", "create table made_anew (id integer primary key);");
    let ran = place.expect(0, &["plan", "it.yaml", "-o", "plan.json"]);
    assert!(ran.out.contains("counts as 2 items, as counted now"), "{}", ran.out);
    place
}

#[test]
fn a_schema_is_dropped_as_it_was_planned_or_not_at_all() {
    type Change = fn(&Place);
    let changes: [(Change, &str); 4] = [
        (
            |place| drop(sql(place, "app.db", "update s set e = 'x' where id = 'a'")),
            "table `s`: 2 rows (sha256",
        ),
        (|place| drop(sql(place, "app.db", "insert into s values ('c', '2021')")), "and 3 rows (sha256"),
        (|place| drop(sql(place, "app.db", "create table further (x)")), "table `further`: not there then"),
        (|place| place.write("schema.sql", "create table smuggled (x);"), "schema.sql: sha256"),
    ];
    for (change, words) in changes {
        // Between the plan and the run.
        let place = reset();
        change(&place);
        let ran = place.expect(9, &["exec", "--plan", "plan.json", "--confirm", "sure=YES"]);
        assert!(ran.err.contains("target of `wipe`: it would drop"), "{words}: {}", ran.err);
        assert_eq!(place.json(&["runs"]), serde_json::json!([]), "{words}");
        // While the run waits.
        let place = reset();
        place.expect(5, &["exec", "--plan", "plan.json"]);
        change(&place);
        let ran = place.expect(9, &["answer", &place.newest(), "YES"]);
        assert!(ran.err.contains(words) && ran.err.contains("nothing was dropped"), "{words}: {}", ran.err);
        let tables = sql(&place, "app.db", "select name from sqlite_schema where type = 'table'");
        assert!(tables.contains(&"s".to_owned()) && !tables.contains(&"smuggled".to_owned()), "{tables:?}");
    }
    // As it was, but for the order of its rows.
    let place = reset();
    sql(&place, "app.db", "delete from s where id = 'a'; insert into s values ('a', '2020')");
    place.expect(0, &["exec", "--plan", "plan.json", "--confirm", "sure=YES"]);
    assert_eq!(sql(&place, "app.db", "select name from sqlite_schema where type = 'table'"), ["made_anew"]);
}

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
    // What several steps may come to at the most need not fit into the limits together; what they need at the least has to.
    let out = shown("expect: { affected: { min: 11, max: 40 } }, ", 4);
    assert!(out.contains("max_items"), "{out}");
    let out = shown("max_rows: 5, ", 0);
    assert!(out.contains("counts as 1 item, because nobody says how many"), "{out}");
}

#[test]
fn the_bounds_of_two_statements_need_not_fit_into_the_limits_together() {
    let step = |id: &str| {
        format!(
            "  - {{ id: {id}, uses: sql, waive: {{ RB0501: test, RB0506: test }}, with: {{ connection: app, statement: \
             \"delete from s where id = '{id}'\", expect: {{ affected: {{ max: 8 }} }}, \
             effect: {{ class: destroy, repeat: repeatable }} }} }}\n"
        )
    };
    let place = asked(TABLE, "", &(step("a") + &step("b")));
    let shown = place.expect(0, &["plan", "it.yaml", "-o", "plan.json"]);
    assert!(shown.out.contains("at most 8 rows"), "{}", shown.out);
    place.expect(0, &APPLY);
    assert_eq!(sql(&place, "app.db", "select id from s"), Vec::<String>::new());
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

fn purge(columns: &str) -> String {
    format!(
        "collections: {{ old: {{ type: sql-rows, connection: app, table: s, {columns}where: {{ e: {{ lt: \"2026\" }} }} }} }}\n"
    )
}

const PURGE: &str = "  - { id: before, uses: snapshot, with: { collection: old } }\n\
                     \x20 - { id: purge, uses: delete-batch, with: { collections: old, keys: \"${{ steps.before.outputs.manifest }}\" } }\n\
                     \x20 - { id: left, uses: count, with: { collections: old, expect: 0 } }\n";

const APPLY: [&str; 5] = ["exec", "--plan", "plan.json", "--confirm", "sure=YES"];

/// Plans it; what the plan says, on one line.
fn plan(place: &Place) -> String {
    let out = place.expect(0, &["plan", "it.yaml", "-o", "plan.json"]).out;
    out.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn another_database_in_the_same_place_is_another_system() {
    let schema = format!("{TABLE}; pragma application_id = 7");
    let at = |place: &Place, name: &str| place.path(name);
    let exchange = |place: &Place, other: &str| {
        sql(place, "other.db", other);
        std::fs::remove_file(at(place, "app.db")).unwrap();
        std::fs::copy(at(place, "other.db"), at(place, "app.db")).unwrap();
    };
    // The number of the file is the old one's, its time is not; where no time is told, what is in it is.
    for other in [TABLE.to_owned(), format!("{schema}; create table further (x)"), schema.clone()] {
        let place = asked(&schema, &purge(""), PURGE);
        assert!(plan(&place).contains("application id 7, schema "), "{}", plan(&place));
        exchange(&place, &other);
        let ran = place.expect(9, &APPLY);
        assert!(ran.err.contains("system `app`: it was SQLite"), "{}", ran.err);
        // While the run waits.
        let place = asked(&schema, &purge(""), PURGE);
        plan(&place);
        place.expect(5, &["exec", "--plan", "plan.json"]);
        exchange(&place, &other);
        let ran = place.expect(9, &["answer", &place.newest(), "YES"]);
        assert!(
            ran.err.contains("works on other systems") || ran.err.contains("other systems"),
            "{}",
            ran.err
        );
        assert_eq!(sql(&place, "app.db", "select count(*) || '' from s"), ["2"]);
    }
    // In place, only the schema tells.
    let place = asked(&schema, &purge(""), PURGE);
    plan(&place);
    sql(&place, "app.db", "create table further (x)");
    let ran = place.expect(9, &APPLY);
    assert!(ran.err.contains("application id 7, schema "), "{}", ran.err);
}

#[test]
fn what_a_run_does_to_a_schema_is_no_other_system() {
    let step = "  - { id: further, uses: sql, with: { connection: app, statement: create table further (x), \
                effect: { class: write, repeat: repeatable } } }\n\
                \x20 - { id: then, uses: sql, with: { connection: app, statement: insert into further values (1), \
                effect: { class: write, repeat: repeatable } } }\n";
    let place = asked(TABLE, "", step);
    plan(&place);
    place.expect(0, &APPLY);
    assert_eq!(sql(&place, "app.db", "select x || '' from further"), ["1"]);
}

#[test]
fn what_goes_with_a_row_is_told_and_held_to() {
    let schema = format!(
        "{TABLE}; create table orders (id integer primary key, s text references s (id) on delete cascade); \
         create table lines (o integer references orders (id) on delete set null); create table audit (x); \
         insert into orders values (1, 'a'), (2, 'a'); insert into audit values (1)"
    );
    let boom = "create trigger boom after delete on orders begin delete from audit; end";
    let place = asked(&schema, &purge(""), PURGE);
    let out = plan(&place);
    assert!(out.contains("rows of `lines` (foreign key o, on delete set null); rows of `orders`"), "{out}");
    sql(&place, "app.db", boom);
    let ran = place.expect(9, &APPLY);
    assert!(ran.err.contains("boom"), "{}", ran.err);
    // While the run waits, which does not compare the schema.
    let place = asked(&schema, &purge(""), PURGE);
    plan(&place);
    place.expect(5, &["exec", "--plan", "plan.json"]);
    sql(&place, "app.db", boom);
    let ran = place.expect(9, &["answer", &place.newest(), "YES"]);
    assert!(ran.err.contains("what the trigger `boom` of `orders` does"), "{}", ran.err);
    assert_eq!(sql(&place, "app.db", "select count(*) || '' from orders"), ["2"]);
    // As planned.
    let place = asked(&format!("{schema}; {boom}"), &purge(""), PURGE);
    plan(&place);
    place.expect(0, &APPLY);
    assert_eq!(
        sql(&place, "app.db", "select count(*) || '' from orders union all select count(*) || '' from audit"),
        ["0", "0"]
    );
}

#[test]
fn a_row_is_all_of_its_columns_whichever_are_recorded() {
    let schema =
        "create table s (id text primary key, v text, e text); insert into s values ('a', 'spam', '2020')";
    let place = asked(schema, &purge("columns: [id, e], "), PURGE);
    plan(&place);
    sql(&place, "app.db", "update s set v = 'to be kept'");
    let ran = place.expect(9, &APPLY);
    assert!(ran.err.contains("1 changed (a)"), "{}", ran.err);
    let place = asked(schema, &purge("columns: [id, e], "), PURGE);
    plan(&place);
    place.expect(0, &APPLY);
    assert_eq!(sql(&place, "app.db", "select id from s"), Vec::<String>::new());
}

#[test]
fn what_hangs_on_a_child_is_followed_though_another_key_of_it_is_only_set_to_null() {
    let schema = format!(
        "{TABLE}; create table c (id integer primary key, a_old text references s (id) on delete set null, \
         b_owner text references s (id) on delete cascade); \
         create table g (id integer primary key, c integer references c (id) on delete cascade); create table audit (x)"
    );
    let place = asked(&schema, &purge(""), PURGE);
    let out = plan(&place);
    assert!(out.contains("rows of `g` (foreign key c, on delete cascade)"), "{out}");
    place.expect(5, &["exec", "--plan", "plan.json"]);
    sql(&place, "app.db", "create trigger boom after delete on c begin delete from audit; end");
    let ran = place.expect(9, &["answer", &place.newest(), "YES"]);
    assert!(ran.err.contains("boom"), "{}", ran.err);
    assert_eq!(sql(&place, "app.db", "select count(*) || '' from s"), ["2"]);
}

#[test]
fn a_database_whose_log_was_written_back_gets_no_new_one() {
    let step = "  - { id: look, uses: sql, with: { connection: app, statement: select id from s } }\n";
    let place = Place::new();
    sql(&place, "app.db", &format!("pragma journal_mode = wal; {TABLE}"));
    place.runbook("it", &format!("connections: {{ app: {{ type: sqlite, path: app.db }} }}\nsteps:\n{step}"));
    assert!(!place.path("app.db-wal").exists(), "the last one to close it writes the log back");
    assert!(plan(&place).contains("row count 2"));
    assert!(!place.path("app.db-wal").exists() && !place.path("app.db-shm").exists());
    place.expect(0, &["exec", "it.yaml"]);
}

#[test]
fn a_plan_makes_no_file_and_writes_no_log_back() {
    let step = "  - { id: look, uses: sql, with: { connection: app, statement: select id from s } }\n\
                \x20 - { id: fresh, uses: sql, with: { connection: new, statement: select 1 as n } }\n\
                \x20 - { id: make, uses: sql, with: { connection: new, statement: create table made (x), \
                effect: { class: write, repeat: repeatable } } }\n";
    let place = Place::new();
    // What a killed process leaves: a log with all there is in it.
    sql(&place, "whole.db", &format!("pragma journal_mode = wal; {TABLE}; pragma user_version = 3"));
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(place.path("whole.db"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut open = options.connect().await.unwrap();
        open.execute(sqlx::raw_sql("insert into s values ('c', '2021')")).await.unwrap();
        for end in ["", "-wal"] {
            std::fs::copy(place.path(&format!("whole.db{end}")), place.path(&format!("app.db{end}")))
                .unwrap();
        }
    });
    place.runbook(
        "it",
        &format!(
            "connections:\n  app: {{ type: sqlite, path: app.db }}\n  new: {{ type: sqlite, path: new.db, create: true }}\nsteps:\n{step}"
        ),
    );
    let files = |place: &Place| {
        [std::fs::read(place.path("app.db")).unwrap(), std::fs::read(place.path("app.db-wal")).unwrap()]
    };
    let before = files(&place);
    assert!(!before[1].is_empty());
    let out = plan(&place);
    assert!(out.contains("row count 3"), "{out}");
    assert!(files(&place) == before, "the plan wrote");
    assert!(!place.path("new.db").exists());
    place.expect(0, &["exec", "--plan", "plan.json"]);
    assert!(place.path("new.db").exists());
}

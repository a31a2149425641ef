//! The names that a database has on its way back, and the statements that give them.

use crate::connections::sql::{Dialect, quoted as quoted_name};

/// The longest part of a database's name that the name of one put aside begins with, of which the longest ends with `_half_` and a time of 14 digits;
/// PostgreSQL keeps 63 bytes of a name.
const KEPT: usize = 40;

/// How many digits of the SHA-256 of the backup are in a name.
const MARK: usize = 8;

/// The names that the database has on the way, and the statements that give them.
pub(super) struct Names<'a> {
    pub database: &'a str,
    /// What was there, while another one is restored.
    pub mid: String,
    /// What was there, when it was.
    pub was: String,
    /// What the name of what a try left begins with.
    half: String,
}

impl<'a> Names<'a> {
    pub fn of(database: &'a str, sha256: &str) -> Self {
        let cut = (0..=KEPT.min(database.len())).rev().find(|at| database.is_char_boundary(*at)).unwrap_or(0);
        let (begin, mark) = (&database[..cut], sha256.get(..MARK).unwrap_or(sha256));
        let [mid, was] = ["mid", "was"].map(|word| format!("{begin}_{word}_{mark}"));
        Self { database, mid, was, half: format!("{begin}_half_") }
    }

    /// How it stands, in a word. Where another backup was being brought back, the name of what was there before comes after it.
    pub fn look(&self) -> Vec<String> {
        let (own, mid, was) = (there(self.database), there(&self.mid), there(&self.was));
        let other = format!(
            "(select min(datname::text) from pg_database where starts_with(datname, {}) and datname ~ '_mid_[0-9a-f]{{{MARK}}}$')",
            literal(self.mid.get(..self.mid.len() - MARK).unwrap_or(&self.mid))
        );
        vec![format!(
            "select case when {own} and {mid} then 'both' when {mid} then 'mid' when {other} is not null then 'other ' || {other} \
             when {own} and {was} then 'done' when {own} then 'there' else 'gone' end;"
        )]
    }

    /// Names who is in the database, and what keeps it from getting another name.
    pub fn busy(&self) -> Vec<String> {
        let names = format!("({}, {})", literal(self.database), literal(&self.mid));
        vec![
            format!(
                "select concat('in the database ', datname, ': process ', pid, ' of ' || usename, ', ' || nullif(application_name, ''), ', ' || backend_type) \
                 from pg_stat_activity where datname in {names} and pid <> pg_backend_pid();"
            ),
            format!(
                "select concat('in the database ', database, ': the prepared transaction ', gid, ', which is to be committed or rolled back there') \
                 from pg_prepared_xacts where database in {names};"
            ),
        ]
    }

    /// What is put aside when there is none any more.
    pub fn make(&self) -> Vec<String> {
        vec![format!("create database {};", name_of(self.database))]
    }

    /// Puts aside what is there. Whoever comes in between is waited for by the renaming, which then does nothing.
    pub fn away(&self) -> Vec<String> {
        vec![disconnected(self.database), format!("{};", renamed(self.database, &self.mid))]
    }

    /// Has what was there in its place again. What stands there meanwhile may be somebody's.
    pub fn undo(&self) -> Vec<String> {
        let both = self.both();
        vec![
            when(&both, &disconnected(self.database)),
            self.aside(self.database, &both),
            when(&there(&self.mid), &renamed(&self.mid, self.database)),
        ]
    }

    /// Gives what was there its last name, and says which. Where another one has that, it was brought back before.
    pub fn last(&self) -> Vec<String> {
        vec![
            disconnected(&self.mid),
            format!(
                "select case when {} then {} else {} end as kept \\gset",
                there(&self.was),
                self.of_its_own(),
                literal(&self.was)
            ),
            format!(
                "select format('alter database %I rename to %I', {}, :'kept') \\gexec",
                literal(&self.mid)
            ),
            "select 'restored; what was there is in the database ' || :'kept';".to_owned(),
            self.also(" and datname <> :'kept'"),
        ]
    }

    /// Gives a database a name of its own.
    fn aside(&self, name: &str, condition: &str) -> String {
        format!(
            "select format('alter database %I rename to %I', {}, {}) where {condition} \\gexec",
            literal(name),
            self.of_its_own()
        )
    }

    /// A name that nothing else has.
    fn of_its_own(&self) -> String {
        format!("{} || to_char(clock_timestamp(), 'YYYYMMDDHH24MISS')", literal(&self.half))
    }

    /// Names what tries have left.
    pub fn told(&self) -> Vec<String> {
        vec![self.also("")]
    }

    fn also(&self, condition: &str) -> String {
        let half = literal(&self.half);
        format!(
            "select 'put aside as well, and not dropped: the database ' || datname from pg_database \
             where starts_with(datname, {half}) and substr(datname, length({half}) + 1) ~ '^[0-9]{{14}}$'{condition} order by 1;"
        )
    }

    /// Both are there, and no file says what came of it.
    pub fn begun_elsewhere(&self) -> String {
        let (database, mid, was) = (self.database, &self.mid, &self.was);
        format!(
            "the database {mid} is there, so that it was begun elsewhere, and whether {database} is whole is not known here. If it is, give {mid} the name {was}; \
             if not, give {database} another name; then type the same again"
        )
    }

    fn both(&self) -> String {
        format!("{} and {}", there(&self.mid), there(self.database))
    }
}

fn there(name: &str) -> String {
    format!("exists (select from pg_database where datname = {})", literal(name))
}

fn when(condition: &str, statement: &str) -> String {
    format!("select {} where {condition} \\gexec", literal(statement))
}

fn name_of(name: &str) -> String {
    quoted_name(Dialect::Postgres, name)
}

fn renamed(from: &str, to: &str) -> String {
    format!("alter database {} rename to {}", name_of(from), name_of(to))
}

/// Ends the sessions that are in a database, whatever they do. Those that its user may not end are left alone: of a vacuum the renaming does it.
fn disconnected(name: &str) -> String {
    format!(
        "do $runbook$ declare one int; begin for one in select pid from pg_stat_activity where datname = {} and pid <> pg_backend_pid() loop \
         begin perform pg_terminate_backend(one); exception when insufficient_privilege then null; end; end loop; end $runbook$;",
        literal(name)
    )
}

/// A text as SQL.
fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

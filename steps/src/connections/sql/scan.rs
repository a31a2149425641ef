//! Reads SQL as far as is needed to tell its statements apart and what they begin with. Comments, quoted text and bodies in dollar quotes
//! are passed over; nothing here understands SQL.

use super::Dialect;

/// One statement of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement<'a> {
    /// The text, without the semicolon and without comments before it.
    pub text: &'a str,
    /// Its bare words in upper case, in order: keywords and names that are not quoted.
    pub words: Vec<String>,
}

/// Whether a word is the name of a function of PostgreSQL, MySQL or SQLite that does something though it stands in a `select`
/// (PostgreSQL 17, 9.28 and 9.30; MySQL 8.4, 14.14; SQLite, C/C++ interface, `load_extension`).
fn acts(word: &str) -> bool {
    const NAMES: &[&str] = &[
        "PG_TERMINATE_BACKEND",
        "PG_CANCEL_BACKEND",
        "PG_RELOAD_CONF",
        "PG_ROTATE_LOGFILE",
        "PG_SWITCH_WAL",
        "PG_CREATE_RESTORE_POINT",
        "PG_LOG_STANDBY_SNAPSHOT",
        "PG_LOG_BACKEND_MEMORY_CONTEXTS",
        "PG_PROMOTE",
        "PG_WAL_REPLAY_PAUSE",
        "PG_WAL_REPLAY_RESUME",
        "PG_BACKUP_START",
        "PG_BACKUP_STOP",
        "PG_NOTIFY",
        "PG_LOGICAL_EMIT_MESSAGE",
        "PG_IMPORT_SYSTEM_COLLATIONS",
        "PG_SYNC_REPLICATION_SLOTS",
        "PG_ADVISORY_LOCK",
        "PG_ADVISORY_UNLOCK",
        "PG_ADVISORY_UNLOCK_ALL",
        "SET_CONFIG",
        "SETVAL",
        "NEXTVAL",
        "LO_IMPORT",
        "LO_EXPORT",
        "LO_UNLINK",
        "DBLINK_EXEC",
        "DBLINK",
        "GET_LOCK",
        "RELEASE_LOCK",
        "RELEASE_ALL_LOCKS",
        "LOAD_EXTENSION",
    ];
    const FAMILIES: &[&str] = &[
        "PG_STAT_RESET",
        "PG_STAT_STATEMENTS_RESET",
        "PG_REPLICATION_ORIGIN_",
        "PG_CREATE_PHYSICAL_",
        "PG_CREATE_LOGICAL_",
        "PG_DROP_REPLICATION_",
        "PG_REPLICATION_SLOT_ADVANCE",
        "PG_LOGICAL_SLOT_GET_",
        "PG_COPY_PHYSICAL_",
        "PG_COPY_LOGICAL_",
        "PG_FILE_",
    ];
    NAMES.contains(&word) || FAMILIES.iter().any(|family| word.starts_with(family))
}

impl Statement<'_> {
    /// The first word.
    pub fn verb(&self) -> &str {
        self.words.first().map_or("", String::as_str)
    }

    fn has(&self, words: &[&str]) -> bool {
        self.words.iter().any(|word| words.contains(&word.as_str()))
    }

    /// Whether it looks like one that only reads. The database decides: it is run in a transaction that can not write. What functions of the
    /// server do beside its tables no transaction holds back.
    pub fn reads(&self) -> bool {
        if self.words.iter().any(|word| acts(word)) {
            return false;
        }
        const WRITES: &[&str] = &["INSERT", "UPDATE", "DELETE", "MERGE", "REPLACE", "INTO"];
        match self.verb() {
            "VALUES" | "TABLE" | "SHOW" | "DESCRIBE" | "DESC" => true,
            "SELECT" | "WITH" => !self.has(WRITES),
            "EXPLAIN" => !self.has(&["ANALYZE", "ANALYSE"]),
            _ => false,
        }
    }

    /// Whether it can stand in `with q as (…)` of PostgreSQL.
    pub fn fits_in_with(&self) -> bool {
        match self.verb() {
            "SELECT" | "VALUES" | "TABLE" | "INSERT" | "UPDATE" | "DELETE" => true,
            "WITH" => !self.has(&["INSERT", "UPDATE", "DELETE", "MERGE"]),
            _ => false,
        }
    }

    /// Whether it begins or ends a transaction.
    pub fn controls_transaction(&self) -> bool {
        match self.verb() {
            "BEGIN" | "START" | "COMMIT" | "ROLLBACK" | "END" | "ABORT" | "SAVEPOINT" | "RELEASE" | "XA" => {
                true
            }
            "PREPARE" => self.words.get(1).is_some_and(|word| word == "TRANSACTION"),
            _ => false,
        }
    }

    /// Whether MySQL commits by itself before and after it.
    pub fn commits_in_mysql(&self) -> bool {
        const COMMITS: &[&str] = &[
            "CREATE",
            "ALTER",
            "DROP",
            "TRUNCATE",
            "RENAME",
            "GRANT",
            "REVOKE",
            "LOCK",
            "UNLOCK",
            "ANALYZE",
            "OPTIMIZE",
            "REPAIR",
            "INSTALL",
            "UNINSTALL",
            "FLUSH",
            "RESET",
        ];
        COMMITS.contains(&self.verb())
    }
}

/// Whether a text is one statement that only reads, whichever database it is for.
pub fn only_reads(sql: &str) -> bool {
    [Dialect::Postgres, Dialect::MySql, Dialect::Sqlite].into_iter().all(|dialect| {
        let found = statements(sql, dialect);
        found.len() == 1 && found.iter().all(Statement::reads)
    })
}

/// The place of a parameter in a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Where it begins, in bytes.
    pub start: usize,
    /// Where it ends.
    pub end: usize,
    /// Its number, where it has one.
    pub number: Option<usize>,
}

/// The places of the parameters of a text, in order: `$1` in PostgreSQL, and `?` or `?1` in the others.
pub fn places(sql: &str, dialect: Dialect) -> Vec<Place> {
    let mut scan = Scan { sql, bytes: sql.as_bytes(), dialect, at: 0 };
    let sign = if dialect == Dialect::Postgres { b'$' } else { b'?' };
    let mut found = Vec::new();
    while scan.at < scan.bytes.len() {
        let start = scan.at;
        let is_place = scan.peek(0) == sign;
        scan.next();
        if !is_place || scan.at != start + 1 {
            continue;
        }
        let digits = sql[scan.at..].bytes().take_while(u8::is_ascii_digit).count();
        scan.at += digits;
        let number = sql[start + 1..scan.at].parse().ok();
        if number.is_some() || sign == b'?' {
            found.push(Place { start, end: scan.at, number });
        }
    }
    found
}

/// The statements of a text, in order. One whose body holds statements of its own (a trigger, a procedure) is one.
pub fn statements(sql: &str, dialect: Dialect) -> Vec<Statement<'_>> {
    let mut scan = Scan { sql, bytes: sql.as_bytes(), dialect, at: 0 };
    let (mut found, mut start, mut words) = (Vec::new(), None, Vec::new());
    let mut body = Body::default();
    while scan.at < scan.bytes.len() {
        let before = scan.at;
        match scan.next() {
            Token::Space => continue,
            Token::End if !body.is_open() => {
                if let Some(start) = start.take() {
                    let text = sql[start..before].trim_end();
                    found.push(Statement { text, words: std::mem::take(&mut words) });
                }
                body = Body::default();
                continue;
            }
            Token::Word(word) => {
                body.see(&word, &words, dialect);
                words.push(word);
            }
            Token::End | Token::Other => {}
        }
        start.get_or_insert(before);
    }
    if let Some(start) = start {
        found.push(Statement { text: without_comment(sql, start, dialect), words });
    }
    found
}

/// The rest of a text from a place, without comments at its end.
fn without_comment(sql: &str, start: usize, dialect: Dialect) -> &str {
    let mut scan = Scan { sql, bytes: sql.as_bytes(), dialect, at: start };
    let mut end = start;
    while scan.at < scan.bytes.len() {
        if scan.next() != Token::Space {
            end = scan.at;
        }
    }
    &sql[start..end]
}

/// Whether a statement is inside a body of statements: from `BEGIN` to its `END` in something that is created.
#[derive(Default)]
struct Body {
    depth: u32,
}

impl Body {
    fn is_open(&self) -> bool {
        self.depth > 0
    }

    fn see(&mut self, word: &str, before: &[String], dialect: Dialect) {
        const HAS_BODY: &[&str] = &["TRIGGER", "PROCEDURE", "FUNCTION", "EVENT"];
        // What has such a word for a name further on, such as a column, has no body.
        const HAS_NONE: &[&str] = &["TABLE", "VIEW", "INDEX", "TYPE", "DOMAIN", "SEQUENCE", "SCHEMA"];
        let kind = before.iter().find(|word| [HAS_BODY, HAS_NONE].iter().any(|all| all.contains(&&***word)));
        let creates = before.first().is_some_and(|verb| verb == "CREATE")
            && kind.is_some_and(|kind| HAS_BODY.contains(&&**kind));
        let after = |word: &str| before.last().is_some_and(|last| last == word);
        let after_end = after("END");
        match word {
            // Every other body of PostgreSQL is in quotes.
            "BEGIN" if dialect == Dialect::Postgres => {}
            "ATOMIC" if dialect == Dialect::Postgres && creates && after("BEGIN") => self.depth += 1,
            "BEGIN" if creates => self.depth += 1,
            "CASE" if self.is_open() && !after_end => self.depth += 1,
            // `END IF` closes what was not counted.
            "IF" | "LOOP" | "REPEAT" | "WHILE" if creates && after_end => self.depth += 1,
            "END" => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Token {
    Space,
    End,
    Word(String),
    Other,
}

struct Scan<'a> {
    sql: &'a str,
    bytes: &'a [u8],
    dialect: Dialect,
    at: usize,
}

impl Scan<'_> {
    fn peek(&self, ahead: usize) -> u8 {
        self.bytes.get(self.at + ahead).copied().unwrap_or(0)
    }

    fn next(&mut self) -> Token {
        let mysql = self.dialect == Dialect::MySql;
        match (self.peek(0), self.peek(1)) {
            (b';', _) => self.step(1, Token::End),
            (byte, _) if byte.is_ascii_whitespace() => self.step(1, Token::Space),
            (b'-', b'-') if !mysql || self.peek(2) <= b' ' => self.line(),
            (b'#', _) if mysql => self.line(),
            // What stands in such a comment is executed.
            (b'/', b'*') if mysql && matches!(self.peek(2), b'!' | b'M') => self.step(3, Token::Other),
            (b'/', b'*') => self.comment(),
            (b'\'', _) => self.quoted(b'\'', mysql),
            (b'e' | b'E', b'\'') if self.dialect == Dialect::Postgres => {
                self.at += 1;
                self.quoted(b'\'', true)
            }
            (b'"', _) => self.quoted(b'"', mysql),
            (b'`', _) => self.quoted(b'`', false),
            (b'[', _) if self.dialect == Dialect::Sqlite => self.quoted(b']', false),
            (b'$', _) if self.dialect == Dialect::Postgres => self.dollar(),
            (byte, _) if byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80 => self.word(),
            (byte, _) if byte.is_ascii_digit() => {
                // A number, and a name that is no word of its own: `1e5`, `0xff`.
                self.word();
                Token::Other
            }
            _ => self.step(1, Token::Other),
        }
    }

    fn step(&mut self, by: usize, token: Token) -> Token {
        self.at = (self.at + by).min(self.bytes.len());
        token
    }

    fn line(&mut self) -> Token {
        let rest = &self.bytes[self.at..];
        let ends = |byte: &u8| *byte == b'\n' || (*byte == b'\r' && self.dialect == Dialect::Postgres);
        let end = rest.iter().position(ends).unwrap_or(rest.len());
        self.step(end, Token::Space)
    }

    fn comment(&mut self) -> Token {
        let mut depth = 0;
        while self.at < self.bytes.len() {
            match (self.peek(0), self.peek(1)) {
                (b'/', b'*') if depth == 0 || self.dialect == Dialect::Postgres => {
                    depth += 1;
                    self.at += 2;
                }
                (b'*', b'/') => {
                    depth -= 1;
                    self.at += 2;
                    if depth == 0 {
                        break;
                    }
                }
                _ => self.at += 1,
            }
        }
        self.step(0, Token::Space)
    }

    fn quoted(&mut self, close: u8, escapes: bool) -> Token {
        self.at += 1;
        while self.at < self.bytes.len() {
            match self.peek(0) {
                b'\\' if escapes => self.at += 2,
                byte if byte == close && self.peek(1) == close => self.at += 2,
                byte if byte == close => return self.step(1, Token::Other),
                _ => self.at += 1,
            }
        }
        self.step(0, Token::Other)
    }

    /// `$1` is a parameter, `$$` and `$tag$` open a text.
    fn dollar(&mut self) -> Token {
        let rest = &self.sql[self.at + 1..];
        let tag = rest.split('$').next().unwrap_or("");
        let is_tag = rest.len() > tag.len()
            && !tag.starts_with(|first: char| first.is_ascii_digit())
            && tag.chars().all(|c| c.is_alphanumeric() || c == '_');
        if !is_tag {
            return self.step(1, Token::Other);
        }
        let mark = format!("${tag}$");
        let after = self.at + mark.len();
        let end = self.sql[after..].find(&mark).map_or(self.sql.len(), |found| after + found + mark.len());
        self.at = end;
        Token::Other
    }

    fn word(&mut self) -> Token {
        let start = self.at;
        while self.at < self.bytes.len() {
            let byte = self.bytes[self.at];
            if !(byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'$' || byte >= 0x80) {
                break;
            }
            self.at += 1;
        }
        Token::Word(self.sql[start..self.at].to_uppercase())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(sql: &str, dialect: Dialect) -> Vec<String> {
        statements(sql, dialect).iter().map(|one| one.text.to_owned()).collect()
    }

    #[test]
    fn statements_end_at_semicolons_that_are_not_quoted() {
        let sql = "-- a; b\nselect ';' as \"x;\", $1, $$;$$, $a$ ; $a$ /* ; /* ; */ */ ;;\n insert into t values (E'\\';') -- end;";
        assert_eq!(
            texts(sql, Dialect::Postgres),
            ["select ';' as \"x;\", $1, $$;$$, $a$ ; $a$ /* ; /* ; */ */", "insert into t values (E'\\';')"]
        );
        assert_eq!(
            texts("select 'a\\';' # ;\n; select `;`", Dialect::MySql),
            ["select 'a\\';' # ;", "select `;`"]
        );
        assert_eq!(texts("select [;] ; /* ; ", Dialect::Sqlite), ["select [;]"]);
        assert!(texts(" ; -- nothing\n", Dialect::Postgres).is_empty());
        assert_eq!(texts("select 'open ;", Dialect::Postgres), ["select 'open ;"]);
    }

    #[test]
    fn a_column_opens_no_body_and_a_comment_ends_with_its_line() {
        let table = "create table calendar (event text, begin int, \"end\" int)";
        for dialect in [Dialect::Postgres, Dialect::Sqlite, Dialect::MySql] {
            assert_eq!(texts(&format!("{table}; commit;"), dialect), [table, "commit"], "{dialect:?}");
        }
        let function = "create function f() returns int language sql begin atomic select 1; select 2; end";
        assert_eq!(texts(&format!("{function}; commit"), Dialect::Postgres), [function, "commit"]);
        assert_eq!(texts("select 1;\n-- the end\rcommit;", Dialect::Postgres), ["select 1", "commit"]);
    }

    #[test]
    fn parameters_stand_outside_of_quotes_and_comments() {
        let texts = |sql: &'static str, dialect| {
            places(sql, dialect).iter().map(|place| &sql[place.start..place.end]).collect::<Vec<_>>()
        };
        let sql = "select '$1', \"$2\", $tag$ $3 $tag$, a$4, -- $5\n $6 /* $7 */ + $12";
        assert_eq!(texts(sql, Dialect::Postgres), ["$6", "$12"]);
        assert_eq!(texts("select '?', `?`, ? # ?\n, ?", Dialect::MySql), ["?", "?"]);
        assert_eq!(texts("select [?], ?, ?2", Dialect::Sqlite), ["?", "?2"]);
    }

    #[test]
    fn a_body_of_statements_is_one() {
        let trigger = "create trigger t after insert on a begin update a set b = case when 1 then 2 end; delete from c; end; select 1";
        assert_eq!(statements(trigger, Dialect::Sqlite).len(), 2);
        let procedure = "create procedure p() begin if a then select 1; end if; end; select 2; begin; commit";
        assert_eq!(statements(procedure, Dialect::MySql).len(), 4);
        assert_eq!(statements("begin; select 1; end; select 2", Dialect::Sqlite).len(), 4);
    }

    #[test]
    fn what_reads_and_what_does_not() {
        let reads = |sql: &str| statements(sql, Dialect::Postgres)[0].reads();
        for sql in [
            "select 1",
            "/* x */ with a as (select 1) select * from a",
            "values (1)",
            "explain select 1",
            "select 'delete'",
        ] {
            assert!(reads(sql), "{sql}");
        }
        for sql in [
            "delete from t",
            "with a as (delete from t returning *) select * from a",
            "select * into b from a",
            "select * from a for update",
            "explain analyze delete from t",
            "call p()",
            "do $$ begin end $$",
            "pragma user_version = 1",
        ] {
            assert!(!reads(sql), "{sql}");
        }
    }
}

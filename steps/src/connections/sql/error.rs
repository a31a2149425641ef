//! What a failure of a database means for a step.

use runbook_engine::error::{ErrorKind, Outcome, StepError};
use sqlx::error::DatabaseError;
use sqlx::mysql::MySqlDatabaseError;
use sqlx::postgres::PgDatabaseError;

/// A failure of a database, with what decides how to go on.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    /// The failure as a step reports it.
    pub error: Box<StepError>,
    /// Whether the connection was lost, so that what was asked last may have been done.
    pub lost: bool,
    /// Whether a constraint of the data stands against it.
    pub constraint: bool,
}

impl Failure {
    pub(super) fn closed() -> Self {
        let error = StepError::new(ErrorKind::Bug, "a connection was used after its end");
        Self { error: Box::new(error), lost: true, constraint: false }
    }

    /// The failure of something that is no database error.
    pub fn plain(error: StepError) -> Self {
        Self { error: Box::new(error), lost: false, constraint: false }
    }

    pub(super) fn at_commit(mut self) -> Self {
        if self.lost {
            self.error.outcome = Outcome::Unknown;
        }
        self.during("committing")
    }

    /// The same, saying what was being done.
    #[must_use]
    pub fn during(mut self, what: &str) -> Self {
        self.error.message = format!("{what}: {}", self.error.message);
        self
    }
}

impl From<Failure> for StepError {
    fn from(failure: Failure) -> Self {
        *failure.error
    }
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::Database(database) => of_database(&**database),
            // It is only looked at when a connection is made, and will be the same the next time.
            sqlx::Error::Io(io) if io.to_string().contains("certificate") => Self::plain(
                StepError::refused(format!("the database is not known by its certificate: {io}")).with_help(
                    "look at `ssl_root_cert` of the connection, and at the name in the server's certificate",
                ),
            ),
            sqlx::Error::Io(io) => lost(format!("the connection to the database failed: {io}")),
            sqlx::Error::WorkerCrashed | sqlx::Error::PoolClosed | sqlx::Error::BeginFailed => {
                lost(error.to_string())
            }
            sqlx::Error::Protocol(message) => lost(format!("the database was not understood: {message}")),
            sqlx::Error::PoolTimedOut => Self::plain(
                StepError::transient("no connection to the database within `connect_timeout`").with_help(
                    "check that it runs and takes connections from here, or raise `max_connections`",
                ),
            ),
            _ => Self::plain(StepError::refused(error.to_string())),
        }
    }
}

fn lost(message: String) -> Failure {
    Failure { error: Box::new(StepError::transient(message)), lost: true, constraint: false }
}

/// Whether this is the error of PostgreSQL for a lock that was not had in time.
pub(crate) fn waited_for_a_lock(error: &StepError) -> bool {
    error.message.ends_with(&coded("", "55P03"))
}

/// Whether this is the error of PostgreSQL for a value that can not be, such as the number of a transaction that it has not given yet.
pub(super) fn can_not_be(error: &StepError) -> bool {
    error.message.ends_with(&coded("", "22023"))
}

/// What a database says, with its code.
fn coded(message: &str, code: &str) -> String {
    format!("{message} ({code})")
}

fn of_database(error: &(dyn DatabaseError + 'static)) -> Failure {
    let code = error.code().unwrap_or_default().into_owned();
    let (means, mut details) =
        match (error.try_downcast_ref::<PgDatabaseError>(), error.try_downcast_ref::<MySqlDatabaseError>()) {
            (Some(error), _) => {
                let details = error.detail().into_iter().chain(error.hint()).map(str::to_owned).collect();
                (of_postgres(&code), details)
            }
            (_, Some(error)) => (of_mysql(error.number()), Vec::new()),
            _ => (of_sqlite(&code), Vec::new()),
        };
    let kind = if means == Means::Refused { ErrorKind::Refused } else { ErrorKind::Transient };
    let mut step = StepError::new(kind, coded(error.message(), &code));
    step.causes.append(&mut details);
    if code == "25006" {
        step = step.with_help("it was run as one that only reads; say what it does in `effect`");
    }
    // Something has to be put in order first: a transaction that was cut off, or the index of a log.
    if matches!(code.as_str(), "264" | "520" | "776" | "1288") {
        step = step.with_help(
            "a process that used the database was killed, and a plan does not put it in order: open it once to write, and plan again",
        );
    }
    let lost = means == Means::Lost;
    Failure { error: Box::new(step), lost, constraint: means == Means::Refused && constrains(error, &code) }
}

/// What a code of a database means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Means {
    /// It will say the same again.
    Refused,
    /// It may do it in a moment.
    Later,
    /// It does not answer on this connection any more.
    Lost,
}

fn of_postgres(code: &str) -> Means {
    match code {
        // Shut down by an administrator, crashed, or not up yet; the session was ended while idle in a transaction.
        "57P01" | "57P02" | "57P03" | "57P05" | "25P03" => Means::Lost,
        // Serialization, deadlock, lock not available, cancelled by a time-out, too many connections, out of memory.
        "40001" | "40P01" | "55P03" | "57014" | "53300" | "53200" => Means::Later,
        _ if code.starts_with("08") => Means::Lost,
        _ => Means::Refused,
    }
}

fn of_mysql(number: u16) -> Means {
    match number {
        // Shutting down, or the connection was killed or cut off.
        1053 | 1152 | 1158..=1161 | 1184 | 1927 | 3169 | 4031 => Means::Lost,
        // Too many connections, lock wait, deadlock, interrupted, a time limit.
        1040 | 1203 | 1205 | 1213 | 1226 | 1317 | 1614 | 1969 | 3024 | 3572 => Means::Later,
        _ => Means::Refused,
    }
}

fn of_sqlite(code: &str) -> Means {
    // Extended codes hold the primary one in the low byte: 5 is busy, 6 is locked.
    match code.parse::<u32>().map(|code| code & 0xff) {
        Ok(5 | 6) => Means::Later,
        _ => Means::Refused,
    }
}

fn constrains(error: &(dyn DatabaseError + 'static), code: &str) -> bool {
    // Class 23 of SQLSTATE, or what the driver knows; P0001 is what a trigger of PostgreSQL raises, 45000 one of MySQL.
    code.starts_with("23")
        || matches!(code, "P0001" | "45000")
        || !matches!(error.kind(), sqlx::error::ErrorKind::Other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_say_whether_to_try_again() {
        assert_eq!(of_postgres("40001"), Means::Later);
        assert_eq!(of_postgres("57P01"), Means::Lost);
        assert_eq!(of_postgres("08006"), Means::Lost);
        assert_eq!(of_postgres("42501"), Means::Refused);
        assert_eq!(
            (of_mysql(1213), of_mysql(1927), of_mysql(1064)),
            (Means::Later, Means::Lost, Means::Refused)
        );
        assert_eq!((of_sqlite("517"), of_sqlite("1555")), (Means::Later, Means::Refused));
    }

    #[test]
    fn a_lost_commit_has_an_unknown_outcome() {
        let io = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
        let failure = Failure::from(sqlx::Error::Io(io)).at_commit();
        assert_eq!(failure.error.outcome, Outcome::Unknown);
        let failure = Failure::plain(StepError::refused("deferred constraint")).at_commit();
        assert_eq!(failure.error.outcome, Outcome::Failed);
    }
}

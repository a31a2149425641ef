//! What a failure of a Redis server means for a step.

use redis::{ErrorKind, RedisError, ServerErrorKind};
use runbook_engine::error::StepError;

/// Why a command failed: `what` was tried, as a lower-case fragment. What is only known not to have been answered has an unknown outcome.
pub fn failed(what: &str, error: &RedisError) -> StepError {
    let failure = meaning(what, error);
    if is_lost(error) { failure.unknown() } else { failure }
}

/// Why no connection could be made: nothing was sent on it.
pub(super) fn unreachable(what: &str, error: &RedisError) -> StepError {
    meaning(what, error)
}

/// Whether no answer came, so that what was sent may have been done, and the connection is of no more use.
pub(super) fn is_lost(error: &RedisError) -> bool {
    matches!(error.kind(), ErrorKind::Io | ErrorKind::Parse)
}

/// Whether the server refused to write over a key that is there.
pub fn is_taken(error: &RedisError) -> bool {
    error.code() == Some("BUSYKEY")
}

/// Whether the user of the connection may not do it.
pub(super) fn is_forbidden(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::NoPerm)
}

fn meaning(what: &str, error: &RedisError) -> StepError {
    let told = match (error.code(), error.detail()) {
        (Some(code), Some(detail)) => format!("{code} {detail}"),
        _ => error.to_string(),
    };
    let message = format!("{what}: {told}");
    let credentials = "look at `user` and `password` of the connection, then resume";
    match error.kind() {
        ErrorKind::Io if told.contains("certificate") => StepError::refused(message).with_help(
            "look at `tls_root_cert` of the connection, and at the name in the server's certificate",
        ),
        ErrorKind::Io => StepError::transient(message),
        ErrorKind::AuthenticationFailed => StepError::refused(message).with_help(credentials),
        ErrorKind::InvalidClientConfig => StepError::invalid(message),
        ErrorKind::Server(kind) => of_server(kind, message),
        ErrorKind::Extension => match error.code().unwrap_or_default() {
            "NOAUTH" | "WRONGPASS" => StepError::refused(message).with_help(credentials),
            // A script of somebody runs; there is no memory left at the moment.
            "BUSY" | "OOM" => StepError::transient(message),
            _ => StepError::refused(message),
        },
        _ => StepError::refused(message),
    }
}

fn of_server(kind: ServerErrorKind, message: String) -> StepError {
    match kind {
        ServerErrorKind::BusyLoading
        | ServerErrorKind::TryAgain
        | ServerErrorKind::ClusterDown
        | ServerErrorKind::MasterDown => StepError::transient(message),
        ServerErrorKind::ReadOnly => StepError::refused(message)
            .with_help("the server is a replica: name the one that takes writes, then resume"),
        ServerErrorKind::NoPerm => StepError::refused(message)
            .with_help("let the user of the connection do this (`ACL SETUSER`), then resume"),
        _ if message.contains("max number of clients") => StepError::transient(message),
        _ => StepError::refused(message),
    }
}

#[cfg(test)]
mod tests {
    use runbook_engine::error::{ErrorKind as Kind, Outcome};

    use super::*;

    fn of(text: &str) -> StepError {
        let bytes = format!("-{text}\r\n");
        let error =
            redis::parse_redis_value(bytes.as_bytes()).and_then(redis::Value::extract_error).unwrap_err();
        failed("deleting", &error)
    }

    #[test]
    fn what_a_server_says_tells_whether_to_try_again() {
        for (text, kind) in [
            ("LOADING Redis is loading the dataset in memory", Kind::Transient),
            ("BUSY Redis is busy running a script", Kind::Transient),
            ("OOM command not allowed when used memory > 'maxmemory'.", Kind::Transient),
            ("ERR max number of clients reached", Kind::Transient),
            ("READONLY You can't write against a read only replica.", Kind::Refused),
            ("NOPERM this user has no permissions to run the 'flushdb' command", Kind::Refused),
            ("NOAUTH Authentication required.", Kind::Refused),
            ("ERR unknown command 'X'", Kind::Refused),
        ] {
            let error = of(text);
            assert_eq!((error.kind, error.outcome), (kind, Outcome::Failed), "{text}");
            assert_eq!(error.message, format!("deleting: {text}"));
        }
        assert!(of("NOPERM x").help.is_some_and(|help| help.contains("ACL")));
    }

    #[test]
    fn what_was_not_answered_may_have_been_done() {
        let error = RedisError::from(std::io::Error::from(std::io::ErrorKind::ConnectionReset));
        let told = failed("flushing", &error);
        assert_eq!((told.kind, told.outcome), (Kind::Transient, Outcome::Unknown));
        assert_eq!(unreachable("connecting", &error).outcome, Outcome::Failed);
    }
}

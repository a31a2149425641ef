//! What the query of an address of PostgreSQL says. Whatever is left out of it unseen would lead to another place than the author means.

use std::borrow::Cow;

use runbook_engine::error::StepError;
use url::Url;

/// What the client library understands: <https://docs.rs/sqlx/0.8/sqlx/postgres/struct.PgConnectOptions.html>, with the names of libpq.
const UNDERSTOOD: [&str; 16] = [
    "sslmode",
    "ssl-mode",
    "sslrootcert",
    "ssl-root-cert",
    "ssl-ca",
    "sslcert",
    "ssl-cert",
    "sslkey",
    "ssl-key",
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "password",
    "application_name",
];

/// What other clients write there about how they keep their connections: it leads to no other place.
const OF_OTHERS: [&str; 12] = [
    "statement-cache-capacity",
    "connect_timeout",
    "connection_limit",
    "pool_timeout",
    "socket_timeout",
    "max_idle_connection_lifetime",
    "statement_cache_size",
    "pgbouncer",
    "sslaccept",
    "channel_binding",
    "target_session_attrs",
    "gssencmode",
];

/// Refuses a query with a part that is not understood. Names stand in the message, values do not: one may be a password.
pub(super) fn check(url: &Url) -> Result<(), StepError> {
    for (name, value) in url.query_pairs() {
        let name = &*name;
        // The name by which Prisma says in which schema its tables are, and that of the driver of Java.
        if matches!(name, "schema" | "currentSchema") {
            if value == "public" {
                continue;
            }
            let message = format!("`url` asks for the schema `{value}`: names are looked up in `public`");
            return Err(StepError::invalid(message).with_help(
                "write `options=-csearch_path%3D…` in its place, or name tables with their schema",
            ));
        }
        let options = name == "options" || (name.starts_with("options[") && name.ends_with(']'));
        if !options && !UNDERSTOOD.contains(&name) && !OF_OTHERS.contains(&name) {
            let message = format!("the parameter `{name}` of `url` is not understood: leave it out");
            return Err(StepError::invalid(message));
        }
    }
    Ok(())
}

/// What the query says under one of these names; the last one counts, as it does for the client library.
pub(super) fn said<'u>(url: &'u Url, names: &[&str]) -> Option<Cow<'u, str>> {
    let of_it = |(name, value)| names.contains(&&*Cow::<str>::clone(&name)).then_some(value);
    url.query_pairs().filter_map(of_it).last()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_that_is_not_understood_is_refused_without_its_value() {
        for (query, refused) in [
            ("", None),
            ("sslmode=require&port=5433&options[search_path]=hub", None),
            ("schema=public&connection_limit=5&pgbouncer=true", None),
            ("schema=hub", Some("schema `hub`")),
            ("search_path=hub", Some("`search_path`")),
            ("passwrd=secret", Some("`passwrd`")),
        ] {
            let url = Url::parse(&format!("postgres://h/d?{query}")).unwrap();
            match (check(&url), refused) {
                (Ok(()), None) => {}
                (Err(error), Some(part)) => {
                    assert!(error.message.contains(part) && !error.message.contains("secret"), "{error}");
                }
                (end, _) => panic!("{query}: {end:?}"),
            }
        }
    }

    #[test]
    fn the_last_of_a_name_counts() {
        let url = Url::parse("postgres://h/d?port=1&port=2&ssl-ca=%2Fca").unwrap();
        assert_eq!(said(&url, &["port"]).as_deref(), Some("2"));
        assert_eq!(said(&url, &["sslrootcert", "ssl-ca"]).as_deref(), Some("/ca"));
        assert_eq!(said(&url, &["user"]), None);
    }
}

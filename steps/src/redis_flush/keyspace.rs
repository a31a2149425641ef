//! How many keys the databases of a server hold.

use std::collections::BTreeMap;

use redis::cmd;
use runbook_engine::error::StepError;

use super::Scope;
use crate::connections::redis::{Redis, failed};

/// How many keys there are, by the number of the database.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Keyspace(pub(super) BTreeMap<i64, u64>);

impl Keyspace {
    pub(crate) async fn count(redis: &Redis, scope: Scope) -> Result<Self, StepError> {
        let what = "counting keys";
        let unread = |error: redis::ParsingError| failed(what, &error.into());
        match scope {
            Scope::Database => {
                let keys = redis::from_redis_value(redis.ask(what, &cmd("DBSIZE")).await?).map_err(unread)?;
                Ok(Self(BTreeMap::from([(redis.database(), keys)])).without_empty())
            }
            Scope::All => {
                let answer = redis.ask(what, cmd("INFO").arg("keyspace")).await?;
                let text: String = redis::from_redis_value(answer).map_err(unread)?;
                Ok(Self::parse(&text))
            }
        }
    }

    /// Lines such as `db0:keys=12,expires=3,avg_ttl=0`.
    fn parse(text: &str) -> Self {
        let database = |line: &str| {
            let (number, counts) = line.trim().strip_prefix("db")?.split_once(':')?;
            let keys = counts.split(',').find_map(|count| count.strip_prefix("keys="))?;
            Some((number.parse().ok()?, keys.parse().ok()?))
        };
        Self(text.lines().filter_map(database).collect()).without_empty()
    }

    fn without_empty(mut self) -> Self {
        self.0.retain(|_, keys| *keys > 0);
        self
    }

    /// The same without one key of this database, which is ours.
    pub(super) fn less_one(mut self, database: i64) -> Self {
        if let Some(keys) = self.0.get_mut(&database) {
            *keys = keys.saturating_sub(1);
        }
        self.without_empty()
    }

    pub(crate) fn sum(&self) -> u64 {
        self.0.values().sum()
    }

    pub(crate) fn named(&self) -> BTreeMap<String, u64> {
        self.0.iter().map(|(number, keys)| (number.to_string(), *keys)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn databases_are_counted_by_what_the_server_says() {
        let text = "# Keyspace\r\ndb0:keys=12,expires=3,avg_ttl=0\r\ndb11:keys=1,expires=0,avg_ttl=0,subexpiry=0\r\n";
        let keyspace = Keyspace::parse(text);
        assert_eq!((keyspace.sum(), &keyspace.0), (13, &BTreeMap::from([(0, 12), (11, 1)])));
        assert_eq!(keyspace.less_one(11).named(), BTreeMap::from([("0".to_owned(), 12)]));
        assert_eq!(Keyspace::parse("# Keyspace\r\n").sum(), 0);
    }
}

//! Connection kind `redis`: a database of a Redis server, or of one that speaks its protocol.

mod failure;

use std::fmt;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, Cmd, ConnectionAddr, ConnectionInfo,
    IntoConnectionInfo as _, Pipeline, RedisError, RedisResult, TlsCertificates, Value,
};
use runbook_engine::duration::Duration;
use runbook_engine::error::StepError;
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::sync::Mutex;

use super::http::default_timeout;
use super::sql::server::{Parts, default_connect_timeout, described};
use crate::kind::{ConnectionKind, OpenContext, SystemIs};

pub use failure::{failed, is_taken};
use failure::{is_forbidden, is_lost, unreachable};

/// One database of a Redis server, 7.0 or later, or of Valkey. Where it is stands in `url`, in the single settings, or in both: a single
/// setting overrides its part of the URL. Nothing is reached before a step needs it. A node of a cluster is refused: it holds some of the keys only.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RedisConnection {
    /// `redis://USER:PASSWORD@HOST:PORT/DATABASE`, or `rediss://` for an encrypted connection. May hold a secret.
    #[serde(default)]
    pub url: Option<String>,
    /// The server's name or address, or the path of its socket.
    #[serde(default)]
    pub host: Option<String>,
    /// The server's port. Default 6379.
    #[serde(default)]
    pub port: Option<u16>,
    /// The number of the database. Default 0.
    #[serde(default)]
    pub database: Option<u32>,
    /// Who asks. Default: the server's user `default`.
    #[serde(default)]
    pub user: Option<String>,
    /// Their password. May hold a secret.
    #[serde(default)]
    pub password: Option<String>,
    /// Whether the connection is encrypted. Default: as the URL says, and not otherwise.
    #[serde(default)]
    pub tls: Option<bool>,
    /// A file with the certificates of the authorities that are trusted, PEM. Default: those of this machine.
    #[serde(default)]
    pub tls_root_cert: Option<PathBuf>,
    /// A file with the client's certificate, PEM.
    #[serde(default)]
    pub tls_cert: Option<PathBuf>,
    /// A file with the client's key, PEM.
    #[serde(default)]
    pub tls_key: Option<PathBuf>,
    /// How long a connection is waited for. Default `10s`.
    #[serde(default = "default_connect_timeout")]
    pub connect_timeout: Duration,
    /// How long one answer may take. Default `30s`.
    #[serde(default = "default_timeout")]
    pub timeout: Duration,
    /// By what a reviewed plan knows the server again. Default `server`.
    #[serde(default)]
    pub identity: Identity,
}

/// By what a reviewed plan knows a server again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Identity {
    /// By the id that the server gives itself when it starts, its address and the database: one that was restarted is another one.
    #[default]
    Server,
    /// By its address and the database only: for a server that the runbook itself restarts.
    Address,
}

#[async_trait]
impl ConnectionKind for RedisConnection {
    const NAME: &'static str = "redis";
    const SUMMARY: &'static str = "A database of a Redis server, or of one that speaks its protocol";
    const SECRET_FIELDS: &'static [&'static str] = &["/url", "/password"];
    type Client = Redis;

    fn open(self, _: &OpenContext<'_>) -> Result<Redis, StepError> {
        let info = self.info()?;
        let database = info.redis_settings().db();
        let name = database.to_string();
        let (place, encrypted) = match info.addr() {
            ConnectionAddr::Tcp(host, port) => (described("redis", host, *port, Some(&name)), false),
            ConnectionAddr::TcpTls { host, port, .. } => {
                (described("rediss", host, *port, Some(&name)), true)
            }
            ConnectionAddr::Unix(path) => (format!("redis at {}, database {name}", path.display()), false),
            _ => return Err(StepError::invalid("the address of the server is of an unknown kind")),
        };
        let files = [&self.tls_root_cert, &self.tls_cert, &self.tls_key];
        if !encrypted && files.iter().any(|file| file.is_some()) {
            return Err(StepError::invalid(
                "the files of an encrypted connection are given, and it is not encrypted",
            )
            .with_help("write `rediss://` in `url`, or `tls: true`"));
        }
        if self.tls_cert.is_some() != self.tls_key.is_some() {
            return Err(StepError::invalid("`tls_cert` and `tls_key` belong together: give both or none"));
        }
        Ok(Redis { settings: self, info, encrypted, place, database, live: Mutex::new(None) })
    }

    fn place(client: &Redis) -> String {
        format!("Redis at {}", client.place)
    }

    async fn identity(client: &Redis) -> Result<SystemIs, StepError> {
        Ok(SystemIs::There(match client.settings.identity {
            Identity::Address => format!("Redis at {}", client.place),
            Identity::Server => match client.run_id().await? {
                Some(id) => format!("Redis server {id} at {}", client.place),
                // Not everybody may ask for it.
                None => format!("Redis at {}", client.place),
            },
        }))
    }
}

impl RedisConnection {
    fn info(&self) -> Result<ConnectionInfo, StepError> {
        let socket = self.host.as_deref().filter(|host| host.starts_with('/'));
        let parts = Parts {
            url: self.url.clone(),
            host: if socket.is_some() { Some("localhost".to_owned()) } else { self.host.clone() },
            port: self.port,
            database: self.database.map(|number| number.to_string()),
            user: self.user.clone(),
            password: self.password.clone(),
        };
        let mut url = parts.url(&["redis", "rediss"])?;
        // Some clients take the number of the database from there.
        if let Some((name, _)) = url.query_pairs().find(|(name, _)| name != "protocol") {
            let message = format!("the parameter `{name}` of `url` is not understood: leave it out");
            return Err(StepError::invalid(message).with_help(
                "the number of the database is the path of the address, `redis://HOST:PORT/3`, or `database`",
            ));
        }
        // No answer may come unasked, and `protocol` would allow it; a fragment would switch off the look at the certificate.
        url.set_query(None);
        if url.fragment().is_some() {
            return Err(StepError::invalid("`url` ends with a fragment (`#…`), which means nothing here"));
        }
        let info =
            url.into_connection_info().map_err(|error| unreachable("the address is unusable", &error))?;
        if info.redis_settings().db() < 0 {
            return Err(StepError::invalid("the number of the database is negative"));
        }
        let address = match (socket, self.tls, info.addr()) {
            (Some(path), None | Some(false), _) => ConnectionAddr::Unix(PathBuf::from(path)),
            (Some(_), Some(true), _) => {
                return Err(StepError::invalid("a socket of this machine is not encrypted: leave out `tls`"));
            }
            (None, Some(true), ConnectionAddr::Tcp(host, port)) => {
                ConnectionAddr::TcpTls { host: host.clone(), port: *port, insecure: false, tls_params: None }
            }
            (None, Some(false), ConnectionAddr::TcpTls { .. }) => {
                return Err(StepError::invalid("`url` begins with `rediss://`, and `tls` is false"));
            }
            _ => return Ok(info),
        };
        Ok(info.set_addr(address))
    }
}

/// What a server says of itself.
#[derive(Clone, Debug, Default)]
struct Facts {
    /// The id that it gave itself when it started; none when the user may not ask.
    run_id: Option<String>,
    /// Whether it is a node of a cluster.
    cluster: bool,
}

/// The client of a connection. Nothing is sent twice by it: a connection that was lost is made anew for the next command, and whoever sent the
/// last one is told that nobody knows what became of it.
pub struct Redis {
    settings: RedisConnection,
    info: ConnectionInfo,
    encrypted: bool,
    place: String,
    database: i64,
    live: Mutex<Option<MultiplexedConnection>>,
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The settings hold secrets.
        f.debug_struct("Redis").field("place", &self.place).finish_non_exhaustive()
    }
}

impl Redis {
    /// The database in words, with its server, for people and for evidence.
    pub fn describe(&self) -> &str {
        &self.place
    }

    /// The number of the database.
    pub fn database(&self) -> i64 {
        self.database
    }

    /// What the server calls itself since it was started; none when the user may not ask.
    pub async fn run_id(&self) -> Result<Option<String>, StepError> {
        Ok(self.facts().await?.run_id)
    }

    /// Sends a command, once; the server's answer. `what` it is, as a lower-case fragment.
    pub async fn ask(&self, what: &str, command: &Cmd) -> Result<Value, StepError> {
        let mut connection = self.connection().await?;
        let answer = connection.send_packed_command(command).await.and_then(Value::extract_error);
        self.judged(what, answer).await
    }

    /// Sends commands together, once; what the server answered or refused to each. With an atomic pipeline, nothing of others happens in between.
    pub async fn ask_all(
        &self,
        what: &str,
        commands: &mut Pipeline,
    ) -> Result<Vec<RedisResult<Value>>, StepError> {
        let mut connection = self.connection().await?;
        let answers = commands.ignore_errors().query_async::<Vec<RedisResult<Value>>>(&mut connection).await;
        self.judged(what, answers).await
    }

    async fn judged<T>(&self, what: &str, answer: RedisResult<T>) -> Result<T, StepError> {
        match answer {
            Ok(answer) => Ok(answer),
            Err(error) => {
                if is_lost(&error) {
                    *self.live.lock().await = None;
                }
                Err(failed(&format!("{what} at {}", self.place), &error))
            }
        }
    }

    async fn connection(&self) -> Result<MultiplexedConnection, StepError> {
        let mut live = self.live.lock().await;
        if let Some(connection) = &*live {
            return Ok(connection.clone());
        }
        let what = format!("connecting to {}", self.place);
        let client = self.client(&what)?;
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.settings.connect_timeout.0))
            .set_response_timeout(Some(self.settings.timeout.0));
        let mut connection = client
            .get_multiplexed_async_connection_with_config(&config)
            .await
            .map_err(|error| unreachable(&what, &error))?;
        let facts = facts(&mut connection).await.map_err(|error| unreachable(&what, &error))?;
        if facts.cluster {
            let message = format!("{} is a node of a cluster, which holds some of the keys only", self.place);
            return Err(
                StepError::refused(message).with_help("connect to a server that is no node of a cluster")
            );
        }
        Ok(live.insert(connection).clone())
    }

    fn client(&self, what: &str) -> Result<Client, StepError> {
        let unusable = |error: RedisError| unreachable(what, &error);
        if !self.encrypted {
            return Client::open(self.info.clone()).map_err(unusable);
        }
        let read = |file: &Option<PathBuf>| file.as_deref().map(read).transpose();
        let s = &self.settings;
        let client_tls = match (read(&s.tls_cert)?, read(&s.tls_key)?) {
            (Some(client_cert), Some(client_key)) => Some(ClientTlsConfig { client_cert, client_key }),
            _ => None,
        };
        let certificates = TlsCertificates { client_tls, root_cert: read(&s.tls_root_cert)? };
        Client::build_with_tls(self.info.clone(), certificates)
            // The library calls it a failure of input and output; it is one of a file's content.
            .map_err(|error| StepError::invalid(format!("{what}: {error}")))
    }

    async fn facts(&self) -> Result<Facts, StepError> {
        let mut connection = self.connection().await?;
        let facts = facts(&mut connection).await;
        self.judged("asking who it is", facts).await
    }
}

fn read(path: &Path) -> Result<Vec<u8>, StepError> {
    std::fs::read(path)
        .map_err(|error| StepError::invalid(format!("{} can not be read: {error}", path.display())))
}

async fn facts(connection: &mut MultiplexedConnection) -> RedisResult<Facts> {
    let asked = redis::cmd("INFO").arg("server").query_async::<String>(connection).await;
    let text = match asked {
        Err(error) if is_forbidden(&error) => return Ok(Facts::default()),
        other => other?,
    };
    let of = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    Ok(Facts { run_id: of("run_id").map(str::to_owned), cluster: of("redis_mode") == Some("cluster") })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn open(settings: serde_json::Value) -> Result<Redis, StepError> {
        let connection: RedisConnection = serde_json::from_value(settings).unwrap();
        let vault: std::sync::Arc<dyn crate::kind::Vault> = std::sync::Arc::new(crate::kind::NoVault);
        let redactor = runbook_engine::redact::Redactor::default();
        connection.open(&OpenContext { name: "cache", redactor: &redactor, vault: &vault })
    }

    #[test]
    fn where_it_is_stands_in_the_url_or_beside_it() {
        for (settings, place) in [
            (
                json!({ "url": "redis://ada:hunter2@cache.example:7000/3?protocol=3" }),
                "redis://cache.example:7000/3",
            ),
            (json!({ "url": "redis://h/3", "database": 5, "port": 1 }), "redis://h:1/5"),
            (json!({ "host": "h", "password": "hunter2", "tls": true }), "rediss://h:6379/0"),
            (json!({ "host": "/run/redis.sock", "database": 2 }), "redis at /run/redis.sock, database 2"),
            (json!({ "url": "rediss://[::1]:7000" }), "rediss://[::1]:7000/0"),
        ] {
            let redis = open(settings).unwrap();
            assert_eq!(redis.describe(), place);
            assert!(!format!("{redis:?}").contains("hunter2"));
        }
    }

    #[test]
    fn what_is_wrong_is_said_without_the_password() {
        for (settings, said) in [
            (json!({ "url": "http://a:hunter2@h" }), "`http://`"),
            (json!({ "url": "redis://a:hunter2@h/cache" }), "Invalid database number"),
            (json!({ "url": "redis://a:hunter2@h/-1" }), "negative"),
            (json!({ "url": "rediss://a:hunter2@h/#insecure" }), "fragment"),
            (json!({ "url": "rediss://a:hunter2@h", "tls": false }), "`tls` is false"),
            (json!({ "host": "h", "tls_root_cert": "ca.pem" }), "not encrypted"),
            (json!({ "host": "h", "tls": true, "tls_key": "key.pem" }), "belong together"),
            (json!({ "host": "/run/s", "tls": true }), "a socket"),
            (json!({}), "neither `url` nor `host`"),
        ] {
            let error = open(settings).unwrap_err();
            assert!(error.message.contains(said) && !error.to_string().contains("hunter2"), "{error}");
        }
    }
}

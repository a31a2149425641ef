//! What the settings of servers of databases have in common: where the server is, and who asks.

use std::path::PathBuf;

use runbook_engine::duration::Duration;
use runbook_engine::error::StepError;
use schemars::JsonSchema;
use serde::Deserialize;
use url::Url;

/// How a connection is encrypted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SslMode {
    /// Never.
    Disable,
    /// When the server offers it, with any certificate.
    #[default]
    Prefer,
    /// Always, with any certificate.
    Require,
    /// Always, with a certificate of a known authority.
    VerifyCa,
    /// Always, with a certificate of a known authority for this host.
    VerifyFull,
}

/// The parts of a server's address that are settings of their own; each one overrides that part of the URL.
#[derive(Clone, Debug, Default)]
pub(in crate::connections) struct Parts {
    pub url: Option<String>,
    pub host: Option<String>,
    pub port: Option<u16>,
    pub database: Option<String>,
    pub user: Option<String>,
    pub password: Option<String>,
}

/// The files of an encrypted connection.
#[derive(Clone, Debug, Default)]
pub(super) struct SslFiles {
    pub root_cert: Option<PathBuf>,
    pub cert: Option<PathBuf>,
    pub key: Option<PathBuf>,
}

pub(in crate::connections) fn default_connect_timeout() -> Duration {
    Duration::from_secs(10)
}

pub(super) fn default_lock_timeout() -> Duration {
    Duration::from_secs(10)
}

pub(super) fn default_max_connections() -> u32 {
    4
}

impl Parts {
    /// The address as one URL of this scheme. Messages never show what was written, since it may hold a password.
    pub(in crate::connections) fn url(&self, schemes: &[&str]) -> Result<Url, StepError> {
        let scheme = schemes.first().copied().unwrap_or_default();
        let mut url = match &self.url {
            Some(text) => {
                let url = Url::parse(text)
                    .map_err(|error| StepError::invalid(format!("`url` is no URL: {error}")))?;
                if !schemes.contains(&url.scheme()) {
                    let message = format!("`url` begins with `{}://`, not with `{scheme}://`", url.scheme());
                    return Err(StepError::invalid(message));
                }
                url
            }
            None => {
                let host = self.host.as_deref().ok_or_else(|| {
                    StepError::invalid("neither `url` nor `host` says where the database is")
                })?;
                let host = if host.starts_with('/') { "localhost" } else { host };
                Url::parse(&format!("{scheme}://{host}"))
                    .map_err(|error| StepError::invalid(format!("`host` is no host: {error}")))?
            }
        };
        let bad = |what: &str| StepError::invalid(format!("`{what}` can not stand in an address"));
        match &self.host {
            // A folder with the socket of the server.
            Some(host) if host.starts_with('/') => {
                let name = if scheme == "mysql" { "socket" } else { "host" };
                url.query_pairs_mut().append_pair(name, host);
            }
            Some(host) => url.set_host(Some(host)).map_err(|_| bad("host"))?,
            None => {}
        }
        if self.port.is_some() {
            url.set_port(self.port).map_err(|()| bad("port"))?;
        }
        if let Some(user) = &self.user {
            url.set_username(user).map_err(|()| bad("user"))?;
        }
        if let Some(password) = &self.password {
            url.set_password(Some(password)).map_err(|()| bad("password"))?;
        }
        if let Some(database) = &self.database {
            url.path_segments_mut().map_err(|()| bad("database"))?.clear().push(database);
        }
        Ok(url)
    }
}

/// Where a URL leads, for people: without user, password and query.
pub(in crate::connections) fn described(
    scheme: &str,
    host: &str,
    port: u16,
    database: Option<&str>,
) -> String {
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    match database {
        Some(database) => format!("{scheme}://{host}:{port}/{database}"),
        None => format!("{scheme}://{host}:{port}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_overrides_its_part_of_the_url() {
        let parts = Parts {
            url: Some("postgres://ada:old@db.example:6000/app?sslmode=require".to_owned()),
            port: Some(7000),
            password: Some("n/e w".to_owned()),
            database: Some("other".to_owned()),
            ..Parts::default()
        };
        let url = parts.url(&["postgres"]).unwrap();
        assert_eq!(url.as_str(), "postgres://ada:n%2Fe%20w@db.example:7000/other?sslmode=require");
    }

    #[test]
    fn what_is_wrong_is_said_without_the_password() {
        let parts = Parts { url: Some("mysql://a:hunter2@h/db".to_owned()), ..Parts::default() };
        let error = parts.url(&["postgres", "postgresql"]).unwrap_err();
        assert!(error.message.contains("mysql://") && !error.message.contains("hunter2"), "{error}");
        assert!(Parts::default().url(&["postgres"]).is_err());
        let socket = Parts { host: Some("/run/postgresql".to_owned()), ..Parts::default() };
        assert!(socket.url(&["postgres"]).unwrap().as_str().contains("host=%2Frun%2Fpostgresql"));
    }
}

//! Databases whose connections are encrypted, and that are known by their certificates.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::process::Command;

use runbook_engine::error::{ErrorKind, StepError};
use runbook_sandbox::database::{DatabaseServer, Kind};
use serde_json::{Value, json};

use crate::certificates::certificates;
use crate::common::{Bench, planned};

/// The cipher of the connection that asks, or nothing.
const CIPHER: [&str; 2] = [
    "select coalesce(cipher, '') as cipher from pg_stat_ssl where pid = pg_backend_pid()",
    "select variable_value as cipher from information_schema.session_status where variable_name = 'Ssl_cipher'",
];

/// What the server says of the encryption of a connection with these settings.
async fn cipher(kind: Kind, address: &str, settings: Value) -> Result<String, StepError> {
    let (scheme, user, sql) = match kind {
        Kind::Postgres => ("postgres", "runbook", CIPHER[0]),
        Kind::MariaDb => ("mysql", "root", CIPHER[1]),
    };
    let mut connection = json!({ "type": scheme, "url": format!("{scheme}://{user}@{address}/app") });
    for (name, value) in settings.as_object().unwrap() {
        connection[name] = value.clone();
    }
    let step = planned("ask", "sql", json!({ "connection": "db", "statement": sql }));
    let bench = Bench::new(vec![step], json!({ "db": connection }), json!({})).await;
    let outputs = bench.enter("ask").await?;
    Ok(outputs["rows"][0]["cipher"].as_str().unwrap().to_owned())
}

async fn known_by_its_certificate(kind: Kind) {
    let folder = tempfile::tempdir().unwrap();
    let [ca, cert, key] = certificates(folder.path());
    // Root's server runs as somebody else, and wants its key to be for nobody but itself.
    if kind == Kind::Postgres && fs::metadata("/proc/self").unwrap().uid() == 0 {
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        assert!(Command::new("chown").args(["postgres", &key]).status().unwrap().success());
    }
    let options = match kind {
        Kind::Postgres => {
            ["-cssl=on".to_owned(), format!("-cssl_cert_file={cert}"), format!("-cssl_key_file={key}")]
        }
        Kind::MariaDb => [format!("--ssl-ca={ca}"), format!("--ssl-cert={cert}"), format!("--ssl-key={key}")],
    };
    let server = DatabaseServer::start_with(kind, &options.each_ref().map(String::as_str)).await.unwrap();
    let here = format!("127.0.0.1:{}", server.port());
    let known = json!({ "ssl_mode": "verify-full", "ssl_root_cert": ca });
    assert_ne!(cipher(kind, &here, known.clone()).await.unwrap(), "");
    assert_ne!(
        cipher(kind, &here, json!({})).await.unwrap(),
        "",
        "it is encrypted when the server offers it"
    );
    assert_eq!(cipher(kind, &here, json!({ "ssl_mode": "disable" })).await.unwrap(), "");

    // Nobody vouches for it; and it is another one than is called.
    for (address, settings) in
        [(here.clone(), json!({ "ssl_mode": "verify-ca" })), (format!("localhost:{}", server.port()), known)]
    {
        let error = cipher(kind, &address, settings).await.unwrap_err();
        let told = format!("{} {}", error.message, error.causes.join(" "));
        assert!(error.kind == ErrorKind::Refused && told.contains("certificate"), "{address}: {error:?}");
    }
}

#[tokio::test]
async fn a_postgres_that_encrypts_is_known_by_its_certificate() {
    known_by_its_certificate(Kind::Postgres).await;
    let plain = DatabaseServer::start(Kind::Postgres).await.unwrap();
    let here = format!("127.0.0.1:{}", plain.port());
    let error = cipher(Kind::Postgres, &here, json!({ "ssl_mode": "require" })).await.unwrap_err();
    assert_eq!(
        error.kind,
        ErrorKind::Refused,
        "it is not fallen back on a connection that anybody reads: {error:?}"
    );
}

#[tokio::test]
async fn a_mariadb_that_encrypts_is_known_by_its_certificate() {
    known_by_its_certificate(Kind::MariaDb).await;
}

//! `keygen` and `generate-secret`: what is written, and that it is written once and told nowhere.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use runbook_engine::error::ErrorKind;
use runbook_engine::step::Intent;
use runbook_steps::catalog;
use serde_json::{Value, json};

use crate::common::{Bench, planned};

async fn bench(kind: &str, with: Value) -> Bench {
    Bench::new(vec![planned("make", kind, with)], json!({}), json!({})).await
}

fn sh(script: &str, folder: &Path) -> String {
    let run = Command::new("sh").args(["-ec", script]).current_dir(folder).output().unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    String::from_utf8(run.stdout).unwrap().trim().to_owned()
}

fn files(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
}

/// The ledger of the step in one text, to look for secrets in.
async fn recorded(bench: &Bench) -> String {
    let batches = bench.context("make").ledger.batches(0, 10).await.unwrap();
    format!("{batches:?} {:?}", bench.context("make").ledger.view().await.unwrap())
}

#[tokio::test]
async fn a_key_is_one_that_openssl_knows() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    for (encoding, decode) in [("pem", "cat key"), ("base64-pem", "base64 -d key")] {
        let bench = bench("keygen", json!({ "path": path, "encoding": encoding })).await;
        let outputs = bench.run("make", 1).await.unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let told = sh(
            &format!("{decode} | openssl pkey -pubout -outform DER | sha256sum | cut -d' ' -f1"),
            folder.path(),
        );
        let raw = sh(
            &format!(
                "{decode} | openssl pkey -pubout -outform DER | tail -c 32 | base64 | tr '+/' '-_' | tr -d ="
            ),
            folder.path(),
        );
        let all = json!({ "path": path, "encoding": encoding, "fingerprint": told, "public_key": raw });
        assert_eq!(outputs, all);
        // Looked at, in the file or as a value, it is the same.
        let at_path = json!({ "mode": "check", "path": path, "encoding": encoding });
        assert_eq!(self::bench("keygen", at_path).await.enter("make").await.unwrap(), all);
        let at_value =
            json!({ "mode": "check", "value": fs::read_to_string(&path).unwrap(), "encoding": encoding });
        let looked = self::bench("keygen", at_value).await.enter("make").await.unwrap();
        assert_eq!((&looked["public_key"], looked.get("path")), (&json!(raw), None));
        // It is the form that OpenSSL itself writes.
        let same = format!("{decode} > ours; openssl pkey -in ours | cmp - ours && echo same; rm ours");
        assert_eq!(sh(&same, folder.path()), "same");
        let secret = sh(&format!("{decode} | sed -n 2p"), folder.path());
        assert!(secret.len() == 64 && !recorded(&bench).await.contains(&secret));
        assert!(!bench.redactor.text(&format!("the key is {secret}!")).contains(&secret));
        // Entered again it gives the same, and a new run writes nothing over it.
        let before = fs::read(&path).unwrap();
        assert_eq!(bench.enter("make").await.unwrap(), outputs);
        let error = self::bench("keygen", json!({ "path": path })).await.enter("make").await.unwrap_err();
        assert!(error.kind == ErrorKind::Refused && error.message.contains("is there already"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), before);
        fs::remove_file(&path).unwrap();
        let error = bench.enter("make").await.unwrap_err();
        assert!(error.kind == ErrorKind::Gate && files(folder.path()).is_empty(), "{error}");
    }
}

#[tokio::test]
async fn a_secret_is_drawn_anew_each_time() {
    let folder = tempfile::tempdir().unwrap();
    let mut seen = Vec::new();
    for (encoding, bytes, length) in
        [("hex", 16, 32), ("base64", 33, 44), ("base64-url", 32, 43), ("hex", 16, 32)]
    {
        let path = folder.path().join(format!("secret-{}", seen.len()));
        let bench =
            bench("generate-secret", json!({ "path": path, "encoding": encoding, "bytes": bytes })).await;
        let outputs = bench.run("make", 1).await.unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text.trim_end().len(), length, "{encoding}");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(outputs["sha256"], json!(runbook_steps::digest::sha256(text.as_bytes())));
        assert!(!recorded(&bench).await.contains(text.trim_end()));
        assert!(!bench.redactor.text(&format!("it is {text}")).contains(text.trim_end()));
        assert!(!seen.contains(&text));
        seen.push(text);
    }
    let error = bench("generate-secret", json!({ "path": "here" })).await.enter("make").await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Invalid, "{error}");
    let nowhere = folder.path().join("no/folder");
    let error = bench("generate-secret", json!({ "path": nowhere })).await.enter("make").await.unwrap_err();
    assert!(error.kind == ErrorKind::Refused && error.message.contains("can not be written"), "{error}");
}

#[tokio::test]
async fn after_a_crash_the_file_tells_whether_it_was_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secret");
    let with = json!({ "path": path });
    let announce = async |bench: &Bench, content: &str| {
        let sha256 = runbook_steps::digest::sha256(content.as_bytes());
        let what = json!({ "path": path, "sha256": sha256 });
        let intent = Intent { what, items: 1, charged_items: 0, charged_bytes: 0 };
        bench.context("make").ledger.intend(intent).await.unwrap();
        sha256
    };
    // It had been written.
    fs::write(&path, "the secret\n").unwrap();
    let written = bench("generate-secret", with.clone()).await;
    let sha256 = announce(&written, "the secret\n").await;
    assert_eq!(written.enter("make").await.unwrap()["sha256"], json!(sha256));
    assert_eq!(fs::read_to_string(&path).unwrap(), "the secret\n");
    // Something else is there.
    let other = bench("generate-secret", with.clone()).await;
    announce(&other, "another\n").await;
    assert_eq!(other.enter("make").await.unwrap_err().kind, ErrorKind::Refused);
    assert_eq!(fs::read_to_string(&path).unwrap(), "the secret\n");
    // Nothing had been written.
    fs::remove_file(&path).unwrap();
    let nothing = bench("generate-secret", with.clone()).await;
    let sha256 = announce(&nothing, "another\n").await;
    assert_ne!(nothing.enter("make").await.unwrap()["sha256"], json!(sha256));
    assert_eq!(nothing.context("make").ledger.view().await.unwrap().unsettled, []);
}

#[tokio::test]
async fn a_plan_tells_that_the_place_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    for (kind, does) in [("keygen", "make a key of Ed25519"), ("generate-secret", "write 32 random bytes")] {
        let bench = bench(kind, json!({ "path": path })).await;
        let entry = catalog::step(kind).unwrap();
        let effect = (entry.info.effect)(&Value::Null);
        let foresee = async || (entry.foresee)(json!({ "path": path }), effect, bench.context("make")).await;
        assert!(foresee().await.unwrap().does.starts_with(does));
        assert!(!path.exists());
        fs::write(&path, "theirs").unwrap();
        assert_eq!(foresee().await.unwrap_err().kind, ErrorKind::Refused);
        fs::remove_file(&path).unwrap();
    }
}

#[tokio::test]
async fn the_public_key_stands_in_a_file_beside() {
    let folder = tempfile::tempdir().unwrap();
    let (path, public) = (folder.path().join("key"), folder.path().join("key.pub"));
    let with = json!({ "path": path, "public_path": public });
    let bench = bench("keygen", with.clone()).await;
    bench.run("make", 1).await.unwrap();
    assert_eq!(fs::metadata(&public).unwrap().permissions().mode() & 0o777, 0o644);
    assert_eq!(sh("openssl pkey -in key -pubout | cmp - key.pub && echo same", folder.path()), "same");
    // What a killed process did not come to is made up for; what is somebody else's is left.
    fs::remove_file(&public).unwrap();
    bench.enter("make").await.unwrap();
    assert_eq!(sh("openssl pkey -in key -pubout | cmp - key.pub && echo same", folder.path()), "same");
    fs::write(&public, "theirs").unwrap();
    let error = bench.enter("make").await.unwrap_err();
    assert!(error.kind == ErrorKind::Refused && !error.message.contains("no secret"), "{error}");
    assert_eq!(fs::read_to_string(&public).unwrap(), "theirs");
    // Reopened with the place free, the key that was made is taken, and not refused as somebody else's.
    fs::remove_file(&public).unwrap();
    bench.reopen("make").await;
    bench.enter("make").await.unwrap();
    assert_eq!(sh("openssl pkey -in key -pubout | cmp - key.pub && echo same", folder.path()), "same");

    // Where the public key has no place no private one is made.
    let (path, public) = (folder.path().join("other"), folder.path().join("key.pub"));
    let with = json!({ "path": path, "public_path": public });
    let error = self::bench("keygen", with).await.enter("make").await.unwrap_err();
    assert!(error.kind == ErrorKind::Refused && error.message.contains("no secret was made"), "{error}");
    assert!(!path.exists());
}

#[tokio::test]
async fn a_key_that_would_not_do_is_told_from_one_that_would() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    let pem = sh("openssl genpkey -algorithm Ed25519 | tee key", folder.path());
    let der = sh("openssl pkey -in key -outform DER | base64 -w0", folder.path());
    let rsa = sh("openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:1024 | base64 -w0", folder.path());
    let fails = async |with: Value, why: &str| {
        let error = bench("keygen", with).await.enter("make").await.unwrap_err();
        assert!(error.kind == ErrorKind::Gate && error.message.contains(why), "{why}: {error:?}");
        assert!(!format!("{error:?}").contains(pem.lines().nth(1).unwrap()));
    };
    for (value, why) in [
        (pem.as_str(), "PEM as it stands"),
        (&der, "Base64 of DER"),
        (&rsa, "no private key of Ed25519"),
        ("secret", "no PEM"),
    ] {
        fails(json!({ "mode": "check", "value": value, "encoding": "base64-pem" }), why).await;
    }
    let file = json!({ "mode": "check", "path": path });
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    fails(file.clone(), "others than its owner").await;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    bench("keygen", file.clone()).await.enter("make").await.unwrap();
    fs::remove_file(&path).unwrap();
    fails(file, "there is no key").await;
    let both = json!({ "mode": "make", "value": pem });
    let error = bench("keygen", both).await.enter("make").await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Invalid, "{error}");
}

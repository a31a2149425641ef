//! Artifacts are what they were when they were written, or are refused.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use runbook_engine::artifact::{Artifact, Artifacts};
use runbook_engine::error::{ErrorKind, StepError};
use runbook_engine::redact::{MASK, Redactor};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncReadExt as _;

const SECRET: &str = "hunter2/Zx+81";

fn artifacts(folder: &Path) -> Artifacts {
    Artifacts::new(folder.join("deep/artifacts"), Redactor::new([SECRET.to_owned()]))
}

/// Every file below, with its path from there.
fn files(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.push(path.strip_prefix(folder).unwrap().display().to_string());
            }
        }
    }
    found.sort();
    found
}

async fn written(artifacts: &Artifacts, lines: &[&str]) -> Artifact {
    let mut writer = artifacts.create("manifest.jsonl").await.unwrap();
    for line in lines {
        writer.write_line(line).await.unwrap();
    }
    writer.finish().await.unwrap()
}

async fn content(artifacts: &Artifacts, artifact: &Artifact) -> String {
    let mut text = String::new();
    artifacts.open(artifact).await.unwrap().read_to_string(&mut text).await.unwrap();
    text
}

#[tokio::test]
async fn keeps_content_once_under_its_hash() {
    let folder = tempfile::tempdir().unwrap();
    let artifacts = artifacts(folder.path());
    let first = written(&artifacts, &["a", "b"]).await;
    let hash: String = Sha256::digest("a\nb\n").iter().map(|byte| format!("{byte:02x}")).collect();
    let expected = Artifact { sha256: hash, name: "manifest.jsonl".to_owned(), bytes: 4, lines: Some(2) };
    assert_eq!(first, expected);
    assert_eq!(written(&artifacts, &["a", "b"]).await, first);
    let place = format!("deep/artifacts/{}/{}", &first.sha256[..2], first.sha256);
    assert_eq!(files(folder.path()), std::slice::from_ref(&place));
    let mode = |path: &str| std::fs::metadata(folder.path().join(path)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&place), mode("deep/artifacts"), mode("deep")), (0o600, 0o700, 0o700));
    assert_eq!(content(&artifacts, &first).await, "a\nb\n");
}

#[tokio::test]
async fn an_abandoned_one_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let artifacts = artifacts(folder.path());
    let mut writer = artifacts.create("x").await.unwrap();
    writer.write(&vec![7; 1_000_000]).await.unwrap();
    assert_eq!(files(folder.path()).len(), 1);
    drop(writer);
    assert_eq!(files(folder.path()), Vec::<String>::new());
}

#[tokio::test]
async fn altered_or_missing_ones_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let artifacts = artifacts(folder.path());
    let good = written(&artifacts, &["keep", "this"]).await;
    let path = artifacts.path(&good).unwrap();
    let refused = async |what: &str| {
        let error = artifacts.lines(&good).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Gate);
        assert!(error.message.contains("manifest.jsonl") && error.message.contains(what), "{error}");
    };
    std::fs::write(&path, "keep\nthat\n").unwrap();
    refused("altered").await;
    std::fs::write(&path, "keep\nthis\nand more\n").unwrap();
    refused("altered: it has 19 bytes and had 10").await;
    std::fs::write(&path, "").unwrap();
    refused("altered").await;
    std::fs::remove_file(&path).unwrap();
    refused("missing").await;
    // Writing it again makes it good again.
    assert_eq!(written(&artifacts, &["keep", "this"]).await, good);
    assert_eq!(content(&artifacts, &good).await, "keep\nthis\n");
    // The size is part of what it says of itself.
    let other = Artifact { bytes: 9, ..good };
    assert_eq!(artifacts.open(&other).await.unwrap_err().kind, ErrorKind::Gate);
}

#[tokio::test]
async fn a_name_that_is_no_hash_reaches_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let artifacts = artifacts(folder.path());
    let long = format!("../../../../{}", "a".repeat(52));
    let upper = "A".repeat(64);
    let foreign = "é".repeat(32);
    for sha256 in
        ["", "a", "é", "../../etc/passwd", &long, &upper, &foreign, &"g".repeat(64), &"a".repeat(65)]
    {
        let odd = Artifact { sha256: sha256.to_owned(), name: "x".to_owned(), bytes: 0, lines: None };
        assert_eq!(artifacts.path(&odd).unwrap_err().kind, ErrorKind::Gate, "{sha256}");
        assert_eq!(artifacts.open(&odd).await.unwrap_err().kind, ErrorKind::Gate, "{sha256}");
    }
    for name in ["", ".", "..", "a/b", "../a", "a\\b", "a\0"] {
        assert_eq!(artifacts.create(name).await.unwrap_err().kind, ErrorKind::Invalid, "{name:?}");
    }
}

#[tokio::test]
async fn lines_go_on_from_any_of_their_ends() {
    let folder = tempfile::tempdir().unwrap();
    let artifacts = artifacts(folder.path());
    let long = "x".repeat(3_000_000);
    let mut writer = artifacts.create("lines").await.unwrap();
    let records = ["one", "", "zwei ☃", long.as_str(), "last"];
    for record in records {
        writer.write_json(&json!({ "record": record })).await.unwrap();
    }
    let artifact = writer.finish().await.unwrap();
    assert_eq!(artifact.lines, Some(5));
    let mut ends = vec![0];
    let mut lines = artifacts.lines(&artifact).await.unwrap();
    while let Some(line) = lines.next().await.unwrap() {
        ends.push(line.end);
    }
    assert_eq!((ends.len(), ends.last()), (6, Some(&artifact.bytes)));
    for (skipped, end) in ends.iter().enumerate() {
        let mut lines = artifacts.lines_from(&artifact, *end).await.unwrap();
        let mut rest = Vec::new();
        while let Some((value, _)) = lines.next_json::<Value>().await.unwrap() {
            rest.push(value["record"].as_str().unwrap().to_owned());
        }
        assert_eq!(rest, records[skipped..]);
    }
    for odd in [1, ends[1] - 1, artifact.bytes - 1, artifact.bytes + 1, u64::MAX] {
        assert_eq!(artifacts.lines_from(&artifact, odd).await.unwrap_err().kind, ErrorKind::Invalid, "{odd}");
    }
}

#[tokio::test]
async fn a_last_line_without_a_break_and_other_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let artifacts = artifacts(folder.path());
    let mut writer = artifacts.create("x").await.unwrap();
    writer.write(b"one\ntwo").await.unwrap();
    let artifact = writer.finish().await.unwrap();
    assert_eq!(artifact.lines, None);
    let mut lines = artifacts.lines_from(&artifact, 4).await.unwrap();
    let line = lines.next().await.unwrap().unwrap();
    assert_eq!((line.text.as_str(), line.end), ("two", 7));
    assert_eq!(lines.next().await.unwrap(), None);
    assert_eq!(artifacts.lines_from(&artifact, 7).await.unwrap().next().await.unwrap(), None);
    let mut writer = artifacts.create("binary").await.unwrap();
    writer.write(&[0xff, 0xfe, b'\n']).await.unwrap();
    let binary = writer.finish().await.unwrap();
    let error = artifacts.lines(&binary).await.unwrap().next().await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Gate);
    let empty = artifacts.create("empty").await.unwrap().finish().await.unwrap();
    assert_eq!((empty.bytes, empty.lines), (0, Some(0)));
    assert_eq!(artifacts.lines(&empty).await.unwrap().next().await.unwrap(), None);
}

#[tokio::test]
async fn secrets_are_masked_however_they_are_cut() {
    let folder = tempfile::tempdir().unwrap();
    let artifacts = artifacts(folder.path());
    let mut writer = artifacts.create(&format!("log-{SECRET}").replace('/', "")).await.unwrap();
    writer.write_line(&format!("key={SECRET};")).await.unwrap();
    for piece in format!("raw {SECRET} end\n").as_bytes().chunks(3) {
        writer.write(piece).await.unwrap();
    }
    writer.write_json(&json!({ SECRET: [format!("a {SECRET}")] })).await.unwrap();
    writer.write_line("done").await.unwrap();
    let artifact = writer.finish().await.unwrap();
    let expected = format!("key={MASK};\nraw {MASK} end\n{{\"{MASK}\":[\"a {MASK}\"]}}\ndone\n");
    assert_eq!(content(&artifacts, &artifact).await, expected);
}

#[tokio::test]
async fn exact_bytes_with_a_secret_in_them_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let artifacts = artifacts(folder.path());
    let exact = format!("{{\"a\":\"{MASK}\\/\"}}\n");
    let mut writer = artifacts.create_raw("snapshot").await.unwrap();
    writer.write_line(exact.trim_end()).await.unwrap();
    let artifact = writer.finish().await.unwrap();
    assert_eq!((content(&artifacts, &artifact).await, artifact.lines), (exact, Some(1)));

    let mut writer = artifacts.create_raw("snapshot").await.unwrap();
    let mut refusal: Option<StepError> = None;
    for piece in json!({ "k": SECRET }).to_string().as_bytes().chunks(4) {
        refusal = refusal.or(writer.write(piece).await.err());
    }
    let refusal = refusal.unwrap();
    assert_eq!(refusal.kind, ErrorKind::Refused);
    assert!(!format!("{refusal:?}").contains("hunter2"));
    // Nor can it be finished after all.
    assert_eq!(writer.finish().await.unwrap_err().kind, ErrorKind::Refused);
    assert_eq!(files(folder.path()).len(), 1, "only the first one");
}

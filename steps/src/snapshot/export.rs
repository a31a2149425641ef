//! The contents of a snapshot as files: written, forced to disk, read back and compared.

use std::sync::Arc;

use runbook_engine::artifact::{Artifact, ArtifactWriter};
use runbook_engine::error::StepError;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{names, version_in};
use crate::collections::{Collection, Content, Item, Versions};
use crate::connections::directory::Directory;
use crate::digest::sha256;
use crate::kind::Context;
use crate::manifest::blocking;

/// Where contents are written.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Export {
    /// The name of a connection of type `directory`.
    pub connection: String,
    /// A folder in it, relative. Default: the directory itself. A file that is there already is left as it is, and must hold the same
    /// bytes.
    #[serde(default)]
    pub folder: Option<String>,
}

/// A line of the manifest of an export.
#[derive(Serialize)]
struct Line {
    key: String,
    name: Option<String>,
    mime_type: Option<String>,
    path: String,
    bytes: u64,
    sha256: String,
    #[serde(skip_serializing_if = "Versions::is_empty")]
    version_in: Versions,
}

/// An export under way.
pub(super) struct Exporter {
    directory: Arc<Directory>,
    folder: String,
    collection: Arc<dyn Collection>,
    name: String,
    writer: ArtifactWriter,
    bad: Vec<String>,
}

impl Exporter {
    pub(super) async fn begin(
        export: &Export,
        cx: &Context,
        collection: &Arc<dyn Collection>,
        name: &str,
    ) -> Result<Self, StepError> {
        let directory = cx.resources.connection::<Directory>(&export.connection)?;
        let folder = match export.folder.as_deref().map(|folder| folder.trim_end_matches('/')) {
            None | Some("" | ".") => String::new(),
            Some(folder) => format!("{folder}/"),
        };
        directory.path(&format!("{folder}x"))?;
        let writer = cx.artifacts.create_raw(&format!("{name}.manifest.jsonl")).await?;
        let (collection, name) = (Arc::clone(collection), name.to_owned());
        Ok(Self { directory, folder, collection, name, writer, bad: Vec::new() })
    }

    /// Writes the content of one item. What does not agree with itself is kept for the end, so that all of it is named.
    pub(super) async fn add(&mut self, item: Item) -> Result<(), StepError> {
        let (directory, collection) = (Arc::clone(&self.directory), Arc::clone(&self.collection));
        let folder = self.folder.clone();
        let version_in = version_in(&self.name, &item);
        let end = blocking(move || Ok(write(&directory, &folder, &*collection, &item))).await?;
        match end {
            Ok(line) => self.writer.write_json(&Line { version_in, ..line }).await,
            Err(Bad::Item(why)) => {
                self.bad.push(why);
                Ok(())
            }
            Err(Bad::Disk(error)) => Err(error),
        }
    }

    pub(super) async fn finish(self) -> Result<Artifact, StepError> {
        if self.bad.is_empty() {
            return self.writer.finish().await;
        }
        let (count, what) = (self.bad.len(), names(&self.bad));
        Err(StepError::gate(format!("{count} contents are not what they should be: {what}")))
    }
}

/// Why an item was not exported.
enum Bad {
    /// The item is at fault, in words.
    Item(String),
    /// The directory is.
    Disk(StepError),
}

fn write(directory: &Directory, folder: &str, collection: &dyn Collection, item: &Item) -> Result<Line, Bad> {
    let content = collection.content(item).map_err(|error| Bad::Item(error.message))?;
    let sha256 = sha256(&content.bytes);
    let bytes = content.bytes.len() as u64;
    declared(item, &content, &sha256, bytes)?;
    let path = format!("{folder}{}", file_name(&item.key, &content));
    let wanted = Some((sha256.clone(), bytes));
    match directory.digest(&path).map_err(Bad::Disk)? {
        Some(there) if Some(&there) == wanted.as_ref() => {}
        Some(_) => return Err(Bad::Item(format!("{} (another file is at {path})", item.key))),
        None => {
            directory.write(&path, &content.bytes).map_err(Bad::Disk)?;
            if directory.digest(&path).map_err(Bad::Disk)? != wanted {
                return Err(Bad::Item(format!("{} (read back from {path}, it differs)", item.key)));
            }
        }
    }
    let Content { name, mime_type, .. } = content;
    let version_in = Versions::new();
    Ok(Line { key: item.key.clone(), name, mime_type, path, bytes, sha256, version_in })
}

fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn declared(item: &Item, content: &Content, sha256: &str, bytes: u64) -> Result<(), Bad> {
    let bad = |why: String| Err(Bad::Item(format!("{} ({why})", item.key)));
    match &content.sha256 {
        Some(declared) if !is_sha256(declared) => return bad("what it gives as SHA-256 is none".to_owned()),
        Some(declared) if declared != sha256 => return bad(format!("SHA-256 {sha256}, declared {declared}")),
        _ => {}
    }
    match content.size {
        Some(declared) if declared != bytes => bad(format!("{bytes} bytes, declared {declared}")),
        _ => Ok(()),
    }
}

/// The longest file name made of a key; longer ones get the key's hash.
const LONGEST_NAME: usize = 150;

/// A file name out of a key: the key with everything but letters, digits, `-`, `_` and `.` percent-encoded, and the extension of the
/// item's own file name when it has a plain one.
fn file_name(key: &str, content: &Content) -> String {
    let mut name = crate::connections::http::segment(key).replace('~', "%7E");
    if name.starts_with('.') {
        name = format!("%2E{}", &name[1..]);
    }
    if name.len() > LONGEST_NAME {
        name = format!("sha256-{}", sha256(key.as_bytes()));
    }
    let extension =
        content.name.as_deref().and_then(|name| name.rsplit_once('.')).map(|(_, extension)| extension);
    let plain = |extension: &&str| {
        (1..=8).contains(&extension.len()) && extension.bytes().all(|byte| byte.is_ascii_alphanumeric())
    };
    match extension.filter(plain).map(str::to_ascii_lowercase) {
        Some(extension) if !name.ends_with(&format!(".{extension}")) => format!("{name}.{extension}"),
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names_are_safe() {
        let of = |key: &str, name: &str| {
            let name = Some(name.to_owned());
            file_name(key, &Content { bytes: vec![], name, mime_type: None, sha256: None, size: None })
        };
        assert_eq!(of("3f2a", "Photo.PNG"), "3f2a.png");
        assert_eq!(of("../../etc/passwd", "x"), "%2E.%2F..%2Fetc%2Fpasswd");
        assert_eq!(of("a.txt", "a.txt"), "a.txt");
        assert_eq!(of("a", "evil.p/../hp"), "a");
        assert_eq!(of("..", "n"), "%2E.");
        let long = of(&"x".repeat(5000), "a.pdf");
        assert!(long.starts_with("sha256-") && long.ends_with(".pdf") && long.len() < 90);
    }
}

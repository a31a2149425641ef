//! Keeps short-lived credentials of a run across a crash: sealed on disk, under a key that is in memory only.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::kind::Vault;

/// The length of a key, in bytes.
const KEY: usize = 32;

/// The vault of one run. Values are sealed with AES-256-GCM in the state directory; the key is in a folder that the machine keeps in
/// memory, for this user only. So a restarted process can read them, and neither a copy of the state directory nor a restarted machine
/// can. Where there is no such folder, nothing is kept.
pub struct SealedVault {
    run: String,
    sealed: PathBuf,
    key: Option<PathBuf>,
    writing: Mutex<()>,
}

impl SealedVault {
    /// The vault of this run. Nothing is written before something is kept.
    pub fn for_run(state_dir: &Path, run_id: &str) -> Self {
        Self::in_folder(runtime_folder(), state_dir, run_id)
    }

    fn in_folder(folder: Option<PathBuf>, state_dir: &Path, run_id: &str) -> Self {
        let key = folder.filter(|_| safe(run_id)).map(|folder| folder.join(format!("{run_id}.key")));
        let sealed = state_dir.join("sealed").join(if safe(run_id) { run_id } else { "none" });
        Self { run: run_id.to_owned(), sealed, key, writing: Mutex::new(()) }
    }

    /// Removes the key and everything kept under it: the run has ended.
    pub fn forget(&self) -> io::Result<()> {
        let Some(key) = &self.key else { return Ok(()) };
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        // The key first: without it the rest is noise.
        for path in [key, &self.sealed] {
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    fn about(&self, name: &str) -> Aad<Vec<u8>> {
        Aad::from([self.run.as_bytes(), b"\0", name.as_bytes()].concat())
    }

    fn read(&self) -> BTreeMap<String, String> {
        let text = fs::read(&self.sealed).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }

    fn write(&self, values: &BTreeMap<String, String>) -> io::Result<()> {
        let folder = self.sealed.parent().ok_or(io::ErrorKind::InvalidInput)?;
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let beside = folder.join(format!(".{}.part", self.run));
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
        file.write_all(&serde_json::to_vec(values)?)?;
        file.sync_all()?;
        fs::rename(&beside, &self.sealed)
    }

    fn seal(&self, name: &str, value: &str) -> io::Result<()> {
        let Some(path) = &self.key else { return Ok(()) };
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut values = self.read();
        if value.is_empty() {
            values.remove(name);
            return self.write(&values);
        }
        let key = match read_key(path) {
            Some(key) => key,
            None => new_key(path)?,
        };
        let mut bytes = value.as_bytes().to_vec();
        let nonce = cipher(&key)
            .and_then(|cipher| cipher.seal_in_place_append_tag(self.about(name), &mut bytes).ok())
            .ok_or_else(|| io::Error::other("sealing failed"))?;
        bytes.splice(0..0, nonce.as_ref().iter().copied());
        values.insert(name.to_owned(), STANDARD.encode(bytes));
        self.write(&values)
    }

    fn unseal(&self, name: &str) -> Option<String> {
        let key = read_key(self.key.as_ref()?)?;
        let mut bytes = STANDARD.decode(self.read().get(name)?).ok()?;
        let sealed = bytes.split_off(NONCE_LEN.min(bytes.len()));
        let nonce = Nonce::try_assume_unique_for_key(&bytes).ok()?;
        let mut sealed = sealed;
        let opened = cipher(&key)?.open_in_place(nonce, self.about(name), &mut sealed).ok()?;
        String::from_utf8(opened.to_vec()).ok()
    }
}

impl Vault for SealedVault {
    fn keep(&self, name: &str, value: &str) {
        if let Err(error) = self.seal(name, value) {
            // Losing an entry is allowed: the connection obtains another one.
            tracing::debug!(name, %error, "nothing is kept");
        }
    }

    fn get(&self, name: &str) -> Option<String> {
        self.unseal(name)
    }
}

fn cipher(key: &[u8; KEY]) -> Option<RandomizedNonceKey> {
    RandomizedNonceKey::new(&AES_256_GCM, key).ok()
}

/// Whether a run's id may be a file name.
fn safe(run_id: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (1..=128).contains(&run_id.len()) && !run_id.starts_with('.') && run_id.bytes().all(plain)
}

fn read_key(path: &Path) -> Option<[u8; KEY]> {
    let flags = rustix::fs::OFlags::NOFOLLOW.bits();
    let mut file = OpenOptions::new().read(true).custom_flags(i32::try_from(flags).ok()?).open(path).ok()?;
    if !private(&file.metadata().ok()?) {
        return None;
    }
    let mut key = Vec::new();
    file.read_to_end(&mut key).ok()?;
    key.try_into().ok()
}

fn new_key(path: &Path) -> io::Result<[u8; KEY]> {
    // What is there is no key of ours, or it would have been read.
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut key = [0; KEY];
    getrandom::fill(&mut key).map_err(|error| io::Error::other(error.to_string()))?;
    let mut file: File = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(&key)?;
    Ok(key)
}

/// Whether only this user can reach it.
fn private(meta: &fs::Metadata) -> bool {
    meta.uid() == rustix::process::getuid().as_raw() && meta.mode() & 0o077 == 0
}

/// A folder of this user alone on a file system that is in memory, if there is one.
fn runtime_folder() -> Option<PathBuf> {
    let uid = rustix::process::getuid().as_raw();
    let named = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|path| path.is_absolute());
    let places = [named, Some(PathBuf::from(format!("/run/user/{uid}"))), Some(PathBuf::from("/dev/shm"))];
    places.into_iter().flatten().filter(|place| in_memory(place)).find_map(|place| own_folder(&place, uid))
}

fn own_folder(place: &Path, uid: u32) -> Option<PathBuf> {
    let folder = place.join(format!("runbook-{uid}"));
    match DirBuilder::new().mode(0o700).create(&folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return None,
        _ => {}
    }
    // The place may be open to everybody, so somebody else may have made it, or a link of that name.
    let meta = fs::symlink_metadata(&folder).ok()?;
    (meta.is_dir() && private(&meta)).then_some(folder)
}

#[cfg(target_os = "linux")]
fn in_memory(place: &Path) -> bool {
    const TMPFS: i128 = 0x0102_1994;
    const RAMFS: i128 = 0x8584_58f6;
    rustix::fs::statfs(place).is_ok_and(|found| [TMPFS, RAMFS].contains(&i128::from(found.f_type)))
}

#[cfg(not(target_os = "linux"))]
fn in_memory(_: &Path) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn vault(runtime: &Path, state: &Path, run: &str) -> SealedVault {
        let folder = own_folder(runtime, rustix::process::getuid().as_raw()).unwrap();
        SealedVault::in_folder(Some(folder), state, run)
    }

    fn files(folder: &Path) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
        }
        found
    }

    #[test]
    fn what_is_kept_is_found_by_the_same_run_only() {
        let (runtime, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (runtime, state) = (runtime.path(), state.path());
        vault(runtime, state, "run-1").keep("session:a", "top secret");
        vault(runtime, state, "run-1").keep("session:b", "other");
        let again = vault(runtime, state, "run-1");
        assert_eq!(again.get("session:a").as_deref(), Some("top secret"));
        assert_eq!(again.get("session:b").as_deref(), Some("other"));
        assert_eq!(again.get("session:c"), None);
        for path in files(state) {
            assert!(!fs::read(&path).unwrap().windows(10).any(|bytes| bytes == b"top secret"));
            assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
        }

        // Neither another run nor another name opens what is sealed.
        fs::copy(state.join("sealed/run-1"), state.join("sealed/run-2")).unwrap();
        let folder = runtime.join(format!("runbook-{}", rustix::process::getuid().as_raw()));
        fs::copy(folder.join("run-1.key"), folder.join("run-2.key")).unwrap();
        assert_eq!(vault(runtime, state, "run-2").get("session:a"), None);
        let swapped =
            fs::read_to_string(state.join("sealed/run-1")).unwrap().replace("session:a", "session:x");
        fs::write(state.join("sealed/run-1"), swapped).unwrap();
        assert_eq!(again.get("session:x"), None);

        again.keep("session:b", "");
        assert_eq!(again.get("session:b"), None);
        again.keep("session:b", "more");
        again.forget().unwrap();
        again.forget().unwrap();
        assert_eq!(vault(runtime, state, "run-1").get("session:b"), None);
        assert!(files(folder.as_path()).iter().all(|path| !path.ends_with("run-1.key")));
    }

    #[test]
    fn without_the_key_nothing_is_readable() {
        let (runtime, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let kept = vault(runtime.path(), state.path(), "run-1");
        kept.keep("a", "b");
        fs::remove_file(kept.key.as_ref().unwrap()).unwrap();
        assert_eq!(kept.get("a"), None);
        let none = SealedVault::in_folder(None, state.path(), "run-3");
        none.keep("a", "b");
        assert_eq!(none.get("a"), None);
        assert!(!state.path().join("sealed/run-3").exists());
    }

    #[test]
    fn folders_of_others_and_strange_ids_are_refused() {
        let runtime = tempfile::tempdir().unwrap();
        let uid = rustix::process::getuid().as_raw();
        fs::create_dir(runtime.path().join(format!("runbook-{uid}"))).unwrap();
        let open = fs::Permissions::from_mode(0o755);
        fs::set_permissions(runtime.path().join(format!("runbook-{uid}")), open).unwrap();
        assert_eq!(own_folder(runtime.path(), uid), None);
        for id in ["", "..", "a/b", ".x", "a\0"] {
            assert!(!safe(id), "{id:?}");
        }
        assert!(safe("20261121-0259-chatkit_1"));
    }
}

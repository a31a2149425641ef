//! Extended attributes of a file, access lists among them, which a file that takes its place has to have too.

use std::fs::File;
use std::io;
use std::path::Path;

use rustix::fs::{XattrFlags, fgetxattr, flistxattr, fsetxattr};
use rustix::io::Errno;

/// The largest list of names, and the largest value, that Linux keeps, in bytes.
const LARGEST: usize = 64 * 1024;

/// Gives `to` every extended attribute of the file at `from`; an error names the one that could not be kept.
pub(super) fn copy(from: &Path, to: &File) -> io::Result<()> {
    let from = File::open(from)?;
    for name in names(&from)? {
        let kept = value(&from, &name).and_then(|value| {
            // What the system gave the new file by itself need not be set, which may not be allowed.
            if self::value(to, &name).is_ok_and(|present| present == value) {
                return Ok(());
            }
            fsetxattr(to, &*name, &value, XattrFlags::empty())
        });
        if let Err(errno) = kept {
            let error = io::Error::from(errno);
            return Err(io::Error::new(
                error.kind(),
                format!("its extended attribute `{name}` can not be kept: {error}"),
            ));
        }
    }
    Ok(())
}

fn names(file: &File) -> io::Result<Vec<String>> {
    let mut list = vec![0; LARGEST];
    match flistxattr(file, &mut list[..]) {
        Ok(length) => {
            let names = list[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty());
            Ok(names.map(|name| String::from_utf8_lossy(name).into_owned()).collect())
        }
        Err(Errno::NOTSUP) => Ok(Vec::new()),
        Err(errno) => Err(errno.into()),
    }
}

fn value(file: &File, name: &str) -> rustix::io::Result<Vec<u8>> {
    let mut value = vec![0; LARGEST];
    let length = fgetxattr(file, name, &mut value[..])?;
    value.truncate(length);
    Ok(value)
}

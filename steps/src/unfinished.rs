//! Names of files that are not finished yet. Such a name proves itself: nobody's own file has one by chance, so what bears it may be left out
//! of a listing, and removed when nobody writes it any more.

use crate::digest::sha256;

/// How many hex digits the mark has, and the proof.
const DIGITS: usize = 16;

/// The most characters of the name that the file is to have: the longest name most file systems take is 255 bytes.
const KEPT: usize = 50;

/// Who takes away what was left unfinished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Of {
    /// The next one who writes into the folder, unless somebody has it locked.
    Folder,
    /// The step that began it, which finds it by its mark.
    Step,
}

impl Of {
    fn word(self) -> &'static str {
        match self {
            Self::Folder => "folder",
            Self::Step => "step",
        }
    }
}

/// The name of what is to become the file `own`: `.OWN.MARKPROOF.part`. The mark is hex, and its first 16 digits count.
pub(crate) fn name(own: &str, mark: &str, of: Of) -> String {
    let own: String = own.chars().take(KEPT).collect();
    let mark: String = mark.chars().take(DIGITS).collect();
    let proof = proof(&own, &mark, of);
    format!(".{own}.{mark}{proof}.part")
}

/// Whose a file of this name is; nothing when it is no such name.
pub(crate) fn of(name: &str) -> Option<Of> {
    let (own, digits) = name.strip_prefix('.')?.strip_suffix(".part")?.rsplit_once('.')?;
    let (mark, said) = digits.split_at_checked(DIGITS)?;
    [Of::Folder, Of::Step].into_iter().find(|of| said == proof(own, mark, *of))
}

fn proof(own: &str, mark: &str, of: Of) -> String {
    let mut digest = sha256(format!("runbook: unfinished, of the {}: {mark} {own}", of.word()).as_bytes());
    digest.truncate(DIGITS);
    digest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_proves_itself_and_no_other_does() {
        let mark = "0123456789abcdef";
        for (own, whose) in [("a.txt", Of::Folder), ("ü", Of::Step), (&*"n".repeat(255), Of::Folder)] {
            let name = name(own, mark, whose);
            assert!(name.len() <= 255 && name.ends_with(".part"), "{name}");
            assert_eq!(of(&name), Some(whose), "{name}");
        }
        let ours = name("a.txt", mark, Of::Folder);
        for other in [
            ".a.txt.part".to_owned(),
            ".part".to_owned(),
            "..part".to_owned(),
            format!(".a.txt.{mark}.part"),
            format!(".a.txt.{mark}{mark}.part"),
            ours.replace("a.txt", "b.txt"),
            ours.replace("0123", "1123"),
            ours.trim_start_matches('.').to_owned(),
            format!("{ours}~"),
        ] {
            assert_eq!(of(&other), None, "{other}");
        }
    }
}

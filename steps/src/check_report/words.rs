//! The words that reports have for how something went.

/// How something went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Says {
    /// It passed.
    Pass,
    /// It was left out.
    Skipped,
    /// It did not pass, or nobody knows.
    Otherwise,
}

const PASS: &[&str] = &["PASS", "PASSED", "GO", "OK", "SUCCESS", "SUCCESSFUL", "SUCCEEDED"];

const SKIPPED: &[&str] = &["SKIP", "SKIPPED"];

const OTHERWISE: &[&str] = &[
    "FAIL",
    "FAILED",
    "FAILURE",
    "FAILS",
    "ERROR",
    "ERRORED",
    "HOLD",
    "NO_GO",
    "NOGO",
    "NOT_OK",
    "KO",
    "DRY_RUN",
    "TIMEOUT",
    "TIMED_OUT",
    "CANCELLED",
    "CANCELED",
    "ABORTED",
    "BLOCKED",
    "PENDING",
    "RUNNING",
    "IN_PROGRESS",
    "NOT_RUN",
    "UNKNOWN",
    "INCONCLUSIVE",
    "UNSTABLE",
    "WARN",
    "WARNING",
    "CRITICAL",
    "REJECTED",
    "DENIED",
    "DEGRADED",
];

/// The fields and columns that give a verdict, by how they are written without case and what separates words.
const VERDICTS: &[&str] = &[
    "status",
    "overallresult",
    "overallstatus",
    "overall",
    "finalresult",
    "finalstatus",
    "result",
    "verdict",
    "decision",
    "outcome",
    "conclusion",
];

/// What else a column may be called that gives one.
const COLUMNS: &[&str] = &["actual", "pass/fail", "passfail", "passed", "pass", "ok", "success"];

/// What a member of JSON is called that tells by yes and no.
const FLAGS: &[&str] = &["passed", "ok", "success", "successful", "succeeded"];

/// A field's name without case and what separates words.
pub fn plain(name: &str) -> String {
    name.chars().filter(|c| !matches!(c, ' ' | '-' | '_' | '*' | '`')).flat_map(char::to_lowercase).collect()
}

/// Whether a field of this plain name gives a verdict.
pub fn is_verdict(plain: &str) -> bool {
    VERDICTS.contains(&plain)
}

/// Whether a column of this plain name does.
pub fn is_verdict_column(plain: &str) -> bool {
    is_verdict(plain) || COLUMNS.contains(&plain)
}

/// Whether a yes or no under this plain name is one.
pub fn is_flag(plain: &str) -> bool {
    FLAGS.contains(&plain)
}

/// What a text says of how something went, when that is all it says or what it begins with in capitals. A sign before the word is none.
pub fn says(text: &str) -> Option<Says> {
    let known = |word: &str| {
        let word = word.to_uppercase().replace([' ', '-'], "_");
        let all = [(PASS, Says::Pass), (SKIPPED, Says::Skipped), (OTHERWISE, Says::Otherwise)];
        all.into_iter().find(|(words, _)| words.contains(&word.as_str())).map(|(_, says)| says)
    };
    let bare = text.trim_matches(|c: char| !c.is_alphanumeric());
    let first = bare.split(|c: char| !c.is_alphanumeric() && c != '_' && c != '-').next().unwrap_or_default();
    let loud = known(first).filter(|says| *says != Says::Pass && first == first.to_uppercase());
    let sign = || text.contains(['❌', '✗', '✘', '⛔', '🔴']).then_some(Says::Otherwise);
    // A sign of failure beside a word that passes is no pass.
    sign().or_else(|| known(bare)).or(loud)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_known_however_they_are_written() {
        for text in ["PASS", "Passed", "✅ PASS", "ok", "go", "**Success**"] {
            assert_eq!(says(text), Some(Says::Pass), "{text}");
        }
        for text in [
            "FAIL",
            "Fail",
            "FAILED",
            "❌ FAIL",
            "❌",
            "no-go",
            "NO GO",
            "dry-run",
            "Timed out",
            "FAIL (2 of 3)",
            "HOLD",
        ] {
            assert_eq!(says(text), Some(Says::Otherwise), "{text}");
        }
        assert_eq!(says("Skipped"), Some(Says::Skipped));
        for text in
            ["", "307", "12s", "error in the beginning", "PASS (2 of 3 failed)", "chat/staging/", "true"]
        {
            assert_eq!(says(text), None, "{text}");
        }
    }
}

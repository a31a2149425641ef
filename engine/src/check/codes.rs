//! The stable codes of the author's mistakes. Each has a page in `docs/errors`; a code is never given a second meaning.

macro_rules! codes {
    ($($(#[doc = $doc:literal])+ $name:ident = $code:literal;)+) => {
        $($(#[doc = $doc])+ pub const $name: &str = $code;)+
        /// Every code.
        pub const CODES: &[&str] = &[$($code),+];
        /// The page of each code, in the same order.
        const PAGES: &[&str] = &[$(include_str!(concat!("../../../docs/errors/", $code, ".md"))),+];
    };
}

codes! {
    /// The file is no YAML.
    SYNTAX = "RB0101";
    /// A key is there twice.
    DUPLICATE_KEY = "RB0102";
    /// An alias names no anchor, or the value it stands in.
    ALIAS = "RB0103";
    /// The file is too large or nested too deep.
    TOO_LARGE = "RB0104";
    /// The file holds no document or more than one.
    DOCUMENTS = "RB0105";
    /// A tag that means nothing.
    TAG = "RB0106";
    /// A key that is no text.
    KEY = "RB0107";
    /// `<<` with something else than maps.
    MERGE = "RB0108";
    /// A number that is read otherwise than it looks, or cannot be held.
    NUMBER = "RB0109";
    /// A character that nobody sees, or that no text can hold.
    CHARACTER = "RB0110";
    /// A key the language does not have.
    UNKNOWN_KEY = "RB0201";
    /// A key that must be there.
    MISSING_KEY = "RB0202";
    /// A value of the wrong type or outside of what is allowed.
    VALUE = "RB0203";
    /// A name in the wrong form.
    NAME = "RB0204";
    /// A declaration of an input that makes no sense.
    INPUT = "RB0205";
    /// A default that breaks its input's own rules.
    DEFAULT = "RB0206";
    /// A waiver of no rule, or without a reason.
    WAIVER = "RB0207";
    /// A waiver of a rule that the step keeps.
    NEEDLESS_WAIVER = "RB0208";
    /// An expression that cannot be read.
    EXPRESSION = "RB0301";
    /// A filter, function or test that does not exist.
    FUNCTION = "RB0302";
    /// An expression begins with a name that means nothing.
    VARIABLE = "RB0303";
    /// No input has this name.
    UNKNOWN_INPUT = "RB0304";
    /// No secret has this name.
    UNKNOWN_SECRET = "RB0305";
    /// No step has this id.
    UNKNOWN_STEP = "RB0306";
    /// A step or a run has no such field or output.
    UNKNOWN_OUTPUT = "RB0307";
    /// The step has not run when the reference is evaluated.
    NOT_UPSTREAM = "RB0308";
    /// This kind of reference is not known where it stands.
    REFERENCE = "RB0309";
    /// A secret where it could leak.
    SECRET = "RB0310";
    /// An expression pasted into code of another language.
    CODE_FIELD = "RB0311";
    /// `{{ }}` without the `$`.
    BRACES = "RB0312";
    /// An expression on inputs that has no value.
    EVALUATION = "RB0313";
    /// What an expression comes to does not fit where it stands.
    TYPE = "RB0314";
    /// What should be a secret is written out.
    WRITTEN_SECRET = "RB0315";
    /// A step of which the outputs are used may have none.
    NO_OUTPUTS = "RB0316";
    /// A comparison with what a value never is.
    NEVER_EQUAL = "RB0317";
    /// A step, connection or collection kind that does not exist.
    KIND = "RB0401";
    /// A setting that its kind refuses.
    SETTING = "RB0402";
    /// `needs` names no step.
    UNKNOWN_NEED = "RB0403";
    /// Two steps have one id.
    DUPLICATE_ID = "RB0404";
    /// Steps need each other in a circle.
    CYCLE = "RB0405";
    /// No connection has this name.
    UNKNOWN_CONNECTION = "RB0406";
    /// Declared and never used.
    UNUSED = "RB0407";
    /// `needs` goes from `steps` to `finally` or back.
    FINALLY_NEED = "RB0408";
    /// Something is destroyed without a snapshot.
    SNAPSHOT_FIRST = "RB0501";
    /// Something is destroyed without a person's consent.
    CONFIRM_FIRST = "RB0502";
    /// A freeze that no step lifts.
    UNFREEZE_AFTER = "RB0503";
    /// Something is destroyed without a limit.
    LIMIT = "RB0504";
    /// Something is destroyed of which the limit can not tell how much it is.
    UNCOUNTED = "RB0505";
    /// Nothing looks at what was destroyed.
    VERIFY_AFTER = "RB0506";
    /// Nobody says what a step does, in a runbook for production.
    UNDECLARED = "RB0507";
    /// A step that never runs.
    UNREACHABLE = "RB0508";
    /// A step needs what a freeze still refuses.
    HELD = "RB0509";
    /// An `unfreeze` of something that was not frozen before.
    UNFREEZE_WHAT = "RB0510";
    /// Items are destroyed or changed of a collection where that can not be done.
    ONLY_READ = "RB0511";
    /// Something is to be unchanged since what is no backup.
    UNCHANGED_SINCE = "RB0512";
    /// A freeze among the final steps.
    FREEZE_IN_FINALLY = "RB0513";
    /// An `unfreeze` among the final steps that fails when all went well.
    UNFREEZE_IN_FINALLY = "RB0514";
    /// A freeze is lifted beside a step that stands on it.
    UNFREEZE_BESIDE = "RB0515";
    /// A step runs although the freeze that it stands on may not be in force.
    FREEZE_FIRST = "RB0516";
}

/// The rules a step may waive with a reason.
pub const WAIVABLE: &[&str] = &[
    SNAPSHOT_FIRST,
    CONFIRM_FIRST,
    UNFREEZE_AFTER,
    LIMIT,
    UNCOUNTED,
    VERIFY_AFTER,
    UNDECLARED,
    UNREACHABLE,
    HELD,
    FREEZE_FIRST,
];

/// The page of a code in Markdown: what it means, why, a wrong and a right example.
pub fn page(code: &str) -> Option<&'static str> {
    CODES.iter().position(|known| *known == code).map(|at| PAGES[at])
}

/// What a code means, in a few words; empty for one that does not exist.
pub fn title(code: &str) -> &'static str {
    let first = page(code).and_then(|page| page.lines().next()).unwrap_or_default();
    first.split_once(": ").map_or("", |(_, title)| title)
}

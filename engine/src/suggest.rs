//! "Did you mean": the closest of some names.

/// Among so many names the closest is looked for: who writes thousands of names may make as many mistakes.
const LOOKED_AT: usize = 200;
/// A longer name is no slip of another, in bytes.
const LONGEST: usize = 100;
/// So many names are listed.
const LISTED: usize = 50;

/// The name closest to what was written, when one is close enough to be meant.
pub fn closest<'a>(written: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if written.len() > LONGEST {
        return None;
    }
    let plain = normal(written);
    names
        .into_iter()
        .take(LOOKED_AT)
        .filter(|name| name.len() <= LONGEST)
        .map(|name| {
            let other = normal(name);
            let score = if plain == other { 1.0 } else { strsim::jaro_winkler(&plain, &other) };
            (score, name)
        })
        .filter(|(score, _)| *score > 0.8)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, name)| name)
}

/// The sentence that names it.
pub fn did_you_mean<'a>(written: &str, names: impl IntoIterator<Item = &'a str>) -> Option<String> {
    closest(written, names).map(|name| format!("did you mean `{name}`?"))
}

/// The names in their order, quoted, with commas; of very many the first.
pub fn listed<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let mut names = names.into_iter();
    let mut shown: Vec<String> = names.by_ref().take(LISTED).map(|name| format!("`{name}`")).collect();
    if names.next().is_some() {
        shown.push("…".to_owned());
    }
    shown.join(", ")
}

/// Case and word breaks are not what tells two names apart.
fn normal(name: &str) -> String {
    name.chars().filter(|c| !matches!(c, '_' | '-' | ' ')).flat_map(char::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_was_meant_and_nothing_far() {
        let names = ["needs", "uses", "with", "timeout"];
        assert_eq!(closest("neds", names), Some("needs"));
        assert_eq!(closest("TimeOut", names), Some("timeout"));
        assert_eq!(closest("foo", names), None);
        let long = "a".repeat(1_000_000);
        assert_eq!(closest(&long, [long.as_str()]), None);
    }

    #[test]
    fn very_many_names_are_not_all_listed() {
        assert_eq!(listed(["a", "b"]), "`a`, `b`");
        let many = listed(std::iter::repeat_n("a", 51));
        assert_eq!((many.matches("`a`").count(), many.ends_with(", …")), (50, true));
    }
}

//! "Did you mean": the closest of some names.

/// The name closest to what was written, when one is close enough to be meant.
pub fn closest<'a>(written: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let plain = normal(written);
    names
        .into_iter()
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

/// The names in their order, quoted, with commas.
pub fn listed<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    names.into_iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
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
    }
}

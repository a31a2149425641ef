//! What `runbook new` writes: one runbook a kind of procedure, with places for what differs.

/// A runbook with places to fill.
pub struct Template {
    /// Its name, kebab-case.
    pub name: &'static str,
    /// What it is for, in one line.
    pub summary: &'static str,
    /// What its runbook says of itself when the author says nothing.
    pub description: &'static str,
    /// Its text, in which `@KEY@` is a place.
    text: &'static str,
    /// What is asked.
    pub fields: &'static [Field],
}

/// Something that differs from runbook to runbook.
#[derive(Clone, Copy)]
pub struct Field {
    /// Its name in `--set KEY=VALUE`.
    pub key: &'static str,
    /// What it is, as a question.
    pub question: &'static str,
    /// What it is when nobody says.
    pub default: &'static str,
}

const PHRASE: Field =
    Field { key: "phrase", question: "The phrase that confirms it", default: "DELETE THEM" };
const URL: Field =
    Field { key: "url", question: "Where the service answers", default: "http://127.0.0.1:8080" };
const HEALTH: Field = Field { key: "health", question: "The path that tells its health", default: "/health" };

/// Every template.
pub const TEMPLATES: &[Template] = &[
    Template {
        name: "empty",
        summary: "one step and a report to begin with",
        description: "Says hello.",
        text: include_str!("templates/empty.yaml"),
        fields: &[],
    },
    Template {
        name: "clean-up",
        summary: "delete files: copied first, confirmed",
        description: "Deletes files of a folder after copying them.",
        text: include_str!("templates/clean-up.yaml"),
        fields: &[Field { key: "pattern", question: "Which files, as a pattern", default: "*.log" }, PHRASE],
    },
    Template {
        name: "purge-documents",
        summary: "delete documents: saved first, confirmed",
        description: "Deletes every document of a collection after saving it.",
        text: include_str!("templates/purge-documents.yaml"),
        fields: &[
            Field { key: "url", question: "Where FountainStore answers", default: "http://127.0.0.1:8005" },
            Field { key: "corpus", question: "The corpus", default: "chatkit" },
            Field { key: "collection", question: "The collection in it", default: "attachments" },
            Field { key: "key", question: "The field that names a document", default: "id" },
            PHRASE,
        ],
    },
    Template {
        name: "maintenance",
        summary: "freeze a service, work on it, lift it again",
        description: "Freezes a service for the time of its maintenance.",
        text: include_str!("templates/maintenance.yaml"),
        fields: &[
            URL,
            HEALTH,
            Field { key: "service", question: "Its name for `systemctl restart`", default: "my-service" },
            Field { key: "variable", question: "The variable that freezes it", default: "READ_ONLY" },
            Field { key: "value", question: "The value that freezes it", default: "1" },
            Field { key: "phrase", question: "The phrase that confirms it", default: "FREEZE IT" },
        ],
    },
    Template {
        name: "health-check",
        summary: "does a service answer, well and in time?",
        description: "Looks whether a service is well.",
        text: include_str!("templates/health-check.yaml"),
        fields: &[URL, HEALTH],
    },
];

impl Template {
    /// The template of this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        TEMPLATES.iter().find(|template| template.name == name)
    }

    /// The runbook with every place filled: what `value` gives for a key, or the default.
    pub fn fill(&self, name: &str, description: &str, value: &dyn Fn(&str) -> Option<String>) -> String {
        let own = [("name", name), ("description", description), ("lock", name)];
        let mut text = self.text.to_owned();
        for (key, given) in own {
            text = text.replace(&format!("@{key}@"), &scalar(given));
        }
        for field in self.fields {
            let given = value(field.key).unwrap_or_else(|| field.default.to_owned());
            text = text.replace(&format!("@{}@", field.key), &scalar(&given));
        }
        text
    }
}

/// A text as YAML: as it is where that is safe, else in quotes.
fn scalar(text: &str) -> String {
    let begins = text.chars().next().is_some_and(|first| first.is_ascii_alphabetic());
    let plain = |c: char| c.is_ascii_alphanumeric() || " _./-".contains(c);
    let word = ["true", "false", "null"].contains(&text.to_ascii_lowercase().as_str());
    if begins && !word && text.chars().all(plain) && text.trim_end() == text {
        return text.to_owned();
    }
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use runbook_engine::compile::compile;
    use runbook_steps::catalog::CATALOG;

    use super::*;

    #[test]
    fn every_template_passes_the_check_without_a_warning() {
        for template in TEMPLATES {
            let text = template.fill("a-name", template.description, &|_| None);
            let (runbook, found) = compile(&text, &CATALOG);
            assert!(found.is_empty(), "{}: {found:#?}\n{text}", template.name);
            let runbook = runbook.unwrap();
            assert_eq!(
                (runbook.name.value.as_str(), runbook.description.as_str()),
                ("a-name", template.description)
            );
            assert!(!text.contains('@'), "{text}");
        }
    }

    #[test]
    fn what_an_author_types_stays_a_text_whatever_it_is() {
        let odd = [
            "yes: no",
            "\"quoted\" \\ 'text'",
            "true",
            "12",
            "# not a comment",
            "a, b]",
            "@name@ ü",
            "- x",
            "a b",
        ];
        for template in TEMPLATES.iter().filter(|template| template.name != "empty") {
            for typed in odd {
                let text = template.fill("a-name", typed, &|key| (key == "phrase").then(|| typed.to_owned()));
                let (runbook, found) = compile(&text, &CATALOG);
                let runbook = runbook.unwrap_or_else(|| panic!("{}: {typed}: {found:#?}", template.name));
                assert_eq!(runbook.description, typed);
                let prompts = runbook.steps.iter().filter(|step| step.id.value == "confirm");
                for prompt in prompts {
                    assert_eq!(prompt.with.value["phrases"][0], typed);
                }
            }
        }
    }
}

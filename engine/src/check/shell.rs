//! What of a command line is a script: the argument after `-c` of a shell.

use crate::document::{Kind, Node};

/// Programs whose `-c` takes a script.
const SHELLS: [&str; 8] = ["sh", "bash", "dash", "zsh", "ksh", "ash", "fish", "su"];

/// Whether the text at a JSON pointer below `root` is a script in a list such as `[sh, -c, script]`, also behind other programs
/// (`[sudo, bash, -ec, script]`).
pub(super) fn is_script(root: &Node, pointer: &str) -> bool {
    let Some((parent, at)) = pointer.rsplit_once('/') else { return false };
    let (Some(parent), Ok(at)) = (root.at(parent), at.parse::<usize>()) else { return false };
    let Kind::List(items) = &parent.kind else { return false };
    let words: Vec<&str> = items.iter().take(at).map(|item| item.as_str().unwrap_or_default()).collect();
    let shell = words.iter().position(|word| SHELLS.contains(&word.rsplit('/').next().unwrap_or_default()));
    shell.is_some_and(|shell| words.len() > shell + 1 && words.last().is_some_and(|flag| takes_script(flag)))
}

/// `-c`, also among others as in `-ec`.
fn takes_script(flag: &str) -> bool {
    flag.strip_prefix('-').is_some_and(|letters| !letters.starts_with('-') && letters.ends_with('c'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::parse;

    #[test]
    fn only_what_a_shell_interprets_is_a_script() {
        let script = |list: &str, at: usize| {
            let (root, _) = parse(&format!("argv: {list}"));
            is_script(&root.unwrap(), &format!("/argv/{at}"))
        };
        assert!(script("[sh, -c, 'ls x', name, '$1']", 2));
        assert!(!script("[sh, -c, 'ls x', name, '$1']", 4), "arguments of the script are data");
        assert!(script("[sudo, /bin/bash, -ec, 'ls x']", 3));
        assert!(!script("[sh, run.sh, -c, x]", 1));
        assert!(!script("[grep, -c, x]", 2));
        assert!(!script("[bash, --rc, x]", 2));
    }
}

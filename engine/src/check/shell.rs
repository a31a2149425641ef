//! What of a command line is code of another language: the script of a shell, the statement of a database client.

use crate::document::{Kind, Node};

/// Programs whose `-c` takes a script, also among other letters as in `-ec`.
const SHELLS: [&str; 8] = ["sh", "bash", "dash", "zsh", "ksh", "ash", "fish", "su"];

/// Other programs, and the options after which code stands.
const INTERPRETERS: &[(&str, &[&str])] = &[
    ("python", &["-c"]),
    ("python2", &["-c"]),
    ("python3", &["-c"]),
    ("perl", &["-e", "-E", "-ne", "-pe"]),
    ("ruby", &["-e"]),
    ("node", &["-e", "--eval", "-p", "--print"]),
    ("php", &["-r"]),
    ("lua", &["-e"]),
    ("psql", &["-c", "--command"]),
    ("mysql", &["-e", "--execute"]),
    ("mariadb", &["-e", "--execute"]),
    ("mongo", &["--eval"]),
    ("mongosh", &["--eval"]),
    ("clickhouse-client", &["-q", "--query"]),
    ("cqlsh", &["-e", "--execute"]),
    ("powershell", &["-Command", "-c"]),
    ("pwsh", &["-Command", "-c"]),
];

/// Programs whose first argument that is no option is code.
const FIRST: [&str; 6] = ["awk", "gawk", "mawk", "sed", "jq", "yq"];

/// Programs that run the program after them.
const WRAPPERS: [&str; 9] = ["sudo", "doas", "env", "nice", "nohup", "time", "xargs", "exec", "--"];

/// Options of `ssh` that take a value.
const SSH_VALUES: &str = "BbcDEeFIiJLlmOopQRSWw";

/// Whether the text at a JSON pointer below `root` is code in a list such as `[sh, -c, script]`, also behind other programs
/// (`[sudo, bash, -ec, script]`, `[ssh, host, command]`).
pub(super) fn is_script(root: &Node, pointer: &str) -> bool {
    let Some((parent, at)) = pointer.rsplit_once('/') else { return false };
    let (Some(parent), Ok(at)) = (root.at(parent), at.parse::<usize>()) else { return false };
    let Kind::List(items) = &parent.kind else { return false };
    let word = |at: usize| items.get(at).and_then(|item| item.as_str()).unwrap_or_default();
    let words: Vec<&str> = (0..at).map(word).collect();
    (0..words.len()).any(|program| {
        let name = words[program].rsplit('/').next().unwrap_or_default();
        let runs = program
            .checked_sub(1)
            .is_none_or(|before| WRAPPERS.contains(&words[before]) || words[before].contains('='));
        is_code(name, runs, &words[program + 1..], word(at))
    })
}

/// Whether an argument is code, by the name of a program, whether that is surely run, the arguments before this one and itself.
fn is_code(program: &str, runs: bool, before: &[&str], own: &str) -> bool {
    let last = before.last().copied().unwrap_or_default();
    if SHELLS.contains(&program) {
        return takes_script(last);
    }
    if let Some((_, options)) = INTERPRETERS.iter().find(|(name, _)| *name == program) {
        let joined = |option: &&str| option.starts_with("--") && own.starts_with(&format!("{option}="));
        return options.contains(&last) || options.iter().any(joined);
    }
    if runs && FIRST.contains(&program) {
        let plain = |word: &&str| {
            word.starts_with('-') && !word.starts_with("--") && !matches!(*word, "-v" | "-F" | "-f")
        };
        return before.iter().all(plain);
    }
    runs && program == "ssh" && beyond_host(before)
}

/// Whether the host of `ssh` stands among these arguments: what comes after it is read by a shell on that machine.
fn beyond_host(before: &[&str]) -> bool {
    let mut words = before.iter();
    while let Some(word) = words.next() {
        let Some(option) = word.strip_prefix('-') else { return true };
        if option.len() == 1 && SSH_VALUES.contains(option) {
            words.next();
        }
    }
    false
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
        assert!(script("[psql, -h, db, -c, 'select 1']", 4) && script("[psql, '--command=select 1']", 1));
        assert!(!script("[psql, -h, db]", 2), "a host is data");
        assert!(script("[ssh, -p, 22, host, ls, x]", 5) && !script("[ssh, -p, 22, host]", 3));
        assert!(script("[jq, -r, .a, file]", 2) && !script("[jq, -r, .a, file]", 3));
        assert!(!script("[apt, install, jq, x]", 3) && !script("[awk, -v, x=1, 'code']", 2));
        assert!(script("[kubectl, exec, pod, --, python3, -c, 'x']", 6));
        assert!(!script("[bash, --rc, x]", 2));
    }
}

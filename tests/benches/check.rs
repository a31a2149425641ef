//! What a check costs beside what reading the same text costs: `cargo bench --bench check`. The floor is `serde_yaml`, which reads the text
//! into values without spans and checks nothing of them; both are measured in turns within one run, and the least of each counts.

use std::fmt::Write as _;
use std::hint::black_box;
use std::time::{Duration, Instant};

use runbook_engine::compile::compile;
use runbook_steps::catalog::CATALOG;

/// How many times each is done.
const ROUNDS: usize = 7;

/// How many steps the graphs have.
const STEPS: usize = 10_000;

/// How large the large file is, in bytes.
const LARGE: usize = 5_000_000;

fn step(id: &str, needs: &str, word: &str) -> String {
    format!(
        "  - {{ id: {id}, {needs}uses: command, with: {{ argv: [echo, \"{word}\"], effect: {{ class: read, repeat: repeatable }} }} }}\n"
    )
}

fn output_of(at: usize) -> String {
    format!("${{{{ steps.s{at}.outputs.exit_code }}}}")
}

/// Steps one after the other, each with an output of the one before it.
fn chain() -> String {
    let mut text = String::from("runbook: chain\nsteps:\n");
    for at in 0..STEPS {
        let word = at.checked_sub(1).map_or("a".to_owned(), output_of);
        text.push_str(&step(&format!("s{at}"), "", &word));
    }
    text
}

/// Steps one after the other, each with an output of the one half way back.
fn far() -> String {
    let mut text = String::from("runbook: far\nsteps:\n");
    for at in 0..STEPS {
        let word = if at == 0 { "a".to_owned() } else { output_of(at / 2) };
        text.push_str(&step(&format!("s{at}"), "", &word));
    }
    text
}

/// A hundred layers of a hundred steps, each of which needs three of the layer before, spread out.
fn layers() -> String {
    let mut text = String::from("runbook: layers\nsteps:\n");
    for at in 0..STEPS {
        let Some(layer) = (at / 100).checked_sub(1) else {
            text.push_str(&step(&format!("s{at}"), "needs: [], ", "a"));
            continue;
        };
        let above = [7, 31, 53].map(|stride| layer * 100 + at * stride % 100);
        let needs = format!("needs: [s{}, s{}, s{}], ", above[0], above[1], above[2]);
        text.push_str(&step(&format!("s{at}"), &needs, &output_of(above[0])));
    }
    text
}

/// Steps side by side, and one that needs all of them.
fn fan() -> String {
    let mut text = String::from("runbook: fan\nsteps:\n");
    for at in 0..STEPS {
        text.push_str(&step(&format!("s{at}"), "needs: [], ", "a"));
    }
    let all: Vec<String> = (0..STEPS).map(|at| format!("s{at}")).collect();
    text.push_str(&step("last", &format!("needs: [{}], ", all.join(", ")), "a"));
    text
}

/// A large file: few steps with long texts.
fn large() -> String {
    let mut text = String::from("runbook: large\nsteps:\n");
    let mut at = 0;
    while text.len() < LARGE {
        let words = "Lorem ipsum dolor sit amet, consectetur. ".repeat(30);
        writeln!(text, "  - id: s{at}\n    name: {words}\n    uses: command\n    with:\n      argv:\n        - echo\n        - {words}\n      effect: {{ class: read, repeat: repeatable }}").unwrap();
        at += 1;
    }
    text
}

/// A large file of texts in quotes, thousands of steps one after the other.
fn quoted() -> String {
    let mut text = String::from("runbook: quoted\nsteps:\n");
    let mut at = 0;
    while text.len() < LARGE {
        let words = "Lorem ipsum dolor sit amet, consectetur. ".repeat(25);
        writeln!(text, "  - id: s{at}\n    uses: command\n    with:\n      argv: [echo, \"{words}\"]\n      env: {{ RUN: \"${{{{ run.id }}}}\" }}\n      effect: {{ class: read, repeat: repeatable }}").unwrap();
        at += 1;
    }
    text
}

/// Makes the text of a case.
type Make = fn() -> String;

fn once(what: impl FnOnce()) -> Duration {
    let begun = Instant::now();
    what();
    begun.elapsed()
}

fn main() {
    println!("{:<10} {:>8} {:>12} {:>12} {:>8}", "", "size", "serde_yaml", "check", "times");
    let cases: [(&str, Make); 6] = [
        ("chain", chain),
        ("far", far),
        ("layers", layers),
        ("fan", fan),
        ("large", large),
        ("quoted", quoted),
    ];
    for (name, make) in cases {
        let text = make();
        let (runbook, found) = compile(&text, &CATALOG);
        assert!(runbook.is_some() && found.is_empty(), "{name}: {:?}", found.first());
        let (mut floor, mut checked) = (Duration::MAX, Duration::MAX);
        for _ in 0..ROUNDS {
            floor = floor.min(once(|| {
                black_box(serde_yaml::from_str::<serde_yaml::Value>(black_box(&text)).unwrap());
            }));
            checked = checked.min(once(|| {
                black_box(compile(black_box(&text), &CATALOG));
            }));
        }
        println!(
            "{name:<10} {:>5.1} MB {:>9.1} ms {:>9.1} ms {:>8.2}",
            text.len() as f64 / 1e6,
            floor.as_secs_f64() * 1e3,
            checked.as_secs_f64() * 1e3,
            checked.as_secs_f64() / floor.as_secs_f64(),
        );
    }
}

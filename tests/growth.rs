//! A check costs in proportion to what is checked: eight times the steps, keys or mistakes may not cost much more than eight times the
//! work. Growth is compared within one run, in the processor time of this thread, so that a slow or busy machine changes nothing.

use std::fmt::Write as _;
use std::fs;
use std::hint::black_box;

use runbook_engine::compile::compile;
use runbook_steps::catalog::CATALOG;

/// How much larger the larger one is.
const TIMES: usize = 8;
/// Work in proportion to size grows by 8, and its square by 64. In between there is room for caches, and none for a square.
const MOST: f64 = 24.0;

/// The processor time of this thread so far, in nanoseconds.
fn spent() -> u64 {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split_whitespace().next().unwrap().parse().unwrap()
}

/// The least of three: what disturbs only adds.
fn cost(text: &str) -> u64 {
    let once = || {
        let before = spent();
        black_box(compile(black_box(text), &CATALOG));
        spent() - before
    };
    (0..3).map(|_| once()).min().unwrap_or(0).max(1)
}

fn grows_in_proportion(what: &str, size: usize, text: impl Fn(usize) -> String) {
    let (small, large) = (cost(&text(size)), cost(&text(size * TIMES)));
    let factor = large as f64 / small as f64;
    assert!(
        factor < MOST,
        "{what}: {TIMES} times the size costs {factor:.1} times as much ({small} ns, {large} ns)"
    );
}

fn clean(text: &str) -> bool {
    compile(text, &CATALOG).1.is_empty()
}

const STEP: &str = "uses: command, with: { argv: [echo, a], effect: { class: read, repeat: repeatable } }";

/// Steps one after the other, each with what the one before it gave.
fn chain(steps: usize) -> String {
    let mut text = format!("runbook: chain\nsteps:\n  - {{ id: s0, {STEP} }}\n");
    for at in 1..steps {
        let before = at - 1;
        writeln!(
            text,
            "  - {{ id: s{at}, uses: command, with: {{ argv: [echo, \"${{{{ steps.s{before}.outputs.exit_code }}}}\"], effect: {{ class: read, repeat: repeatable }} }} }}"
        )
        .unwrap();
    }
    text
}

/// Steps one after the other, each with what one far before it gave.
fn far_references(steps: usize) -> String {
    let mut text = format!("runbook: far\nsteps:\n  - {{ id: s0, {STEP} }}\n");
    for at in 1..steps {
        let far = at / 2;
        writeln!(
            text,
            "  - {{ id: s{at}, uses: command, with: {{ argv: [echo, \"${{{{ steps.s{far}.outputs.exit_code }}}}\"], effect: {{ class: read, repeat: repeatable }} }} }}"
        )
        .unwrap();
    }
    text
}

/// Steps side by side, and one that needs all of them.
fn fan(steps: usize) -> String {
    let mut text = String::from("runbook: fan\nsteps:\n");
    for at in 0..steps {
        writeln!(text, "  - {{ id: s{at}, needs: [], {STEP} }}").unwrap();
    }
    let all: Vec<String> = (0..steps).map(|at| format!("s{at}")).collect();
    writeln!(text, "  - {{ id: last, needs: [{}], {STEP} }}", all.join(", ")).unwrap();
    text
}

/// Many keys in one map.
fn inputs(count: usize) -> String {
    let mut text = format!("runbook: inputs\nsteps: [{{ id: a, {STEP} }}]\ninputs:\n");
    for at in 0..count {
        writeln!(text, "  i{at}: {{ type: string, default: a, description: One of many. }}").unwrap();
    }
    text
}

/// Nothing but mistakes.
fn mistakes(count: usize) -> String {
    let mut text = String::from("runbook: mistakes\nsteps:\n");
    for at in 0..count {
        writeln!(
            text,
            "  - {{ id: s{at}, uses: comand, wiht: {{}}, needs: [nobody], if: \"${{{{ input.x }}}}\" }}"
        )
        .unwrap();
    }
    text
}

#[test]
fn a_chain_of_steps() {
    assert!(clean(&chain(50)));
    grows_in_proportion("a chain of steps", 200, chain);
}

#[test]
fn steps_that_refer_far_back() {
    assert!(clean(&far_references(50)));
    grows_in_proportion("far references", 200, far_references);
}

/// Ten times more than anybody writes, all in one chain: no recursion goes as deep.
#[test]
fn a_very_long_chain() {
    assert!(clean(&chain(10_000)));
}

#[test]
fn steps_side_by_side() {
    assert!(clean(&fan(50)));
    grows_in_proportion("steps side by side", 200, fan);
}

#[test]
fn keys_of_one_map() {
    assert!(clean(&inputs(50)));
    grows_in_proportion("the keys of a map", 500, inputs);
}

#[test]
fn mistakes_without_end() {
    let told = compile(&mistakes(1500), &CATALOG).1;
    assert_eq!(told.len(), 1001);
    assert!(told[1000].message.contains("more mistakes follow"), "{:?}", told[1000]);
    grows_in_proportion("mistakes", 200, mistakes);
}

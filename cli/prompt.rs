//! Asks the person at the terminal. Only when there is one: stdin and stderr are terminals, and this process is in the foreground.

mod keys;
mod line;

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use async_trait::async_trait;
use console::{Style, Term, measure_text_width};
use dialoguer::theme::{ColorfulTheme, SimpleTheme, Theme};
use runbook_engine::drive::People;
use runbook_engine::event::Question;
use runbook_engine::suggest::listed;
use rustix::termios::{self, OptionalActions, QueueSelector, Termios};

use crate::exit::Exit;
use crate::format;
use crate::report::describe::{bounded, one_line, wrap};
use crate::report::{STUCK, Views};
use crate::signals::Stopper;

use self::keys::Keys;
pub use self::line::Reply;

/// How often a phrase may be mistyped before the wrong one is taken for the answer.
const TRIES: u32 = 3;

static TERMINAL: OnceLock<Termios> = OnceLock::new();
static PROMPTED: AtomicBool = AtomicBool::new(false);

/// Remembers how the terminal is set, before anything changes it.
pub fn remember_terminal() {
    if let Ok(settings) = termios::tcgetattr(io::stdin()) {
        let _ = TERMINAL.set(settings);
    }
}

/// From now on the terminal may be in another mode, which [`restore_terminal`] ends.
pub fn begin() {
    PROMPTED.store(true, Ordering::SeqCst);
}

/// Sets the terminal as it was, when somebody was asked: a prompt that is still open has it in another mode.
pub fn restore_terminal() {
    if PROMPTED.load(Ordering::SeqCst)
        && let Some(settings) = TERMINAL.get()
    {
        let _ = termios::tcsetattr(io::stdin(), OptionalActions::Now, settings);
        let _ = Term::stderr().show_cursor();
    }
}

/// Whether there is a person to ask.
pub fn attended() -> bool {
    let terminals = io::stdin().is_terminal() && io::stderr().is_terminal();
    terminals && termios::tcgetpgrp(io::stdin()).is_ok_and(|group| group == rustix::process::getpgrp())
}

/// The person at the terminal of a run.
pub struct AtTerminal {
    views: Views,
    stopper: Stopper,
    name: String,
    /// The step that asks, and whether its prompt is of no use any more.
    asking: Mutex<Option<(String, Arc<AtomicBool>)>>,
    /// Held while a prompt reads the terminal, also one that nobody waits for any more.
    terminal: Arc<tokio::sync::Mutex<()>>,
}

impl AtTerminal {
    /// The person called `name`, in front of these views.
    pub fn new(views: Views, stopper: Stopper, name: String) -> Self {
        Self { views, stopper, name, asking: Mutex::default(), terminal: Arc::default() }
    }

    /// What `step` asks was answered elsewhere, or the run is cancelled when there is no step: the prompt is of no use any more.
    pub fn withdraw(&self, step: Option<&str>) {
        let asking = self.asking.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((asks, withdrawn)) = &*asking
            && step.is_none_or(|step| step == asks)
        {
            withdrawn.store(true, Ordering::SeqCst);
        }
    }

    fn set_asking(&self, asking: Option<(String, Arc<AtomicBool>)>) {
        *self.asking.lock().unwrap_or_else(PoisonError::into_inner) = asking;
    }
}

/// Takes a question back when it is dropped.
struct Withdraws(Arc<AtomicBool>);

impl Drop for Withdraws {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[async_trait]
impl People for AtTerminal {
    async fn ask(&self, step: &str, question: &Question) -> Option<String> {
        // Who is in front of this terminal may not be who is asked: then the run waits, as without a terminal.
        if !attended() || question.refuses(&self.name).is_some() {
            return None;
        }
        let terminal = Arc::clone(&self.terminal).lock_owned().await;
        let withdrawn = Arc::new(AtomicBool::new(false));
        // When nobody waits for the answer any more, the prompt lets the terminal go.
        let _withdraws = Withdraws(Arc::clone(&withdrawn));
        self.set_asking(Some((step.to_owned(), Arc::clone(&withdrawn))));
        self.views.shown(|view| view.pause(), None).await;
        let (name, question, until) = (step.to_owned(), question.clone(), Arc::clone(&withdrawn));
        let prompt = tokio::task::spawn_blocking(move || {
            let _terminal = terminal;
            ask_until(&name, &question, &until)
        });
        let reply = prompt.await.ok().filter(|_| !withdrawn.load(Ordering::SeqCst));
        self.set_asking(None);
        self.views.shown(|view| view.resume(), Some(STUCK)).await;
        match reply {
            Some(Reply::Text(text)) => Some(text),
            // Nobody's answer: it is dropped, because the step asks no more.
            None => Some(String::new()),
            Some(Reply::Left) => None,
            Some(Reply::Stop) => {
                self.stopper.ask(Exit::Interrupted);
                None
            }
        }
    }

    fn name(&self) -> String {
        self.name.clone()
    }
}

/// Puts a question to the terminal and waits for the answer.
pub fn ask(step: &str, question: &Question) -> Reply {
    ask_until(step, question, &AtomicBool::new(false))
}

/// The same until the question is `withdrawn`: then it ends by itself, and what it returns counts for nothing.
fn ask_until(step: &str, question: &Question, withdrawn: &AtomicBool) -> Reply {
    begin();
    // What was typed before the question could be read answers nothing.
    let _ = termios::tcflush(io::stdin(), QueueSelector::IFlush);
    let term = Term::stderr();
    let result = Keys::new(&term, withdrawn).and_then(|keys| match question {
        Question::Phrase { message, phrase, facts, .. } => phrase_prompt(&keys, step, message, phrase, facts),
        Question::Settle { .. } => {
            word_prompt(&keys, step, question, "Look at the system, then type one of these words:")
        }
        Question::Approval { role, .. } => {
            let wanted =
                format!("To answer as {role}, type one of these words; a reason may follow after a colon:");
            word_prompt(&keys, step, question, &wanted)
        }
    });
    if withdrawn.load(Ordering::SeqCst) {
        eprintln!("  This question is settled.");
    }
    // A terminal that can not be read is nobody's answer.
    result.unwrap_or(Reply::Left)
}

/// Asks for one line, which is `default` when it is left empty, until it is `valid`: otherwise it says why not, and asks again.
pub fn question(
    question: &str,
    default: &str,
    valid: &dyn Fn(&str) -> Result<(), String>,
) -> io::Result<Reply> {
    let (term, never) = (Term::stderr(), AtomicBool::new(false));
    let keys = Keys::new(&term, &never)?;
    let told = |text: &str, style: Style| {
        for line in wrap(text, width().saturating_sub(3)) {
            eprintln!("  {}", format::paint(style.clone(), &line));
        }
    };
    told(question, Style::new().bold());
    told(&format!("empty: {default}"), Style::new().dim());
    let prompt = if format::unicode() { "  › " } else { "  > " };
    loop {
        let text = match line::read(&keys, prompt)? {
            Reply::Text(text) if text.trim().is_empty() => default.to_owned(),
            Reply::Text(text) => text.trim().to_owned(),
            other => return Ok(other),
        };
        match valid(&text) {
            Ok(()) => {
                eprintln!();
                return Ok(Reply::Text(text));
            }
            Err(why) => told(&why, Style::new().red()),
        }
    }
}

fn width() -> usize {
    format::width().unwrap_or(80)
}

/// How prompts look.
pub fn theme() -> Box<dyn Theme> {
    if format::colours() && format::unicode() {
        Box::new(ColorfulTheme::default())
    } else {
        Box::new(SimpleTheme)
    }
}

/// What is about to happen, then the facts, aligned.
fn block(step: &str, message: &str, facts: &[(String, String)], width: usize) -> Vec<String> {
    let mut lines = vec![
        String::new(),
        format!("  {}", format::paint(Style::new().yellow().bold(), step)),
        String::new(),
    ];
    for paragraph in bounded(message).lines() {
        lines.extend(wrap(paragraph, width.saturating_sub(3)).into_iter().map(|line| format!("  {line}")));
    }
    if !facts.is_empty() {
        lines.push(String::new());
    }
    let label = facts.iter().map(|(label, _)| measure_text_width(label)).max().unwrap_or(0).min(width / 3);
    for (name, value) in facts {
        // Of what a person signs for nothing is cut.
        let long = measure_text_width(name) > label;
        if long {
            let lines_of_name = wrap(name, width.saturating_sub(5)).into_iter();
            lines.extend(
                lines_of_name.map(|line| format!("    {}", format::paint(Style::new().dim(), &line))),
            );
        }
        let name = console::pad_str(if long { "" } else { name }, label, console::Alignment::Left, None);
        let mut below = wrap(&one_line(value), width.saturating_sub(label + 8)).into_iter();
        lines.push(format!(
            "    {}  {}",
            format::paint(Style::new().dim(), &name),
            below.next().unwrap_or_default()
        ));
        lines.extend(below.map(|line| format!("    {:label$}  {line}", "")));
    }
    lines.push(String::new());
    lines
}

fn phrase_prompt(
    keys: &Keys<'_>,
    step: &str,
    message: &str,
    phrase: &str,
    facts: &[(String, String)],
) -> io::Result<Reply> {
    let width = width();
    let mut err = io::stderr().lock();
    for line in block(step, message, facts, width) {
        writeln!(err, "{line}")?;
    }
    writeln!(err, "  To go on, type  {}", format::paint(Style::new().bold(), phrase))?;
    drop(err);
    tell_ways_out()?;
    let prompt = input_prompt(step)?;
    let mut wrong = 0;
    loop {
        let text = match line::read(keys, &prompt)? {
            Reply::Text(text) => text,
            other => return Ok(other),
        };
        if text.is_empty() {
            continue;
        }
        if text == phrase {
            return Ok(Reply::Text(text));
        }
        wrong += 1;
        if wrong == TRIES {
            eprintln!("  That is not the phrase either. Nothing happens.");
            return Ok(Reply::Text(text));
        }
        let left = TRIES - wrong;
        let tries = if left == 1 { "1 more try" } else { "2 more tries" };
        eprintln!("  That is not the phrase, exactly as written: {tries}.");
    }
}

/// A question that one of a few words answers.
fn word_prompt(keys: &Keys<'_>, step: &str, question: &Question, wanted: &str) -> io::Result<Reply> {
    for line in block(step, question.message(), question.facts(), width()) {
        eprintln!("{line}");
    }
    for line in wrap(wanted, width().saturating_sub(3)) {
        eprintln!("  {line}");
    }
    let words = question.words();
    let longest = words.iter().map(|(word, _)| word.len()).max().unwrap_or(0);
    for (word, meaning) in words {
        eprintln!("    {}  {meaning}", format::paint(Style::new().bold(), &format!("{word:<longest$}")));
    }
    tell_ways_out()?;
    let prompt = input_prompt(step)?;
    loop {
        let text = match line::read(keys, &prompt)? {
            Reply::Text(text) => text,
            other => return Ok(other),
        };
        if question.accepts(&text) {
            return Ok(Reply::Text(text));
        }
        if !text.is_empty() {
            let all = listed(words.iter().map(|(word, _)| *word));
            eprintln!("  That is none of the words: type one of {all}.");
        }
    }
}

/// How to get away from a question without an answer.
fn tell_ways_out() -> io::Result<()> {
    let text = "Ctrl-D leaves the run waiting, Ctrl-C stops it; nothing happens then.";
    let mut err = io::stderr().lock();
    for line in wrap(text, width().saturating_sub(3)) {
        writeln!(err, "  {}", format::paint(Style::new().dim(), &line))?;
    }
    Ok(())
}

/// What stands before the line that is typed.
fn input_prompt(step: &str) -> io::Result<String> {
    let mut prompt = String::from("  ");
    theme().format_input_prompt(&mut prompt, step, None).map_err(io::Error::other)?;
    Ok(prompt)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_are_aligned_and_long_ones_go_on_below() {
        let facts =
            [("Gateway".to_owned(), "http://127.0.0.1:8010".to_owned()), ("Ids".to_owned(), "a ".repeat(40))];
        let lines = block("confirm", "Delete 212 attachments?", &facts, 50);
        assert!(lines.contains(&"  Delete 212 attachments?".to_owned()), "{lines:?}");
        assert!(lines.contains(&"    Gateway  http://127.0.0.1:8010".to_owned()), "{lines:?}");
        assert!(lines.iter().all(|line| measure_text_width(line) <= 50), "{lines:?}");
    }
}

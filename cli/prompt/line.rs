//! One line from the terminal, key by key, so that Ctrl-D, Ctrl-C and an empty line are told apart.

use std::io;

use console::{Key, Term, measure_text_width};

use super::keys::Keys;

/// What a person did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Typed this.
    Text(String),
    /// Left without an answer (Ctrl-D, or the terminal is gone), or was not asked any more.
    Left,
    /// Wants the run to stop (Ctrl-C).
    Stop,
}

/// Reads one line after `prompt`.
pub fn read(keys: &Keys<'_>, prompt: &str) -> io::Result<Reply> {
    let mut text = String::new();
    loop {
        draw(keys.term(), prompt, &text)?;
        let reply = match keys.next()? {
            Some(key) => press(&mut text, &key),
            None => Some(Reply::Left),
        };
        if let Some(reply) = reply {
            keys.term().write_line("")?;
            return Ok(reply);
        }
    }
}

fn draw(term: &Term, prompt: &str, text: &str) -> io::Result<()> {
    let columns = term.size_checked().map_or(80, |(_, columns)| usize::from(columns));
    let room = columns.saturating_sub(measure_text_width(prompt) + 1).max(1);
    // A line that is too long shows its end, where the typing goes on.
    let skipped = text.chars().count().saturating_sub(room);
    let shown: String = text.chars().skip(skipped).collect();
    term.clear_line()?;
    term.write_str(&format!("{prompt}{shown}"))
}

/// What a key does to the line; a reply when it ends the line.
fn press(text: &mut String, key: &Key) -> Option<Reply> {
    match key {
        Key::Enter => return Some(Reply::Text(std::mem::take(text))),
        Key::CtrlC => return Some(Reply::Stop),
        // Ctrl-D ends the input only on an empty line, as everywhere.
        Key::Char('\x04') if text.is_empty() => return Some(Reply::Left),
        Key::Char('\x15') => text.clear(),
        Key::Char('\x17') => {
            let kept = text.trim_end().rfind(' ').map_or(0, |at| at + 1);
            text.truncate(kept);
        }
        Key::Backspace => {
            text.pop();
        }
        Key::Char(typed) if !typed.is_control() => text.push(*typed),
        _ => {}
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(keys: &[Key]) -> (String, Option<Reply>) {
        let mut text = String::new();
        let reply = keys.iter().find_map(|key| press(&mut text, key));
        (text, reply)
    }

    fn keys(text: &str) -> Vec<Key> {
        text.chars().map(Key::Char).collect()
    }

    #[test]
    fn a_line_can_be_corrected_and_is_ended_by_enter() {
        let mut line = keys("RESET CHATKIR");
        line.extend([Key::Backspace, Key::Char('T'), Key::ArrowLeft, Key::Enter]);
        assert_eq!(typed(&line).1, Some(Reply::Text("RESET CHATKIT".to_owned())));
        let mut line = keys("RESET CHAT");
        line.push(Key::Char('\x17'));
        assert_eq!(typed(&line), ("RESET ".to_owned(), None));
    }

    #[test]
    fn control_d_leaves_only_an_empty_line() {
        assert_eq!(typed(&[Key::Char('\x04')]).1, Some(Reply::Left));
        assert_eq!(typed(&[Key::Char('a'), Key::Char('\x04')]), ("a".to_owned(), None));
        assert_eq!(typed(&[Key::Char('a'), Key::Char('\x15'), Key::Char('\x04')]).1, Some(Reply::Left));
        assert_eq!(typed(&[Key::Char('a'), Key::CtrlC]).1, Some(Reply::Stop));
    }
}

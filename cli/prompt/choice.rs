//! One of a few answers, chosen by the arrow keys.

use std::io;

use console::Key;
use dialoguer::theme::Theme;

use super::keys::Keys;
use super::line::Reply;

/// What a key does.
#[derive(Debug, PartialEq, Eq)]
enum Pressed {
    /// Chooses what is marked.
    This,
    /// Marks this one.
    Mark(usize),
    /// Ends it without a choice.
    End(Reply),
    Nothing,
}

/// Shows the items below the prompt and lets one be chosen; its text is `answer`'s.
pub fn choose(
    keys: &Keys<'_>,
    theme: &dyn Theme,
    prompt: &str,
    items: &[String],
    answer: impl Fn(usize) -> String,
) -> io::Result<Reply> {
    let term = keys.term();
    let mut marked = 0;
    let mut text = String::new();
    theme.format_select_prompt(&mut text, prompt).map_err(io::Error::other)?;
    term.write_line(&text)?;
    loop {
        for (at, item) in items.iter().enumerate() {
            text.clear();
            theme.format_select_prompt_item(&mut text, item, at == marked).map_err(io::Error::other)?;
            // A line that the terminal breaks in two could not be drawn over.
            let columns = term.size_checked().map_or(80, |(_, columns)| usize::from(columns));
            term.write_line(&console::truncate_str(&text, columns.saturating_sub(1), "…"))?;
        }
        let Some(key) = keys.next()? else { return Ok(Reply::Left) };
        match press(&key, marked, items.len()) {
            Pressed::This => return Ok(Reply::Text(answer(marked))),
            Pressed::End(reply) => return Ok(reply),
            Pressed::Mark(at) => marked = at,
            Pressed::Nothing => {}
        }
        term.clear_last_lines(items.len())?;
    }
}

fn press(key: &Key, marked: usize, items: usize) -> Pressed {
    match key {
        Key::Enter | Key::Char(' ') => Pressed::This,
        Key::ArrowUp | Key::Char('k') => Pressed::Mark((marked + items - 1) % items),
        Key::ArrowDown | Key::Tab | Key::Char('j') => Pressed::Mark((marked + 1) % items),
        Key::CtrlC => Pressed::End(Reply::Stop),
        Key::Escape | Key::Char('q' | '\x04') => Pressed::End(Reply::Left),
        _ => Pressed::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arrows_go_around_and_ctrl_c_stops() {
        assert_eq!(press(&Key::ArrowUp, 0, 3), Pressed::Mark(2));
        assert_eq!(press(&Key::ArrowDown, 2, 3), Pressed::Mark(0));
        assert_eq!(press(&Key::Enter, 1, 3), Pressed::This);
        assert_eq!(press(&Key::CtrlC, 1, 3), Pressed::End(Reply::Stop));
        for key in [Key::Escape, Key::Char('q'), Key::Char('\x04')] {
            assert_eq!(press(&key, 1, 3), Pressed::End(Reply::Left));
        }
        assert_eq!(press(&Key::Char('d'), 1, 3), Pressed::Nothing);
    }
}

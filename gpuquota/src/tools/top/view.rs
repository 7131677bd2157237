//! What the user has chosen, by keys.

use crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

/// By what containers are sorted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sort {
    #[default]
    Name,
    Memory,
    Time,
    Waits,
    Denied,
}

impl Sort {
    /// The word for people.
    pub fn word(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Memory => "memory",
            Self::Time => "GPU time",
            Self::Waits => "waits",
            Self::Denied => "denials",
        }
    }

    fn next(self) -> Self {
        match self {
            Self::Name => Self::Memory,
            Self::Memory => Self::Time,
            Self::Time => Self::Waits,
            Self::Waits => Self::Denied,
            Self::Denied => Self::Name,
        }
    }
}

/// What is shown, and how.
#[derive(Debug)]
pub struct View {
    pub sort: Sort,
    /// Only names with this in them.
    pub filter: String,
    /// Whether the filter is being typed.
    pub is_typing: bool,
    /// Whether containers stand below their pods.
    pub is_tree: bool,
    pub has_processes: bool,
    pub has_help: bool,
    pub selected: usize,
    /// Rows of the list, as it was drawn last.
    pub rows: usize,
    /// Rows of a page of it.
    pub page: usize,
    pub is_over: bool,
}

impl Default for View {
    fn default() -> Self {
        Self {
            sort: Sort::default(),
            filter: String::new(),
            is_typing: false,
            is_tree: true,
            has_processes: true,
            has_help: false,
            selected: 0,
            rows: 0,
            page: 10,
            is_over: false,
        }
    }
}

impl View {
    /// Takes a key.
    pub fn key(&mut self, key: KeyEvent) {
        if key.kind == KeyEventKind::Release {
            return;
        }
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            // Ctrl-C is a key here: the terminal makes no signal of it.
            self.is_over |= matches!(key.code, KeyCode::Char('c' | 'd'));
            return;
        }
        if self.is_typing {
            return self.type_key(key.code);
        }
        if self.has_help {
            self.has_help = false;
            return;
        }
        let last = self.rows.saturating_sub(1);
        match key.code {
            KeyCode::Char('q') => self.is_over = true,
            KeyCode::Esc if self.filter.is_empty() => self.is_over = true,
            KeyCode::Esc => self.filter.clear(),
            KeyCode::Char('?' | 'h') => self.has_help = true,
            KeyCode::Char('/') => self.is_typing = true,
            KeyCode::Char('t') => self.is_tree = !self.is_tree,
            KeyCode::Char('p') => self.has_processes = !self.has_processes,
            KeyCode::Char('s') => self.sort = self.sort.next(),
            KeyCode::Char('n') => self.sort = Sort::Name,
            KeyCode::Char('m') => self.sort = Sort::Memory,
            KeyCode::Char('g') => self.sort = Sort::Time,
            KeyCode::Char('w') => self.sort = Sort::Waits,
            KeyCode::Char('d') => self.sort = Sort::Denied,
            KeyCode::Up | KeyCode::Char('k') => self.selected = self.selected.saturating_sub(1),
            KeyCode::Down | KeyCode::Char('j') => self.selected = (self.selected + 1).min(last),
            KeyCode::PageUp => self.selected = self.selected.saturating_sub(self.page),
            KeyCode::PageDown => self.selected = (self.selected + self.page).min(last),
            KeyCode::Home => self.selected = 0,
            KeyCode::End => self.selected = last,
            _ => {}
        }
    }

    fn type_key(&mut self, code: KeyCode) {
        match code {
            KeyCode::Enter => self.is_typing = false,
            KeyCode::Esc => {
                self.is_typing = false;
                self.filter.clear();
            }
            KeyCode::Backspace => _ = self.filter.pop(),
            KeyCode::Char(letter) if self.filter.len() < 64 => self.filter.push(letter),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(keys: &str) -> View {
        let mut view = View { rows: 3, ..View::default() };
        for letter in keys.chars() {
            let code = match letter {
                '\n' => KeyCode::Enter,
                '\x1b' => KeyCode::Esc,
                '\x08' => KeyCode::Backspace,
                letter => KeyCode::Char(letter),
            };
            view.key(KeyEvent::new(code, KeyModifiers::NONE));
        }
        view
    }

    #[test]
    fn keys_do_what_the_help_says() {
        assert_eq!(after("m").sort, Sort::Memory);
        assert_eq!(after("sss").sort, Sort::Waits);
        assert_eq!(after("jjjjk").selected, 1);
        assert!(after("q").is_over && !after("?q").is_over && after("?qq").is_over);
        let typed = after("/quit\x08\x08x");
        assert_eq!((typed.filter.as_str(), typed.is_over), ("qux", false));
        assert_eq!(after("/abc\x1b").filter, "");
        assert!(!after("/abc\n\x1b").is_over && after("/abc\n\x1b\x1b").is_over);
        assert!(!after("t").is_tree && !after("p").has_processes);
    }
}

//! The table of keys, which is also the source of the help page.

use ratatui::crossterm::event::{KeyCode, KeyModifiers};

/// The action of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the table describes each")]
pub enum Action {
    Quit,
    Help,
    Back,
    Open,
    NextTab,
    PreviousTab,
    Tab(u8),
    Up,
    Down,
    PageUp,
    PageDown,
    Top,
    Bottom,
    NextFailure,
    PreviousFailure,
    Filter,
    Sort,
    Reverse,
    Freeze,
    Follow,
    OnlyFailures,
    Reset,
    Export,
    Copy,
    Suspend,
    Redraw,
    PlayToggle,
    PlayFaster,
    PlaySlower,
    PlayBack,
    PlayForward,
    PlayBegin,
    PlayToFailure,
}

/// The views in which a key works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Everywhere.
    Everywhere,
    /// In lists and texts.
    Navigation,
    /// In Overview and Flows.
    Flows,
    /// During playback.
    Playback,
}

impl Scope {
    /// The heading on the help page.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::Everywhere => "Everywhere",
            Self::Navigation => "Navigation",
            Self::Flows => "Overview and Flows",
            Self::Playback => "Playback",
        }
    }

    /// Every scope, in the order of the help page.
    pub const ALL: [Self; 4] = [Self::Navigation, Self::Flows, Self::Playback, Self::Everywhere];
}

/// A row of the table.
#[derive(Debug)]
pub struct Binding {
    /// The keys that trigger the action, with their modifiers.
    pub keys: &'static [(KeyCode, KeyModifiers)],
    /// The keys as the help page shows them; empty: not shown.
    pub shown: &'static str,
    /// The action of these keys.
    pub action: Action,
    /// The action, in words.
    pub text: &'static str,
    /// The views in which they work.
    pub scope: Scope,
}

const NONE: KeyModifiers = KeyModifiers::NONE;
const CTRL: KeyModifiers = KeyModifiers::CONTROL;

const fn key(c: char) -> (KeyCode, KeyModifiers) {
    (KeyCode::Char(c), NONE)
}

const fn ctrl(c: char) -> (KeyCode, KeyModifiers) {
    (KeyCode::Char(c), CTRL)
}

const fn code(code: KeyCode) -> (KeyCode, KeyModifiers) {
    (code, NONE)
}

const fn row(
    keys: &'static [(KeyCode, KeyModifiers)],
    shown: &'static str,
    action: Action,
    text: &'static str,
    scope: Scope,
) -> Binding {
    Binding {
        keys,
        shown,
        action,
        text,
        scope,
    }
}

/// The table. If two rows share a key, the first whose scope applies wins.
pub static TABLE: &[Binding] = &[
    row(
        &[key('j'), code(KeyCode::Down)],
        "j, Down",
        Action::Down,
        "down",
        Scope::Navigation,
    ),
    row(
        &[key('k'), code(KeyCode::Up)],
        "k, Up",
        Action::Up,
        "up",
        Scope::Navigation,
    ),
    row(
        &[code(KeyCode::PageDown), ctrl('d'), ctrl('f')],
        "PgDn, Ctrl-d",
        Action::PageDown,
        "page down",
        Scope::Navigation,
    ),
    row(
        &[code(KeyCode::PageUp), ctrl('u'), ctrl('b')],
        "PgUp, Ctrl-u",
        Action::PageUp,
        "page up",
        Scope::Navigation,
    ),
    row(
        &[key('g'), code(KeyCode::Home)],
        "g, Home",
        Action::Top,
        "top",
        Scope::Navigation,
    ),
    row(
        &[key('G'), code(KeyCode::End)],
        "G, End",
        Action::Bottom,
        "bottom",
        Scope::Navigation,
    ),
    row(
        &[code(KeyCode::Enter), key('l'), code(KeyCode::Right)],
        "Enter, l",
        Action::Open,
        "open",
        Scope::Navigation,
    ),
    row(
        &[
            code(KeyCode::Esc),
            key('h'),
            code(KeyCode::Left),
            code(KeyCode::Backspace),
        ],
        "Esc, h",
        Action::Back,
        "back; in Flows: clear the filter",
        Scope::Navigation,
    ),
    row(
        &[key('/')],
        "/",
        Action::Filter,
        "filter: any word, or port:30080 client:10.0.0.0/8 service:shop/web fate:dropped cause:ipvs drop:nf_hook; ! negates",
        Scope::Flows,
    ),
    row(
        &[key('t')],
        "t",
        Action::OnlyFailures,
        "only failures, or all flows",
        Scope::Flows,
    ),
    row(
        &[key('s')],
        "s",
        Action::Sort,
        "sort by the next column",
        Scope::Flows,
    ),
    row(&[key('S')], "S", Action::Reverse, "reverse sort", Scope::Flows),
    row(
        &[key('f')],
        "f",
        Action::Follow,
        "follow the newest flow",
        Scope::Flows,
    ),
    row(
        &[key('n')],
        "n",
        Action::NextFailure,
        "next failure",
        Scope::Flows,
    ),
    row(
        &[key('N')],
        "N",
        Action::PreviousFailure,
        "previous failure",
        Scope::Flows,
    ),
    row(
        &[key(' '), key('p')],
        "Space, p",
        Action::PlayToggle,
        "play or pause",
        Scope::Playback,
    ),
    row(
        &[key('>'), key('.')],
        ". >",
        Action::PlayForward,
        "seek forward",
        Scope::Playback,
    ),
    row(
        &[key('<'), key(',')],
        ", <",
        Action::PlayBack,
        "seek back",
        Scope::Playback,
    ),
    row(
        &[key('0')],
        "0",
        Action::PlayBegin,
        "go to the start",
        Scope::Playback,
    ),
    row(
        &[key('+'), key('=')],
        "+",
        Action::PlayFaster,
        "faster: 1x, 10x, maximum speed",
        Scope::Playback,
    ),
    row(&[key('-')], "-", Action::PlaySlower, "slower", Scope::Playback),
    row(
        &[key('x')],
        "x",
        Action::PlayToFailure,
        "play to the next failure",
        Scope::Playback,
    ),
    row(
        &[key('1')],
        "1 .. 5",
        Action::Tab(0),
        "Overview, Flows, Flow, Drops, Hooks",
        Scope::Everywhere,
    ),
    row(&[key('2')], "", Action::Tab(1), "", Scope::Everywhere),
    row(&[key('3')], "", Action::Tab(2), "", Scope::Everywhere),
    row(&[key('4')], "", Action::Tab(3), "", Scope::Everywhere),
    row(&[key('5')], "", Action::Tab(4), "", Scope::Everywhere),
    row(
        &[code(KeyCode::Tab)],
        "Tab",
        Action::NextTab,
        "next tab",
        Scope::Everywhere,
    ),
    row(
        &[code(KeyCode::BackTab)],
        "Shift-Tab",
        Action::PreviousTab,
        "previous tab",
        Scope::Everywhere,
    ),
    row(
        &[key(' '), key('p')],
        "Space, p",
        Action::Freeze,
        "freeze the screen; tracing continues",
        Scope::Everywhere,
    ),
    row(
        &[key('e')],
        "e",
        Action::Export,
        "export this tab to a file in the current directory",
        Scope::Everywhere,
    ),
    row(
        &[key('y')],
        "y",
        Action::Copy,
        "copy the flow to the terminal's clipboard",
        Scope::Everywhere,
    ),
    row(
        &[key('c')],
        "c",
        Action::Reset,
        "reset counters (confirms)",
        Scope::Everywhere,
    ),
    row(
        &[ctrl('l')],
        "Ctrl-l",
        Action::Redraw,
        "redraw the screen",
        Scope::Everywhere,
    ),
    row(
        &[ctrl('z')],
        "Ctrl-z",
        Action::Suspend,
        "suspend; fg resumes",
        Scope::Everywhere,
    ),
    row(&[key('?')], "?", Action::Help, "help", Scope::Everywhere),
    row(
        &[key('q'), ctrl('c')],
        "q, Ctrl-c",
        Action::Quit,
        "quit",
        Scope::Everywhere,
    ),
];

/// The action of a key in the scopes that apply.
#[must_use]
pub fn action(code: KeyCode, modifiers: KeyModifiers, in_scope: impl Fn(Scope) -> bool) -> Option<Action> {
    // Shift is part of the letter.
    let modifiers = modifiers & (KeyModifiers::CONTROL | KeyModifiers::ALT);
    let row = TABLE
        .iter()
        .find(|row| in_scope(row.scope) && row.keys.contains(&(code, modifiers)))?;
    Some(row.action)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_key_does_two_things_in_one_scope() {
        for (index, row) in TABLE.iter().enumerate() {
            for other in &TABLE[..index] {
                let both = row.keys.iter().any(|key| other.keys.contains(key));
                assert!(
                    !both || other.scope != row.scope,
                    "{} and {}",
                    row.shown,
                    other.shown
                );
            }
        }
    }

    #[test]
    fn playback_keys_win_during_playback() {
        let space = |is_playing| {
            action(KeyCode::Char(' '), NONE, |scope| {
                scope == Scope::Everywhere || is_playing && scope == Scope::Playback
            })
        };
        assert_eq!(space(false), Some(Action::Freeze));
        assert_eq!(space(true), Some(Action::PlayToggle));
    }
}

//! The keys: one table for what they do and for the help that tells it.

use ratatui::crossterm::event::{KeyCode, KeyModifiers};

/// What a key does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the table says what each does")]
pub enum Action {
    Quit,
    Help,
    Back,
    Open,
    NextView,
    PreviousView,
    View(u8),
    Up,
    Down,
    PageUp,
    PageDown,
    Top,
    Bottom,
    NextTrouble,
    PreviousTrouble,
    Filter,
    Sort,
    Reverse,
    Pause,
    Follow,
    OnlyTrouble,
    Clear,
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
    PlayTrouble,
}

/// Where keys do it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Everywhere.
    Everywhere,
    /// In lists and texts.
    Moving,
    /// In the list of flows.
    Flows,
    /// While a recording is played.
    Playing,
}

impl Place {
    /// Heading in the help.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::Everywhere => "everywhere",
            Self::Moving => "moving about",
            Self::Flows => "flows",
            Self::Playing => "recording",
        }
    }

    /// All, in the order of the help.
    pub const ALL: [Self; 4] = [Self::Moving, Self::Flows, Self::Playing, Self::Everywhere];
}

/// One row of the table.
#[derive(Debug)]
pub struct Binding {
    /// The keys.
    pub keys: &'static [(KeyCode, KeyModifiers)],
    /// The keys as the help shows them.
    pub shown: &'static str,
    /// What they do.
    pub action: Action,
    /// The same in words.
    pub does: &'static str,
    /// Where.
    pub place: Place,
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
    does: &'static str,
    place: Place,
) -> Binding {
    Binding {
        keys,
        shown,
        action,
        does,
        place,
    }
}

/// The table. Of two rows with the same key, the first one whose place fits counts.
pub static TABLE: &[Binding] = &[
    row(
        &[key('j'), code(KeyCode::Down)],
        "j, Down",
        Action::Down,
        "down",
        Place::Moving,
    ),
    row(
        &[key('k'), code(KeyCode::Up)],
        "k, Up",
        Action::Up,
        "up",
        Place::Moving,
    ),
    row(
        &[code(KeyCode::PageDown), ctrl('d'), ctrl('f')],
        "PgDn, Ctrl-d",
        Action::PageDown,
        "a page down",
        Place::Moving,
    ),
    row(
        &[code(KeyCode::PageUp), ctrl('u'), ctrl('b')],
        "PgUp, Ctrl-u",
        Action::PageUp,
        "a page up",
        Place::Moving,
    ),
    row(
        &[key('g'), code(KeyCode::Home)],
        "g, Home",
        Action::Top,
        "to the top",
        Place::Moving,
    ),
    row(
        &[key('G'), code(KeyCode::End)],
        "G, End",
        Action::Bottom,
        "to the bottom",
        Place::Moving,
    ),
    row(
        &[code(KeyCode::Enter), key('l'), code(KeyCode::Right)],
        "Enter, l",
        Action::Open,
        "look closer",
        Place::Moving,
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
        "back; in the list: take the filter off",
        Place::Moving,
    ),
    row(
        &[key('/')],
        "/",
        Action::Filter,
        "filter: words, port:30080 client:10.0.0.0/8 service:shop/web fate:dropped cause:ipvs drop:nf_hook !not",
        Place::Flows,
    ),
    row(
        &[key('t')],
        "t",
        Action::OnlyTrouble,
        "only what went wrong, or everything",
        Place::Flows,
    ),
    row(
        &[key('s')],
        "s",
        Action::Sort,
        "sort by the next column",
        Place::Flows,
    ),
    row(
        &[key('S')],
        "S",
        Action::Reverse,
        "turn the order round",
        Place::Flows,
    ),
    row(
        &[key('f')],
        "f",
        Action::Follow,
        "follow the newest",
        Place::Flows,
    ),
    row(
        &[key('n')],
        "n",
        Action::NextTrouble,
        "to the next flow below that went wrong",
        Place::Flows,
    ),
    row(
        &[key('N')],
        "N",
        Action::PreviousTrouble,
        "to the one above",
        Place::Flows,
    ),
    row(
        &[key(' '), key('p')],
        "Space, p",
        Action::PlayToggle,
        "stop or go on",
        Place::Playing,
    ),
    row(
        &[key('>'), key('.')],
        ". >",
        Action::PlayForward,
        "forward",
        Place::Playing,
    ),
    row(
        &[key('<'), key(',')],
        ", <",
        Action::PlayBack,
        "back",
        Place::Playing,
    ),
    row(
        &[key('0')],
        "0",
        Action::PlayBegin,
        "to the beginning",
        Place::Playing,
    ),
    row(
        &[key('+'), key('=')],
        "+",
        Action::PlayFaster,
        "faster: 1x, 10x, as fast as it goes",
        Place::Playing,
    ),
    row(&[key('-')], "-", Action::PlaySlower, "slower", Place::Playing),
    row(
        &[key('x')],
        "x",
        Action::PlayTrouble,
        "play up to the next flow that goes wrong",
        Place::Playing,
    ),
    row(
        &[key('1')],
        "1 .. 5",
        Action::View(0),
        "overview, flows, one flow, drops, hooks",
        Place::Everywhere,
    ),
    row(&[key('2')], "", Action::View(1), "", Place::Everywhere),
    row(&[key('3')], "", Action::View(2), "", Place::Everywhere),
    row(&[key('4')], "", Action::View(3), "", Place::Everywhere),
    row(&[key('5')], "", Action::View(4), "", Place::Everywhere),
    row(
        &[code(KeyCode::Tab)],
        "Tab",
        Action::NextView,
        "the next view",
        Place::Everywhere,
    ),
    row(
        &[code(KeyCode::BackTab)],
        "Shift-Tab",
        Action::PreviousView,
        "the view before",
        Place::Everywhere,
    ),
    row(
        &[key(' '), key('p')],
        "Space, p",
        Action::Pause,
        "hold the screen still; tracing goes on",
        Place::Everywhere,
    ),
    row(
        &[key('e')],
        "e",
        Action::Export,
        "write what is shown, all of it, to a file here",
        Place::Everywhere,
    ),
    row(
        &[key('y')],
        "y",
        Action::Copy,
        "copy the flow (to the terminal's clipboard)",
        Place::Everywhere,
    ),
    row(
        &[key('c')],
        "c",
        Action::Clear,
        "count anew (asks)",
        Place::Everywhere,
    ),
    row(
        &[ctrl('l')],
        "Ctrl-l",
        Action::Redraw,
        "draw the screen anew",
        Place::Everywhere,
    ),
    row(
        &[ctrl('z')],
        "Ctrl-z",
        Action::Suspend,
        "to the shell; fg comes back",
        Place::Everywhere,
    ),
    row(&[key('?')], "?", Action::Help, "this help", Place::Everywhere),
    row(
        &[key('q'), ctrl('c')],
        "q, Ctrl-c",
        Action::Quit,
        "end",
        Place::Everywhere,
    ),
];

/// What a key does where it is pressed.
#[must_use]
pub fn action(code: KeyCode, modifiers: KeyModifiers, in_place: impl Fn(Place) -> bool) -> Option<Action> {
    // Shift is in the letter itself.
    let modifiers = modifiers & (KeyModifiers::CONTROL | KeyModifiers::ALT);
    let row = TABLE
        .iter()
        .find(|row| in_place(row.place) && row.keys.contains(&(code, modifiers)))?;
    Some(row.action)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_key_does_two_things_in_one_place() {
        for (index, row) in TABLE.iter().enumerate() {
            for other in &TABLE[..index] {
                let both = row.keys.iter().any(|key| other.keys.contains(key));
                assert!(
                    !both || other.place != row.place,
                    "{} and {}",
                    row.shown,
                    other.shown
                );
            }
        }
    }

    #[test]
    fn what_has_a_place_of_its_own_comes_first() {
        let space = |is_playing| {
            action(KeyCode::Char(' '), NONE, |place| {
                place == Place::Everywhere || is_playing && place == Place::Playing
            })
        };
        assert_eq!(space(false), Some(Action::Pause));
        assert_eq!(space(true), Some(Action::PlayToggle));
    }
}

//! The terminal: taken, and given back as it was, however tracer ends.

use std::{
    io::{self, Stdout, stdout},
    os::fd::AsFd as _,
    sync::{
        Arc, Once,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use ratatui::{
    backend::CrosstermBackend,
    buffer::Buffer,
    crossterm::{
        cursor::{Hide, Show},
        event::{DisableBracketedPaste, EnableBracketedPaste},
        execute,
        style::force_color_output,
        terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode},
    },
    layout::Size,
};

use super::stderr::{self, Teller};

/// Is the terminal ours?
static TAKEN: AtomicBool = AtomicBool::new(false);
static HOOK: Once = Once::new();

/// See the module.
pub struct Terminal {
    inner: ratatui::Terminal<CrosstermBackend<Stdout>>,
    teller: Teller,
}

impl Terminal {
    /// Takes it. What is written to stderr from now on goes to `teller`.
    pub fn open(teller: Teller) -> io::Result<Self> {
        HOOK.call_once(|| {
            let before = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                give_back();
                before(panic);
            }));
        });
        // Colours are chosen by the theme. Left to itself, crossterm undoes bold and reversed where `NO_COLOR` is set.
        force_color_output(true);
        take(&teller)?;
        let inner = ratatui::Terminal::new(CrosstermBackend::new(stdout()))?;
        let mut terminal = Self { inner, teller };
        terminal.clear()?;
        Ok(terminal)
    }

    /// Columns and lines.
    pub fn size(&self) -> io::Result<Size> {
        self.inner.size()
    }

    /// Everything is drawn anew with the next frame.
    pub fn clear(&mut self) -> io::Result<()> {
        self.inner.clear()
    }

    /// Shows this.
    pub fn draw(&mut self, screen: &Buffer) -> io::Result<()> {
        if !TAKEN.load(Ordering::SeqCst) {
            // Another thread has panicked: what it says stands there now.
            return Err(io::Error::other("the terminal was given back"));
        }
        self.inner.draw(|frame| {
            // Else the size has changed meanwhile: the next frame has it.
            if frame.area() == screen.area {
                frame.buffer_mut().clone_from(screen);
            }
        })?;
        Ok(())
    }

    /// Gives the terminal to the shell until it lets us go on.
    pub fn suspend(&mut self) -> io::Result<()> {
        give_back();
        // To all of the job: `sudo` must stop too, or the shell does not notice.
        kill(Pid::from_raw(0), Signal::SIGTSTP)?;
        take(&self.teller)?;
        self.clear()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        give_back();
    }
}

fn take(teller: &Teller) -> io::Result<()> {
    stderr::capture(Arc::clone(teller))?;
    TAKEN.store(true, Ordering::SeqCst);
    enable_raw_mode()
        .and_then(|()| execute!(stdout(), EnterAlternateScreen, EnableBracketedPaste, Hide))
        .inspect_err(|_| give_back())
}

/// Waits until a key is pressed, or for so long. A terminal that is gone is an error: asked for keys, crossterm would
/// look for them without end.
pub(super) fn wait_for_keys(time: Duration) -> io::Result<()> {
    let keyboard = io::stdin();
    let mut wanted = [PollFd::new(keyboard.as_fd(), PollFlags::POLLIN)];
    let time = PollTimeout::try_from(time).unwrap_or(PollTimeout::ZERO);
    match poll(&mut wanted, time) {
        Ok(_) | Err(Errno::EINTR) => {}
        Err(error) => return Err(error.into()),
    }
    let is_gone = PollFlags::POLLHUP | PollFlags::POLLERR | PollFlags::POLLNVAL;
    match wanted[0].revents() {
        Some(seen) if seen.intersects(is_gone) => Err(io::Error::other("the terminal is gone")),
        _ => Ok(()),
    }
}

/// Waits until there is no terminal any more.
pub(super) fn wait_until_gone() {
    let keyboard = io::stdin();
    let mut wanted = [PollFd::new(keyboard.as_fd(), PollFlags::empty())];
    // That it is gone is told unasked.
    while let Err(Errno::EINTR) = poll(&mut wanted, PollTimeout::NONE) {}
}

/// Gives the terminal back, if it was taken. What fails here cannot be told to anybody.
pub fn give_back() {
    if !TAKEN.swap(false, Ordering::SeqCst) {
        return;
    }
    let _ = execute!(stdout(), DisableBracketedPaste, LeaveAlternateScreen, Show);
    let _ = disable_raw_mode();
    stderr::release();
}

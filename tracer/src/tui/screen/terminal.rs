//! Sets up the terminal, and restores it however tracer ends.

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
    layout::{Position, Rect, Size},
};

use super::stderr::{self, LineHandler};

/// Whether the terminal is set up for the screen.
static IS_OPEN: AtomicBool = AtomicBool::new(false);
static HOOK: Once = Once::new();

/// The terminal, set up for the screen until it is released.
pub struct Terminal {
    inner: ratatui::Terminal<CrosstermBackend<Stdout>>,
    on_line: LineHandler,
}

impl Terminal {
    /// Sets it up. Lines written to stderr go to `on_line` from now on.
    pub fn open(on_line: LineHandler) -> io::Result<Self> {
        HOOK.call_once(|| {
            let before = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                release();
                before(panic);
            }));
        });
        // The theme chooses colours. By default crossterm drops bold and reverse too if `NO_COLOR` is set.
        force_color_output(true);
        open(&on_line)?;
        let inner = ratatui::Terminal::new(CrosstermBackend::new(stdout()))?;
        let mut terminal = Self { inner, on_line };
        terminal.clear()?;
        Ok(terminal)
    }

    /// Columns and lines.
    pub fn size(&self) -> io::Result<Size> {
        self.inner.size()
    }

    /// Redraws everything with the next frame.
    pub fn clear(&mut self) -> io::Result<()> {
        // Not `ratatui::Terminal::clear`: it asks the terminal for the cursor position. It fails if the terminal does not
        // answer, and crossterm waits forever for the answer of one that hung up.
        let area = Rect::from((Position::ORIGIN, self.inner.size()?));
        self.inner.resize(area)
    }

    /// Draws a frame.
    pub fn draw(&mut self, screen: &Buffer) -> io::Result<()> {
        if !IS_OPEN.load(Ordering::SeqCst) {
            // Another thread panicked and printed its message.
            return Err(io::Error::other("the terminal was released"));
        }
        self.inner.draw(|frame| {
            // If the size has changed, the next frame has the new one.
            if frame.area() == screen.area {
                frame.buffer_mut().clone_from(screen);
            }
        })?;
        Ok(())
    }

    /// Returns to the shell until it continues the process.
    pub fn suspend(&mut self) -> io::Result<()> {
        release();
        // Stop the whole job: unless `sudo` stops too, the shell does not notice.
        kill(Pid::from_raw(0), Signal::SIGTSTP)?;
        open(&self.on_line)?;
        self.clear()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        release();
    }
}

fn open(on_line: &LineHandler) -> io::Result<()> {
    stderr::capture(Arc::clone(on_line))?;
    IS_OPEN.store(true, Ordering::SeqCst);
    enable_raw_mode()
        .and_then(|()| execute!(stdout(), EnterAlternateScreen, EnableBracketedPaste, Hide))
        .inspect_err(|_| release())
}

/// Waits until a key is pressed, at most for this long. A terminal that hung up is an error: crossterm would poll it
/// forever.
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

/// Waits until the terminal hangs up.
pub(super) fn wait_until_gone() {
    let keyboard = io::stdin();
    let mut wanted = [PollFd::new(keyboard.as_fd(), PollFlags::empty())];
    // A hangup is reported without being requested.
    while let Err(Errno::EINTR) = poll(&mut wanted, PollTimeout::NONE) {}
}

/// Restores the terminal, if it was set up. Errors are ignored: there is nowhere left to report them.
pub fn release() {
    if !IS_OPEN.swap(false, Ordering::SeqCst) {
        return;
    }
    let _ = execute!(stdout(), DisableBracketedPaste, LeaveAlternateScreen, Show);
    let _ = disable_raw_mode();
    stderr::release();
}

//! The model on a terminal. A separate thread reads keys and draws, so that tracing never waits for a slow terminal: late
//! frames are skipped, messages never.

mod clipboard;
mod stderr;
pub mod terminal;

use std::{
    fs::OpenOptions,
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use ratatui::{
    buffer::Buffer,
    crossterm::event::{self, Event, KeyEventKind},
    layout::Rect,
};

use self::terminal::Terminal;
use super::{
    message::{Command, Msg, Play},
    model::{Model, Tab},
    theme::Theme,
    update::update,
    view::view,
};

/// The least time between two frames: at most 15 a second.
const FRAME: Duration = Duration::from_millis(67);

/// The time that the terminal has to close.
const LEAVE: Duration = Duration::from_secs(2);

/// Receives commands for playback.
pub type Steer = Box<dyn Fn(Play) + Send>;

/// The screen. Dropping it releases the terminal.
pub struct Screen {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    model: Mutex<Model>,
    /// Whether the user quit or the terminal is gone.
    is_over: AtomicBool,
    /// Whether the run is over.
    is_closing: AtomicBool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Model> {
        self.model.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sets `is_over` however the thread ends.
struct Over(Arc<Shared>);

impl Drop for Over {
    fn drop(&mut self) {
        self.0.is_over.store(true, Ordering::Relaxed);
    }
}

impl Screen {
    /// Opens the screen on the terminal.
    pub fn open(theme: Theme, steer: Option<Steer>) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            model: Mutex::new(Model::new(theme, (0, 0))),
            is_over: AtomicBool::new(false),
            is_closing: AtomicBool::new(false),
        });
        let on_line = Arc::clone(&shared);
        let terminal = Terminal::open(Arc::new(move |line: String| {
            update(&mut on_line.lock(), Msg::Log(line));
        }))?;
        let over = Over(Arc::clone(&shared));
        let thread = thread::Builder::new().name("screen".to_owned()).spawn(move || {
            let over = over;
            let mut reader = Reader {
                shared: &over.0,
                terminal,
                steer,
                buffer: Buffer::default(),
            };
            if let Err(error) = reader.run() {
                let line = format!("tracer: cannot draw the screen: {error}");
                update(&mut over.0.lock(), Msg::Log(line));
            }
        })?;
        // crossterm never returns from reading a terminal that hangs up: this thread notices. It ends with the process.
        let gone = Over(Arc::clone(&shared));
        thread::Builder::new().name("hangup".to_owned()).spawn(move || {
            terminal::wait_until_gone();
            drop(gone);
        })?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// Sends messages to the model.
    pub fn send(&self, messages: impl IntoIterator<Item = Msg>) {
        let mut model = self.shared.lock();
        for message in messages {
            // Only keys return commands.
            update(&mut model, message);
        }
    }

    /// Whether the user quit or the terminal is gone.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.shared.is_over.load(Ordering::Relaxed)
    }

    /// Whether the Hooks tab is open.
    #[must_use]
    pub fn shows_hooks(&self) -> bool {
        self.shared.lock().tab == Tab::Hooks
    }

    /// Releases the terminal and prints the lines kept for stderr.
    pub fn close(&mut self) {
        self.shared.is_closing.store(true, Ordering::Relaxed);
        let Some(thread) = self.thread.take() else {
            return;
        };
        let begun = Instant::now();
        while !thread.is_finished() && begun.elapsed() < LEAVE {
            thread::sleep(Duration::from_millis(5));
        }
        if thread.is_finished() {
            // A panic has already been printed.
            let _ = thread.join();
        } else {
            // The terminal is stuck.
            terminal::release();
        }
        for line in std::mem::take(&mut self.shared.lock().log) {
            // stderr may be closed.
            let _ = writeln!(io::stderr(), "{}", super::text::clean(&line));
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.close();
    }
}

/// Reads keys and draws.
struct Reader<'a> {
    shared: &'a Shared,
    terminal: Terminal,
    steer: Option<Steer>,
    buffer: Buffer,
}

impl Reader<'_> {
    fn run(&mut self) -> io::Result<()> {
        let mut drawn = Instant::now();
        self.draw()?;
        loop {
            if self.shared.is_closing.load(Ordering::Relaxed) {
                return Ok(());
            }
            terminal::wait_for_keys(FRAME.saturating_sub(drawn.elapsed()))?;
            if event::poll(Duration::ZERO)? && !self.keys()? {
                return Ok(());
            }
            if drawn.elapsed() >= FRAME && self.shared.lock().is_changed {
                self.draw()?;
                drawn = Instant::now();
            } else if drawn.elapsed() >= FRAME {
                // Nothing changed: wait for keys for another frame.
                drawn = Instant::now();
            }
        }
    }

    /// Handles all pending keys; `false` quits.
    fn keys(&mut self) -> io::Result<bool> {
        loop {
            let message = match event::read()? {
                Event::Key(key) if key.kind != KeyEventKind::Release => Msg::Key(key.code, key.modifiers),
                Event::Paste(text) => Msg::Pasted(text),
                Event::Resize(columns, lines) => Msg::Size(columns, lines),
                _ => Msg::Frame,
            };
            let commands = update(&mut self.shared.lock(), message);
            for command in commands {
                if !self.execute(command)? {
                    return Ok(false);
                }
            }
            if !event::poll(Duration::ZERO)? {
                return Ok(true);
            }
        }
    }

    /// Executes a command; `false` quits.
    fn execute(&mut self, command: Command) -> io::Result<bool> {
        match command {
            Command::Quit => {
                self.shared.is_over.store(true, Ordering::Relaxed);
                return Ok(false);
            }
            Command::Suspend => {
                self.terminal.suspend()?;
                self.changed();
            }
            Command::Redraw => {
                self.terminal.clear()?;
                self.changed();
            }
            Command::Copy(text) => clipboard::copy(&text)?,
            Command::Export { what, text } => {
                let line = match export(what, &text) {
                    Ok(path) => format!("wrote {path}"),
                    Err(error) => format!("cannot write {what} to a file: {error}"),
                };
                update(&mut self.shared.lock(), Msg::Log(line));
            }
            Command::Play(play) => {
                if let Some(steer) = &self.steer {
                    steer(play);
                }
            }
        }
        Ok(true)
    }

    fn changed(&self) {
        self.shared.lock().is_changed = true;
    }

    fn draw(&mut self) -> io::Result<()> {
        let size = self.terminal.size()?;
        let area = Rect::new(0, 0, size.width, size.height);
        if self.buffer.area == area {
            self.buffer.reset();
        } else {
            self.buffer = Buffer::empty(area);
        }
        {
            // The terminal may be slow: do not write to it while the model is locked.
            let mut model = self.shared.lock();
            if model.size != (size.width, size.height) {
                update(&mut model, Msg::Size(size.width, size.height));
            }
            update(&mut model, Msg::Frame);
            view(&model, area, &mut self.buffer);
        }
        self.terminal.draw(&self.buffer)
    }
}

/// Writes a new file in the current directory.
fn export(what: &str, text: &str) -> io::Result<String> {
    let time = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ");
    let path = format!("tracer-{what}-{time}.txt");
    // It names clients: only its owner may read it.
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)?;
    file.write_all(text.as_bytes())?;
    Ok(path)
}

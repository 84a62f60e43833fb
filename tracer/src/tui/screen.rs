//! The model on a terminal: a thread of its own reads keys and draws, so that whoever tells of flows never waits for a
//! slow terminal. A frame that comes too late is left out; nothing that was told is.

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
    model::{At, Model},
    theme::Theme,
    update::update,
    view::view,
};

/// The least time between two frames: at most 15 a second.
const FRAME: Duration = Duration::from_millis(67);

/// How long the terminal may take to let go.
const LEAVE: Duration = Duration::from_secs(2);

/// Takes wishes how a recording is to be played.
pub type Steer = Box<dyn Fn(Play) + Send>;

/// See the module. Dropping it gives the terminal back.
pub struct Screen {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    model: Mutex<Model>,
    /// The user wants to end, or there is no terminal any more.
    is_over: AtomicBool,
    /// Nobody tells anything any more.
    is_closing: AtomicBool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Model> {
        self.model.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whatever ends the thread: the others learn of it.
struct Over(Arc<Shared>);

impl Drop for Over {
    fn drop(&mut self) {
        self.0.is_over.store(true, Ordering::Relaxed);
    }
}

impl Screen {
    /// Takes the terminal.
    pub fn open(theme: Theme, steer: Option<Steer>) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            model: Mutex::new(Model::new(theme, (0, 0))),
            is_over: AtomicBool::new(false),
            is_closing: AtomicBool::new(false),
        });
        let teller = Arc::clone(&shared);
        let terminal = Terminal::open(Arc::new(move |line: String| {
            update(&mut teller.lock(), Msg::Said(line));
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
                let said = format!("tracer: the screen ended: {error}");
                update(&mut over.0.lock(), Msg::Said(said));
            }
        })?;
        // crossterm reads for ever from a terminal that goes away while it looks for keys: then only this one is left to
        // tell of it. It ends with the process.
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

    /// Tells the model.
    pub fn tell(&self, messages: impl IntoIterator<Item = Msg>) {
        let mut model = self.shared.lock();
        for message in messages {
            // What it wants done follows keys only.
            update(&mut model, message);
        }
    }

    /// Does the user want to end?
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.shared.is_over.load(Ordering::Relaxed)
    }

    /// Does the user look at the hooks?
    #[must_use]
    pub fn shows_hooks(&self) -> bool {
        self.shared.lock().at == At::Hooks
    }

    /// Gives the terminal back, and tells there what was said meanwhile.
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
            // If it has panicked, the panic has told why.
            let _ = thread.join();
        } else {
            // The terminal takes nothing any more.
            terminal::give_back();
        }
        for line in std::mem::take(&mut self.shared.lock().said) {
            // Without a terminal there is nobody to tell.
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
                // Nothing to draw: keys are waited for, and whoever tells is looked after now and then.
                drawn = Instant::now();
            }
        }
    }

    /// Takes in all keys that were pressed; `false` ends.
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
                if !self.obey(command)? {
                    return Ok(false);
                }
            }
            if !event::poll(Duration::ZERO)? {
                return Ok(true);
            }
        }
    }

    /// Does what is wanted; `false` ends.
    fn obey(&mut self, command: Command) -> io::Result<bool> {
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
                let said = match export(what, &text) {
                    Ok(path) => format!("wrote {path}"),
                    Err(error) => format!("cannot write a file here: {error}"),
                };
                update(&mut self.shared.lock(), Msg::Said(said));
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
            // The terminal may be slow: nothing is written while the model is locked.
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

/// Writes a new file in the folder that tracer was started in.
fn export(what: &str, text: &str) -> io::Result<String> {
    let time = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ");
    let path = format!("tracer-{what}-{time}.txt");
    // It tells who connected: it is for its owner only.
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)?;
    file.write_all(text.as_bytes())?;
    Ok(path)
}

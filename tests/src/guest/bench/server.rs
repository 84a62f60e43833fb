//! The program `bench-server`: answers the traffic of the benchmarks, one connection at a time.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};

use anyhow::{Context, Result, bail};

/// The name by which it is called.
pub(in crate::guest) const NAME: &str = "bench-server";

/// The first byte of a connection whose data is echoed.
pub(super) const ECHO: u8 = b'e';

/// The first byte of a connection whose data is acknowledged with one byte per [`WINDOW`].
pub(super) const BULK: u8 = b'b';

/// The amount of bulk data per acknowledgement, in bytes.
pub(super) const WINDOW: usize = 1 << 20;

/// The size of the buffer, in bytes.
pub(super) const BUFFER: usize = 1 << 16;

/// Serves until it is killed. The arguments are `tcp` or `udp` and the address. Returns only if that fails.
pub(in crate::guest) fn run(mut arguments: impl Iterator<Item = String>) -> Result<()> {
    let kind = arguments.next().context("no protocol given")?;
    let at = arguments.next().context("no address given")?;
    let at: SocketAddr = at.parse().with_context(|| format!("`{at}` is not an address"))?;
    match kind.as_str() {
        "tcp" => {
            let listener = TcpListener::bind(at).with_context(|| format!("cannot listen on {at}"))?;
            println!("ready");
            loop {
                let (stream, _) = listener.accept().context("cannot accept")?;
                // The client reports what went wrong.
                let _ = serve(stream);
            }
        }
        "udp" => {
            let socket = UdpSocket::bind(at).with_context(|| format!("cannot bind {at}"))?;
            println!("ready");
            let mut buffer = [0; 64];
            loop {
                let (size, from) = socket.recv_from(&mut buffer).context("cannot receive")?;
                socket.send_to(&buffer[..size], from).context("cannot send")?;
            }
        }
        other => bail!("`{other}` is neither tcp nor udp"),
    }
}

fn serve(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut first = [0];
    if stream.read(&mut first)? == 0 {
        return Ok(());
    }
    let mut buffer = vec![0; BUFFER];
    let mut unacknowledged = 0;
    loop {
        let size = stream.read(&mut buffer)?;
        if size == 0 {
            return Ok(());
        }
        if first[0] == BULK {
            unacknowledged += size;
            while unacknowledged >= WINDOW {
                unacknowledged -= WINDOW;
                stream.write_all(&first)?;
            }
        } else {
            stream.write_all(&buffer[..size])?;
        }
    }
}

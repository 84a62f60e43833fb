//! The program `bench-client`: generates the traffic of the benchmarks.
//!
//! It reads a number of operations per line and answers each line with the nanoseconds that they took. In the
//! meantime it does not run.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use socket2::{Domain, Socket, Type};

use super::server::{BUFFER, BULK, ECHO, WINDOW};

/// The name by which it is called.
pub(in crate::guest) const NAME: &str = "bench-client";

/// The traffic of one client.
enum Traffic {
    /// New connections, each from the next port.
    Connect { to: SocketAddr, port: u16 },
    /// Round trips of one byte on a connection.
    Tcp(TcpStream),
    /// Data on a connection, in KiB.
    Bulk(TcpStream),
    /// Round trips of one byte.
    Udp(UdpSocket),
}

/// Runs until its standard input ends. The arguments are the kind of traffic, the server's address, and for new
/// connections the first source port.
pub(in crate::guest) fn run(mut arguments: impl Iterator<Item = String>) -> Result<()> {
    let kind = arguments.next().context("no kind of traffic given")?;
    let to = arguments.next().context("no address given")?;
    let to: SocketAddr = to.parse().with_context(|| format!("`{to}` is not an address"))?;
    let mut traffic = match kind.as_str() {
        "connect" => {
            let port = arguments.next().context("no source port given")?;
            let port = port.parse().with_context(|| format!("`{port}` is not a port"))?;
            Traffic::Connect { to, port }
        }
        "tcp" => Traffic::Tcp(open(to, ECHO)?),
        "bulk" => Traffic::Bulk(open(to, BULK)?),
        "udp" => {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).context("cannot open a socket")?;
            socket
                .connect(to)
                .with_context(|| format!("cannot connect to {to}"))?;
            Traffic::Udp(socket)
        }
        other => bail!("`{other}` is no kind of traffic"),
    };
    println!("ready");
    for line in io::stdin().lines() {
        let line = line.context("cannot read the number of operations")?;
        let operations: u32 = line
            .parse()
            .with_context(|| format!("`{line}` is not a number"))?;
        let begun = Instant::now();
        traffic.generate(operations)?;
        println!("{}", begun.elapsed().as_nanos());
    }
    Ok(())
}

fn open(to: SocketAddr, first: u8) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(to).with_context(|| format!("cannot connect to {to}"))?;
    stream.set_nodelay(true).context("cannot set up a socket")?;
    stream.write_all(&[first]).context("cannot send")?;
    Ok(stream)
}

impl Traffic {
    fn generate(&mut self, operations: u32) -> Result<()> {
        match self {
            Self::Connect { to, port } => {
                for _ in 0..operations {
                    connect(*port, *to)?;
                    *port = port.checked_add(1).context("no source ports left")?;
                }
            }
            Self::Tcp(stream) => {
                let mut byte = [ECHO];
                for _ in 0..operations {
                    stream.write_all(&byte).context("cannot send")?;
                    stream.read_exact(&mut byte).context("cannot receive")?;
                }
            }
            Self::Bulk(stream) => {
                let data = vec![BULK; BUFFER];
                for _ in 0..operations as usize * 1024 / WINDOW {
                    for _ in 0..WINDOW / BUFFER {
                        stream.write_all(&data).context("cannot send")?;
                    }
                    stream.read_exact(&mut [0]).context("cannot receive")?;
                }
            }
            Self::Udp(socket) => {
                let mut byte = [ECHO];
                for _ in 0..operations {
                    socket.send(&byte).context("cannot send")?;
                    socket.recv(&mut byte).context("cannot receive")?;
                }
            }
        }
        Ok(())
    }
}

/// Opens a connection, and closes it once the server has closed it too: then nothing of it is left to do.
fn connect(port: u16, to: SocketAddr) -> Result<()> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).context("cannot open a socket")?;
    let from = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    socket
        .bind(&from.into())
        .with_context(|| format!("cannot bind port {port}"))?;
    socket
        .connect(&to.into())
        .with_context(|| format!("cannot connect from port {port} to {to}"))?;
    let mut stream = TcpStream::from(socket);
    stream.shutdown(Shutdown::Write).context("cannot close")?;
    let rest = stream.read(&mut [0]).context("cannot wait for the server")?;
    ensure!(rest == 0, "the server sent data");
    Ok(())
}

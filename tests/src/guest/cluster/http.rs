//! HTTP requests to a program on the node.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

/// How long a program may take to answer; the API server takes seconds while it starts.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);

/// Sends a request to a port of 127.0.0.1 and returns the body of a successful answer.
pub(super) fn request(port: u16, method: &str, path: &str, body: &str) -> Result<String> {
    exchange(port, method, path, body).with_context(|| format!("{method} {path} on port {port}"))
}

fn exchange(port: u16, method: &str, path: &str, body: &str) -> Result<String> {
    let at = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut stream = TcpStream::connect_timeout(&at, ANSWER_LIMIT)?;
    stream.set_read_timeout(Some(ANSWER_LIMIT))?;
    // HTTP/1.0: the answer ends with the connection, and its body is in one piece.
    let head = format!(
        "{method} {path} HTTP/1.0\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(body.as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    parse(&String::from_utf8_lossy(&answer))
}

/// The body of a successful answer.
fn parse(answer: &str) -> Result<String> {
    let (head, body) = answer.split_once("\r\n\r\n").context("incomplete answer")?;
    let status = head.split(' ').nth(1).unwrap_or_default();
    ensure!(status.starts_with('2'), "status {status}: {}", body.trim());
    Ok(body.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_successful_answer_has_a_body() {
        let body = parse("HTTP/1.0 201 Created\r\nContent-Length: 2\r\n\r\n{}").unwrap();
        assert_eq!(body, "{}");
        let error = parse("HTTP/1.0 409 Conflict\r\n\r\nalready exists\n").unwrap_err();
        assert_eq!(error.to_string(), "status 409: already exists");
        parse("HTTP/1.0 200 OK\r\n").unwrap_err();
    }
}

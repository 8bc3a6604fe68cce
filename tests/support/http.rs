//! A small HTTP client for tests: one request for each connection, and watches line by line.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

/// An answer, as far as it came.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// Whether the body came to its proper end.
    pub(crate) whole: bool,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("JSON: {}", String::from_utf8_lossy(&self.body)))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

/// Sends a request and reads the whole answer; panics if nothing is heard for half a minute.
pub(crate) fn request(to: SocketAddr, method: &str, target: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let mut lines = open(to, method, target, headers, body).expect("an answer");
    let mut body = Vec::new();
    let whole = loop {
        match lines.chunk() {
            Some(chunk) if chunk.is_empty() => break true,
            Some(chunk) => body.extend(chunk),
            None => break false,
        }
    };
    Answer { status: lines.status, headers: lines.headers, body, whole }
}

pub(crate) fn get(to: SocketAddr, target: &str) -> Answer {
    request(to, "GET", target, &[], "")
}

/// An answer whose body is still coming.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    reader: BufReader<TcpStream>,
    left: Option<usize>,
    text: Vec<u8>,
}

/// Sends a request and reads the head of the answer; `None` if the connection closes without one.
pub(crate) fn open(to: SocketAddr, method: &str, target: &str, headers: &[(&str, &str)], body: &str) -> Option<Stream> {
    let mut stream = TcpStream::connect(to).expect("a connection");
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a time-out");
    let mut head = format!("{method} {target} HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\n");
    for (key, value) in headers {
        head += &format!("{key}: {value}\r\n");
    }
    head += &format!("Content-Length: {}\r\n\r\n{body}", body.len());
    stream.write_all(head.as_bytes()).expect("a request sent");
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    if reader.read_line(&mut line).expect("a status line in time") == 0 {
        return None;
    }
    let status = line.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).expect("a header in time");
        let Some((key, value)) = line.trim_end().split_once(": ") else { break };
        headers.push((key.to_owned(), value.to_owned()));
    }
    let find =
        |name: &str| headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str());
    let left = find("content-length").map(|length| length.parse().expect("a length"));
    Some(Stream { status, headers, reader, left, text: Vec::new() })
}

impl Stream {
    /// The next piece of the body; empty at its end, `None` if it breaks off.
    fn chunk(&mut self) -> Option<Vec<u8>> {
        if let Some(left) = self.left.replace(0) {
            let mut body = vec![0; left];
            return self.reader.read_exact(&mut body).ok().map(|()| body);
        }
        let mut size = String::new();
        self.reader.read_line(&mut size).expect("a chunk in time");
        let size = usize::from_str_radix(size.trim(), 16).ok()?;
        let mut chunk = vec![0; size + 2];
        self.reader.read_exact(&mut chunk).ok()?;
        chunk.truncate(size);
        self.left = None;
        Some(chunk)
    }

    /// The next line of a watch, parsed; `None` when it is over.
    pub(crate) fn event(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.text.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.text.drain(..=end).collect();
                return Some(
                    serde_json::from_slice(&line)
                        .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&line).into_owned())),
                );
            }
            let chunk = self.chunk()?;
            if chunk.is_empty() {
                return None;
            }
            self.text.extend(chunk);
        }
    }

    /// Whether nothing comes within this time.
    pub(crate) fn is_quiet_for(&mut self, time: Duration) -> bool {
        self.reader.get_ref().set_read_timeout(Some(time)).expect("a time-out");
        let quiet = self.text.is_empty() && self.reader.fill_buf().is_err();
        self.reader.get_ref().set_read_timeout(Some(Duration::from_secs(30))).expect("a time-out");
        quiet
    }
}

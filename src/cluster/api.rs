//! The requests that weft makes of the API server: a page of Nodes, a watch, a patch of our own; an Event about it, made
//! or patched.
//!
//! Every wait has an end: kube's client itself would wait for ever on a server that has gone silent.

use std::error::Error;
use std::fmt::Write as _;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::Frame;
use kube::client::Body;
use tokio::time::timeout;

use super::client::Connection;
use super::event::Status;
use super::problem::Problem;

/// No page and no refusal is larger; 50 Nodes are about 1 MB.
const MAX_PAGE: usize = 64 << 20;
/// An answer that is not a watch may take so many times as long as the wait for its beginning: a server that sends a byte
/// now and then is none that answers.
const WHOLE: u32 = 6;
/// No event is larger: etcd takes objects up to 1.5 MB.
const MAX_LINE: usize = 8 << 20;

/// The Nodes of the cluster, over HTTP.
pub(super) struct NodesApi {
    connection: Connection,
    patience: Duration,
}

/// Where a watch starts.
#[derive(Clone, Copy, Debug)]
pub(super) enum Start<'a> {
    /// After this resourceVersion.
    After(&'a str),
    /// With everything there is, then a bookmark (KEP-3157, Kubernetes 1.32 on by default). Without a
    /// resourceVersion: as consistent as a LIST.
    Everything,
}

impl NodesApi {
    /// `patience` is how long an answer, or the next part of one, may take.
    pub(super) fn new(connection: Connection, patience: Duration) -> Self {
        Self { connection, patience }
    }

    /// A page of a consistent LIST: the first, or the one that a continue token stands for.
    pub(super) async fn page(&self, limit: u32, next: Option<&str>) -> Result<Bytes, Problem> {
        let mut uri = format!("/api/v1/nodes?limit={limit}");
        if let Some(next) = next {
            let _ = write!(uri, "&continue={}", escape(next));
        }
        let answer = self.send(request(Method::GET, &uri, None, Body::empty())?).await?;
        self.whole(answer.into_body()).await
    }

    /// A watch. The server is asked to end it after `timeout`.
    pub(super) async fn watch(&self, start: Start<'_>, timeout: Duration) -> Result<Lines, Problem> {
        let seconds = timeout.as_secs().max(1);
        let mut uri = format!("/api/v1/nodes?watch=true&allowWatchBookmarks=true&timeoutSeconds={seconds}");
        let _ = match start {
            Start::After(version) => write!(uri, "&resourceVersion={}", escape(version)),
            Start::Everything => write!(uri, "&sendInitialEvents=true&resourceVersionMatch=NotOlderThan"),
        };
        let answer = self.send(request(Method::GET, &uri, None, Body::empty())?).await?;
        Ok(Lines { body: answer.into_body(), buffer: BytesMut::new(), scanned: 0, over: None })
    }

    /// A strategic merge patch of a Node's status, where flannel's permissions allow one. Returns the Node as
    /// it is after that.
    pub(super) async fn patch_status(&self, name: &str, patch: Vec<u8>) -> Result<Bytes, Problem> {
        let uri = format!("/api/v1/nodes/{}/status?fieldManager=weft", escape(name));
        let kind = "application/strategic-merge-patch+json";
        let answer = self.send(request(Method::PATCH, &uri, Some(kind), patch.into())?).await?;
        self.whole(answer.into_body()).await
    }

    /// Makes an Event. Returns it as it is stored.
    pub(super) async fn create_event(&self, namespace: &str, body: Vec<u8>) -> Result<Bytes, Problem> {
        let uri = format!("/api/v1/namespaces/{}/events?fieldManager=weft", escape(namespace));
        let answer = self.send(request(Method::POST, &uri, Some("application/json"), body.into())?).await?;
        self.whole(answer.into_body()).await
    }

    /// A merge patch of an Event. Returns it as it is stored.
    pub(super) async fn patch_event(&self, namespace: &str, name: &str, patch: Vec<u8>) -> Result<Bytes, Problem> {
        let (namespace, name) = (escape(namespace), escape(name));
        let uri = format!("/api/v1/namespaces/{namespace}/events/{name}?fieldManager=weft");
        let kind = "application/merge-patch+json";
        let answer = self.send(request(Method::PATCH, &uri, Some(kind), patch.into())?).await?;
        self.whole(answer.into_body()).await
    }

    /// Sends, and turns an answer that is not a success into a problem.
    async fn send(&self, request: Request<Body>) -> Result<Response<Body>, Problem> {
        let answer = timeout(self.patience, self.connection.client().await.send(request)).await;
        let answer = answer.map_err(|_| Problem::Timeout { what: "answer", after: self.patience })?;
        let answer = answer.map_err(|error| Problem::Unreachable(chain(&error)))?;
        if matches!(answer.status(), StatusCode::OK | StatusCode::CREATED) {
            return Ok(answer);
        }
        let code = answer.status().as_u16();
        let header = answer.headers().get(header::RETRY_AFTER);
        let seconds = header.and_then(|value| value.to_str().ok()?.trim().parse().ok());
        let body = self.whole(answer.into_body()).await.unwrap_or_default();
        Err(Problem::refused(code, seconds, &Status::read(&body)))
    }

    async fn whole(&self, body: Body) -> Result<Bytes, Problem> {
        let limit = self.patience * WHOLE;
        let whole = timeout(limit, self.parts(body)).await;
        whole.unwrap_or(Err(Problem::Timeout { what: "come to the end of its answer", after: limit }))
    }

    async fn parts(&self, mut body: Body) -> Result<Bytes, Problem> {
        let mut buffer = BytesMut::new();
        loop {
            let frame = timeout(self.patience, body.frame()).await;
            let frame = frame.map_err(|_| Problem::Timeout { what: "go on with its answer", after: self.patience })?;
            match frame {
                None => return Ok(buffer.freeze()),
                Some(Err(error)) => return Err(Problem::Cut(chain(&error))),
                Some(Ok(frame)) => buffer.extend_from_slice(frame.data_ref().map_or(&[], |data| data)),
            }
            if buffer.len() > MAX_PAGE {
                return Err(Problem::Garbage(format!("an answer of more than {} MiB", MAX_PAGE >> 20)));
            }
        }
    }
}

/// The lines of a watch.
pub(super) struct Lines {
    body: Body,
    buffer: BytesMut,
    /// So much of the buffer is known to hold no line feed.
    scanned: usize,
    /// How the answer ended, once it has.
    over: Option<Result<(), Problem>>,
}

impl Lines {
    /// The next line; `None` after the last. Nothing is lost if the caller stops waiting.
    ///
    /// # Errors
    /// If nothing comes for `patience`, or the answer breaks off.
    pub(super) async fn next(&mut self, patience: Duration) -> Result<Option<Bytes>, Problem> {
        loop {
            if let Some(line) = self.line() {
                return Ok(Some(line));
            }
            if let Some(end) = &self.over {
                end.clone()?;
                // What is left has no line feed; whoever reads it will see whether it is whole.
                let rest = self.buffer.split().freeze();
                return Ok(Some(rest).filter(|rest| !rest.is_empty()));
            }
            if self.buffer.len() > MAX_LINE {
                return Err(Problem::Garbage(format!("an event of more than {} MiB", MAX_LINE >> 20)));
            }
            let frame = timeout(patience, self.body.frame()).await;
            self.take(frame.map_err(|_| Problem::Timeout { what: "send anything on a watch", after: patience })?);
        }
    }

    /// Whether [`Self::next`] would return at once.
    pub(super) fn ready(&mut self) -> bool {
        while self.over.is_none() && !self.buffer.contains(&b'\n') {
            match self.body.frame().now_or_never() {
                Some(frame) => self.take(frame),
                None => return false,
            }
        }
        true
    }

    fn line(&mut self) -> Option<Bytes> {
        let fresh = self.buffer.get(self.scanned..).unwrap_or_default();
        let Some(at) = fresh.iter().position(|byte| *byte == b'\n') else {
            self.scanned = self.buffer.len();
            return None;
        };
        let mut line = self.buffer.split_to(self.scanned + at + 1);
        line.truncate(line.len() - 1);
        self.scanned = 0;
        Some(line.freeze())
    }

    fn take(&mut self, frame: Option<Result<Frame<Bytes>, kube::Error>>) {
        match frame {
            None => self.over = Some(Ok(())),
            Some(Err(error)) => self.over = Some(Err(Problem::Cut(chain(&error)))),
            Some(Ok(frame)) => self.buffer.extend_from_slice(frame.data_ref().map_or(&[], |data| data)),
        }
    }
}

fn request(method: Method, uri: &str, kind: Option<&str>, body: Body) -> Result<Request<Body>, Problem> {
    let mut request = Request::builder().method(method).uri(uri).header(header::ACCEPT, "application/json");
    if let Some(kind) = kind {
        request = request.header(header::CONTENT_TYPE, kind);
    }
    request.body(body).map_err(|error| Problem::Unreachable(error.to_string()))
}

/// Text as part of a URI.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            _ => {
                let _ = write!(out, "%{byte:02X}");
            }
        }
    }
    out
}

/// An error with its causes. The outermost of hyper's and kube's say little ("client error (Connect)").
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let more = cause.to_string();
        if !text.contains(&more) {
            let _ = write!(text, ": {more}");
        }
        next = cause.source();
    }
    text
}

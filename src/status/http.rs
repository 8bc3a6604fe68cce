//! The HTTP server: `/healthz`, `/readyz`, `/metrics`, `/state`. Reads only, and answers nothing else.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Body;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};

use super::{View, health, metrics, state};

/// How long a client may take over its request's header.
const HEADER_TIME: Duration = Duration::from_secs(5);
/// How long a connection may last, requests and pauses together.
const CONNECTION_TIME: Duration = Duration::from_secs(60);
/// Connections at a time. One more costs the oldest that has not asked for anything yet its place.
const CONNECTIONS: usize = 64;
/// The pause after an accept that failed for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Makes the view that an answer is rendered from; called for each request.
pub type Source = Arc<dyn Fn() -> View + Send + Sync>;

/// Takes the address.
///
/// # Errors
/// A sentence for the operator.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, String> {
    TcpListener::bind(address).await.map_err(|error| {
        let hint = match error.kind() {
            io::ErrorKind::AddrInUse => {
                "; flanneld or another weft on this host may have it: stop it or choose another port"
            }
            io::ErrorKind::AddrNotAvailable => "; no interface of this host has that address",
            _ => "",
        };
        format!("the HTTP server cannot listen on {address} (--healthz-ip, --healthz-port): {error}{hint}")
    })
}

/// Answers for ever. Dropping the future ends the server and every connection.
pub async fn serve(listener: TcpListener, source: Source) -> Infallible {
    let mut connections = Connections::default();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                connections.add(stream, source.clone());
                // What it has sent already is read before the next may take its place.
                tokio::task::yield_now().await;
            }
            Err(error) => {
                tracing::debug!("the HTTP server could not accept a connection: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// The connections that are open. A connection costs nothing to make: whoever makes many and says nothing
/// (a port scan, a broken client) must not keep the kubelet's probe waiting.
#[derive(Default)]
struct Connections {
    tasks: JoinSet<()>,
    /// In the order in which they came.
    open: VecDeque<Open>,
}

struct Open {
    task: AbortHandle,
    asked: Arc<AtomicBool>,
}

impl Connections {
    /// Takes one in; there is always a place.
    fn add(&mut self, stream: TcpStream, source: Source) {
        while self.tasks.try_join_next().is_some() {}
        self.open.retain(|open| !open.task.is_finished());
        if self.open.len() >= CONNECTIONS {
            let silent = self.open.iter().position(|open| !open.asked.load(Ordering::Relaxed));
            if let Some(oldest) = self.open.remove(silent.unwrap_or(0)) {
                oldest.task.abort();
            }
        }
        let asked = Arc::new(AtomicBool::new(false));
        let task = self.tasks.spawn(connection(stream, source, asked.clone()));
        self.open.push_back(Open { task, asked });
    }
}

async fn connection(stream: TcpStream, source: Source, asked: Arc<AtomicBool>) {
    let service = service_fn(|request| {
        asked.store(true, Ordering::Relaxed);
        let answer = answer(&request, &source);
        async move { Ok::<_, Infallible>(answer) }
    });
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEADER_TIME).max_buf_size(16 * 1024);
    let connection = server.serve_connection(TokioIo::new(stream), service);
    // A client that breaks off is its own business.
    let _ = tokio::time::timeout(CONNECTION_TIME, connection).await;
}

/// The answer to one request.
pub fn answer<B: Body>(request: &Request<B>, source: &Source) -> Response<Full<Bytes>> {
    const TEXT: &str = "text/plain; charset=utf-8";
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let mut refusal = page(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET and HEAD\n".to_owned());
        refusal.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refusal;
    }
    match request.uri().path() {
        "/healthz" => verdict(health::live(&source())),
        "/readyz" => verdict(health::ready(&source())),
        "/metrics" => page(StatusCode::OK, metrics::CONTENT_TYPE, metrics::render(&source())),
        "/state" => page(StatusCode::OK, "application/json", state::render(&source())),
        _ => page(StatusCode::NOT_FOUND, TEXT, "there is /healthz, /readyz, /metrics and /state\n".to_owned()),
    }
}

fn verdict(verdict: Result<(), Vec<String>>) -> Response<Full<Bytes>> {
    const TEXT: &str = "text/plain; charset=utf-8";
    match verdict {
        Ok(()) => page(StatusCode::OK, TEXT, "ok\n".to_owned()),
        Err(sentences) => page(StatusCode::SERVICE_UNAVAILABLE, TEXT, sentences.join("\n") + "\n"),
    }
}

fn page(status: StatusCode, content_type: &'static str, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

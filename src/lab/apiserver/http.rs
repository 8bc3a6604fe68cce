//! From connection to answer.

use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::header::{ACCEPT, CONTENT_TYPE, RETRY_AFTER, USER_AGENT};
use http::request::Parts;
use http::{HeaderName, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};

use super::discovery;
use super::fault::Action;
use super::list::{self, Filter};
use super::managed::Manager;
use super::render::{Form, Render};
use super::route::{self, Query, Resource, Target, Verb, Version};
use super::selector::Selector;
use super::shared::Shared;
use super::status::Failure;
use super::store::Object;
use super::watch::Watch;
use super::write::Write;

type Body = UnsyncBoxBody<Bytes, io::Error>;

/// The largest body that is read, as etcd and the API server have it: 3 MiB.
const MAX_BODY: usize = 3 << 20;

/// Accepts connections for ever.
pub(super) async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => drop(tokio::spawn(connection(stream, Arc::clone(&shared)))),
            Err(error) => {
                tracing::debug!(%error, "lab API server: accept");
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, shared: Arc<Shared>) {
    // Failing only delays small answers.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| answer(Arc::clone(&shared), request));
    if let Err(error) = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await {
        tracing::trace!(%error, "lab API server: connection");
    }
}

/// A request, parsed.
struct Call {
    parts: Parts,
    body: Bytes,
    query: Query,
    target: Target,
    version: Version,
    verb: Verb,
}

/// An answer that is no failure.
enum Answer {
    /// A document, with its HTTP status.
    Whole(StatusCode, Bytes),
    /// A list, in pieces.
    Pieces(Vec<Bytes>),
    /// A watch.
    Lines(Box<Watch>),
}

async fn answer(shared: Arc<Shared>, request: Request<Incoming>) -> Result<Response<Body>, io::Error> {
    let (parts, body) = request.into_parts();
    let parsed = match Limited::new(body, MAX_BODY).collect().await {
        Ok(body) => parse(parts, body.to_bytes()),
        Err(_) => Err(Failure::bad_request("the body broke off, or is larger than 3 MiB")),
    };
    let call = match parsed {
        Ok(call) => call,
        Err(failure) => return Ok(refusal(&failure)),
    };
    let fault = shared.note(call.verb, &call.parts.method, &call.parts.uri);
    match &fault {
        Some(Action::Hang) => pending().await,
        Some(Action::Drop) => return Err(io::ErrorKind::ConnectionAborted.into()),
        Some(Action::Delay(time)) => tokio::time::sleep(*time).await,
        Some(Action::Garbage) => return Ok(page()),
        Some(Action::Refuse { code, retry_after }) => return Ok(refusal(&Failure::injected(*code, *retry_after))),
        _ => {}
    }
    Ok(match dispatch(&shared, &call, fault.as_ref()) {
        Ok(answer) => respond(answer, fault.as_ref()),
        Err(failure) => refusal(&failure),
    })
}

fn parse(parts: Parts, body: Bytes) -> Result<Call, Failure> {
    let query = Query::parse(parts.uri.query().unwrap_or_default());
    let (target, version) = route::target(parts.uri.path())?;
    let verb = Verb::of(&parts.method, &target, &query)?;
    Ok(Call { parts, body, query, target, version, verb })
}

fn header(parts: &Parts, name: HeaderName) -> &str {
    parts.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

fn dispatch(shared: &Arc<Shared>, call: &Call, fault: Option<&Action>) -> Result<Answer, Failure> {
    match &call.target {
        Target::Document => {
            let document = discovery::document(call.parts.uri.path())?;
            let text = document.as_str().map_or_else(|| document.to_string(), str::to_owned);
            Ok(Answer::Whole(StatusCode::OK, text.into()))
        }
        Target::Empty(kind) => {
            let text =
                format!(r#"{{"kind":"{kind}","apiVersion":"v1","metadata":{{"resourceVersion":"1"}},"items":[]}}"#);
            Ok(Answer::Whole(StatusCode::OK, text.into()))
        }
        Target::Collection(resource, namespace) => collection(shared, call, *resource, namespace.as_deref(), fault),
        Target::Object(resource, key, status) => object(shared, call, *resource, key, *status),
    }
}

fn render(call: &Call, resource: Resource) -> Render {
    Render { resource, version: call.version, form: Form::accepted(header(&call.parts, ACCEPT)) }
}

fn collection(
    shared: &Arc<Shared>,
    call: &Call,
    resource: Resource,
    namespace: Option<&str>,
    fault: Option<&Action>,
) -> Result<Answer, Failure> {
    let render = render(call, resource);
    if call.verb == Verb::Create {
        must_be_json(call)?;
        let made = shared.write(|store| write(call, resource, false).create(store, namespace))?;
        return Ok(Answer::Whole(StatusCode::CREATED, render.one(&made)));
    }
    let filter = Filter { namespace: namespace.map(str::to_owned), selector: Selector::parse(&call.query)? };
    match call.verb {
        Verb::Watch | Verb::StreamingList => {
            let watch = Watch::begin(shared, render, filter, &call.query, fault)?;
            Ok(Answer::Lines(Box::new(watch)))
        }
        _ => Ok(Answer::Pieces(list::list(&shared.store(), render, &call.query, &filter, fault)?)),
    }
}

fn content_type(call: &Call) -> &str {
    header(&call.parts, CONTENT_TYPE).split(';').next().unwrap_or_default().trim()
}

/// An object without a content type is taken for JSON.
fn must_be_json(call: &Call) -> Result<(), Failure> {
    match content_type(call) {
        "" | "application/json" => Ok(()),
        other => Err(Failure::unsupported(other, &["application/json"])),
    }
}

fn object(shared: &Shared, call: &Call, resource: Resource, key: &str, status: bool) -> Result<Answer, Failure> {
    let write = write(call, resource, status);
    let object: Object = match call.verb {
        Verb::Update => {
            must_be_json(call)?;
            shared.write(|store| write.update(store, key))?
        }
        Verb::Patch => shared.write(|store| write.patch(store, key, content_type(call)))?,
        Verb::Delete => {
            let gone = shared.write(|store| write.delete(store, key))?;
            return Ok(Answer::Whole(StatusCode::OK, gone.to_string().into()));
        }
        _ => {
            let name = key.rsplit('/').next().unwrap_or(key);
            let found = shared.store().get(resource, key).cloned();
            found.ok_or_else(|| Failure::no_object(resource.plural(), name))?
        }
    };
    Ok(Answer::Whole(StatusCode::OK, render(call, resource).one(&object)))
}

fn write(call: &Call, resource: Resource, status: bool) -> Write<'_> {
    let agent = header(&call.parts, USER_AGENT).split('/').next().unwrap_or_default();
    let name = call.query.get("fieldManager").unwrap_or(if agent.is_empty() { "unknown" } else { agent }).to_owned();
    Write {
        resource,
        version: call.version,
        manager: Manager { name, status },
        dry_run: call.query.get("dryRun").is_some(),
        body: &call.body,
    }
}

fn respond(answer: Answer, fault: Option<&Action>) -> Response<Body> {
    let (status, mut pieces) = match answer {
        Answer::Whole(status, body) => (status, vec![body]),
        Answer::Pieces(pieces) => (StatusCode::OK, pieces),
        Answer::Lines(watch) => {
            let frames = watch.lines().map(|line| Ok(Frame::data(line)));
            return json_response(StatusCode::OK, StreamBody::new(frames).boxed_unsync());
        }
    };
    if fault == Some(&Action::Truncate) {
        pieces.truncate(pieces.len().div_ceil(2));
        if let Some(last) = pieces.last_mut() {
            last.truncate(last.len() / 2);
        }
        // hyper sends what it has only once the body makes it wait.
        let cut = stream::once(async {
            tokio::task::yield_now().await;
            Err(io::ErrorKind::UnexpectedEof.into())
        });
        let frames = stream::iter(pieces.into_iter().map(|piece| Ok(Frame::data(piece)))).chain(cut);
        return json_response(status, StreamBody::new(frames).boxed_unsync());
    }
    if let [one] = pieces.as_slice() {
        return json_response(status, full(one.clone()));
    }
    let frames = stream::iter(pieces.into_iter().map(|piece| Ok(Frame::data(piece))));
    json_response(status, StreamBody::new(frames).boxed_unsync())
}

fn full(body: Bytes) -> Body {
    Full::new(body).map_err(|never: Infallible| match never {}).boxed_unsync()
}

fn json_response(status: StatusCode, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    response
}

fn refusal(failure: &Failure) -> Response<Body> {
    let status = StatusCode::from_u16(failure.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = json_response(status, full(failure.body().to_string().into()));
    if let Some(seconds) = failure.retry_after {
        response.headers_mut().insert(RETRY_AFTER, seconds.into());
    }
    response
}

fn page() -> Response<Body> {
    json_response(StatusCode::OK, full(Bytes::from_static(b"<html><body>Welcome to this network</body></html>")))
}

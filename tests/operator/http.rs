//! The HTTP server, over real sockets.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use weft::status::http::{Source, bind, serve};

use crate::world::World;

/// Runs against a server of a world that has made one pass.
fn with_server(client: impl FnOnce(SocketAddr) + Send + 'static) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let mut world = World::with_peers(1);
        world.pass();
        let view = world.view();
        let source: Source = Arc::new(move || view.clone());
        let listener = bind((Ipv4Addr::LOCALHOST, 0).into()).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let client = tokio::task::spawn_blocking(move || client(address));
        tokio::select! {
            never = serve(listener, source) => match never {},
            done = client => done.expect("the client is content"),
        }
    });
}

fn exchange(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("connected");
    stream.write_all(request.as_bytes()).expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

fn get(address: SocketAddr, path: &str) -> (String, String) {
    let answer = exchange(address, &format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"));
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    (head.to_owned(), body.to_owned())
}

#[test]
fn the_four_pages_are_there_and_nothing_else() {
    with_server(|address| {
        for (path, status, content_type, beginning) in [
            ("/healthz", "200 OK", "text/plain; charset=utf-8", "ok\n"),
            ("/readyz", "200 OK", "text/plain; charset=utf-8", "ok\n"),
            ("/readyz?verbose", "200 OK", "text/plain; charset=utf-8", "ok\n"),
            ("/metrics", "200 OK", "application/openmetrics-text; version=1.0.0; charset=utf-8", "# HELP weft_build "),
            ("/state", "200 OK", "application/json", "{\n  \"version\""),
            ("/", "404 Not Found", "text/plain; charset=utf-8", "there is /healthz"),
            ("/metrics/", "404 Not Found", "text/plain; charset=utf-8", "there is /healthz"),
            ("/debug/pprof", "404 Not Found", "text/plain; charset=utf-8", "there is /healthz"),
        ] {
            let (head, body) = get(address, path);
            assert!(head.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{path}: {head}");
            assert!(head.contains(&format!("content-type: {content_type}\r\n")), "{path}: {head}");
            assert!(body.starts_with(beginning), "{path}: {body}");
        }
    });
}

#[test]
fn head_has_no_body_and_other_methods_are_refused() {
    with_server(|address| {
        let head = exchange(address, "HEAD /state HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.ends_with("\r\n\r\n"), "{head}");
        let post =
            exchange(address, "POST /state HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        assert!(post.starts_with("HTTP/1.1 405 Method Not Allowed\r\n"), "{post}");
        assert!(post.contains("allow: GET, HEAD\r\n"), "{post}");
    });
}

#[test]
fn silent_clients_never_keep_others_out() {
    with_server(|address| {
        let connect = |_| TcpStream::connect(address).expect("connected");
        // A client that has been answered, and keeps its connection.
        let mut regular = connect(0);
        let ask = |stream: &mut TcpStream| {
            stream.write_all(b"HEAD /healthz HTTP/1.1\r\nHost: x\r\n\r\n").expect("sent");
            let (mut answer, mut byte) = (Vec::new(), [0]);
            while !answer.ends_with(b"\r\n\r\n") {
                stream.read_exact(&mut byte).expect("an answer");
                answer.extend(byte);
            }
            assert!(answer.starts_with(b"HTTP/1.1 200"));
        };
        ask(&mut regular);
        // Far more than there are places, none of which says anything, half of them a header's beginning.
        let mut silent: Vec<TcpStream> = (0..200).map(connect).collect();
        silent.iter_mut().step_by(2).for_each(|stream| stream.write_all(b"GET /hea").expect("sent"));
        let began = Instant::now();
        let (head, _) = get(address, "/healthz");
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        // The first of them went for it, long before a header would be overdue.
        let mut gone = [0; 1];
        silent[0].set_read_timeout(Some(Duration::from_secs(30))).expect("a time-out");
        assert!(matches!(silent[0].read(&mut gone), Ok(0) | Err(_)));
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
        ask(&mut regular);
    });
}

#[test]
fn a_port_that_is_taken_is_said_in_a_sentence() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let holder = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let address = holder.local_addr().expect("an address");
        let error = bind(address).await.expect_err("taken");
        assert_eq!(
            error,
            format!(
                "the HTTP server cannot listen on {address} (--healthz-ip, --healthz-port): Address already in use \
                 (os error 98); flanneld or another weft on this host may have it: stop it or choose another port"
            )
        );
    });
}

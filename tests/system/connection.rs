//! Which API server the agent asks, and as whom: what arrives there.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use serde_json::{Value, json};

use crate::agent::binary;
use crate::sandbox::DIRECTORY;
use crate::stage::SOON;
use crate::world::within;

crate::tests![
    a_pod_keeps_its_service_account_at_another_address,
    a_kubeconfig_is_read_again_when_it_changes,
    a_certificate_that_is_rotated_is_shown_at_the_next_connection,
    the_environments_proxy_is_none_of_wefts_business,
];

/// Where [`Running::server`] listens; each test has a loopback of its own.
const SERVER: &str = "127.0.0.1:6443";

/// A program that ends with its test, and where its log is.
struct Running {
    child: Child,
    log: PathBuf,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Running {
    fn start(command: &mut Command, log: PathBuf) -> Self {
        let file = std::fs::File::create(&log).expect("a file");
        command.stdin(Stdio::null()).stdout(file.try_clone().expect("a file")).stderr(file);
        Self { child: command.spawn().expect("to start"), log }
    }

    /// An agent that has an API server to find, and no more.
    fn weft(directory: &Path, arguments: &[String], environment: &[(&str, &str)]) -> Self {
        let net_conf = directory.join("net-conf.json");
        std::fs::write(&net_conf, json!({ "Network": "10.240.0.0/12" }).to_string()).expect("to write");
        let mut command = Command::new(binary());
        command.args(["run", "--node-name=us", "--net-config-path"]).arg(&net_conf).args(arguments);
        command.arg("--subnet-file").arg(directory.join("subnet.env"));
        Self::start(command.env_clear().envs(environment.iter().copied()), directory.join("log"))
    }

    /// `openssl s_server`: answers every request with a page that is no Node list, and says who connected. With
    /// `clients`, whoever connects must show a certificate of that CA.
    fn server(directory: &Path, clients: Option<&str>) -> Self {
        let mut command = Command::new("openssl");
        command.args(["s_server", "-www", "-accept", SERVER, "-cert", "server.crt", "-key", "server.key"]);
        command.args(clients.into_iter().flat_map(|ca| ["-Verify", "1", "-CAfile", ca]));
        let server = Self::start(command.current_dir(directory), directory.join("server.log"));
        within(SOON, "a server", || TcpStream::connect(SERVER).map(drop));
        server
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).expect("a log")
    }
}

/// A directory that nobody else has.
fn directory(name: &str) -> PathBuf {
    let directory = Path::new(DIRECTORY).join(format!("connection-{name}"));
    std::fs::create_dir(&directory).expect("a directory");
    directory
}

/// A listener, and what to call it.
fn listener() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    (listener, url)
}

/// The header of the next request; it is refused.
fn request(listener: &TcpListener) -> String {
    listener.set_nonblocking(true).expect("a listener");
    let mut stream: TcpStream = within(SOON, "a request", || listener.accept().map(|(stream, _)| stream));
    stream.set_nonblocking(false).expect("a stream");
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") && stream.read_exact(&mut byte).is_ok() {
        head.extend(byte);
    }
    let _ = stream.write_all(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    String::from_utf8(head).expect("text").to_lowercase()
}

fn kubeconfig(cluster: &Value, user: &Value) -> String {
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "contexts": [{ "name": "c", "context": { "cluster": "c", "user": "u" } }],
        "clusters": [{ "name": "c", "cluster": cluster }],
        "users": [{ "name": "u", "user": user }],
    })
    .to_string()
}

/// Puts a file in the place of another in one step, as whoever rotates credentials does.
fn replace(path: &Path, text: &str) {
    let beside = path.with_extension("new");
    std::fs::write(&beside, text).expect("to write");
    std::fs::rename(beside, path).expect("to rename");
}

/// A CA, a certificate of a server at 127.0.0.1, and two of clients: `ca`, `server`, `old` and `new`, each with
/// its key.
fn certificates(directory: &Path) {
    let script = "
        set -e
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=ca -keyout ca.key -out ca.crt
        for name in server old new; do
            openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=$name-one -keyout $name.key -out $name.csr
            printf 'subjectAltName=IP:127.0.0.1\\nbasicConstraints=CA:FALSE\\n' > $name.ext
            openssl x509 -req -in $name.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile $name.ext -out $name.crt
        done";
    let made = Command::new("sh").args(["-c", script]).current_dir(directory).output().expect("a shell");
    assert!(made.status.success(), "openssl: {}", String::from_utf8_lossy(&made.stderr));
}

fn a_pod_keeps_its_service_account_at_another_address() {
    let directory = directory("pod");
    certificates(&directory);
    // A mount of this thread's own: the other tests are in no pod.
    std::fs::create_dir_all("/run/secrets").expect("a directory");
    unshare(CloneFlags::CLONE_NEWNS).expect("a mount namespace");
    mount(Some("tmpfs"), "/run/secrets", Some("tmpfs"), MsFlags::empty(), None::<&str>).expect("a tmpfs");
    let account = Path::new("/var/run/secrets/kubernetes.io/serviceaccount");
    std::fs::create_dir_all(account).expect("a directory");
    std::fs::copy(directory.join("ca.crt"), account.join("ca.crt")).expect("to copy");
    for (file, text) in [("token", "sesame"), ("namespace", "weft")] {
        std::fs::write(account.join(file), text).expect("to write");
    }
    let (listener, url) = listener();
    let weft = Running::weft(&directory, &[format!("--kube-api-url={url}")], &[]);
    let head = request(&listener);
    assert!(head.contains("authorization: bearer sesame\r\n"), "{head}\n{}", weft.log());
    drop(weft);
    // A server whose certificate is of the pod's CA.
    let _server = Running::server(&directory, None);
    let weft = Running::weft(&directory, &[format!("--kube-api-url=https://{SERVER}")], &[]);
    within(SOON, "a request that went through", || {
        weft.log().contains("sent what is not JSON").then_some(()).ok_or_else(|| weft.log())
    });
}

fn a_kubeconfig_is_read_again_when_it_changes() {
    let directory = directory("kubeconfig");
    let file = directory.join("kubeconfig");
    let (listener, url) = listener();
    let with = |token: &str| kubeconfig(&json!({ "server": url }), &json!({ "token": token }));
    replace(&file, &with("one"));
    let weft = Running::weft(&directory, &[format!("--kubeconfig-file={}", file.display())], &[]);
    let asks_as = |token: &str| {
        let head = request(&listener);
        head.contains(&format!("authorization: bearer {token}\r\n")).then_some(()).ok_or(head)
    };
    asks_as("one").expect("the first request");
    replace(&file, &with("two"));
    // One may have been on its way.
    within(SOON, "a request with the new token", || asks_as("two"));
    // Half a file is no reason to give up.
    replace(&file, "users: [");
    asks_as("two").expect("what was read before");
    asks_as("two").expect("what was read before");
    let complaints = weft.log().matches("weft goes on with what it read before").count();
    assert_eq!(complaints, 1, "{}", weft.log());
    replace(&file, &with("three"));
    within(SOON, "a request with the third token", || asks_as("three"));
}

fn a_certificate_that_is_rotated_is_shown_at_the_next_connection() {
    let directory = directory("rotation");
    certificates(&directory);
    let put = |name: &str| {
        for kind in ["key", "crt"] {
            let text = std::fs::read_to_string(directory.join(format!("{name}.{kind}"))).expect("to read");
            replace(&directory.join(format!("client-current.{kind}")), &text);
        }
    };
    put("old");
    let server = Running::server(&directory, Some("ca.crt"));
    let file = directory.join("kubeconfig");
    let cluster = json!({ "server": format!("https://{SERVER}"), "certificate-authority": "ca.crt" });
    replace(
        &file,
        &kubeconfig(
            &cluster,
            &json!({ "client-certificate": "client-current.crt", "client-key": "client-current.key" }),
        ),
    );
    let weft = Running::weft(&directory, &[format!("--kubeconfig-file={}", file.display())], &[]);
    let shown = |name: &str| {
        let log = server.log();
        if log.replace(' ', "").contains(&format!("CN={name}-one")) {
            Ok(())
        } else {
            Err(format!("{log}\n{}", weft.log()))
        }
    };
    within(SOON, "the old certificate", || shown("old"));
    put("new");
    within(SOON, "the new certificate", || shown("new"));
}

fn the_environments_proxy_is_none_of_wefts_business() {
    let directory = directory("proxy");
    let file = directory.join("kubeconfig");
    let (listener, url) = listener();
    replace(&file, &kubeconfig(&json!({ "server": url }), &json!({ "token": "one" })));
    let arguments = [format!("--kubeconfig-file={}", file.display())];
    for proxy in ["http://127.0.0.1:9", "not a URL"] {
        let weft = Running::weft(&directory, &arguments, &[("HTTPS_PROXY", proxy), ("https_proxy", proxy)]);
        let head = request(&listener);
        assert!(head.starts_with("get /api/v1/nodes?"), "{head}\n{}", weft.log());
    }
    // One that the kubeconfig asks for is another matter.
    replace(&file, &kubeconfig(&json!({ "server": url, "proxy-url": "http://127.0.0.1:9" }), &json!({})));
    let mut weft = Running::weft(&directory, &arguments, &[]);
    let ended = weft.child.wait().expect("the end of weft");
    assert_eq!(ended.code(), Some(1));
    let log = weft.log();
    assert!(log.contains("asks for the proxy http://127.0.0.1:9/ (proxy-url); weft knows no proxies"), "{log}");
}

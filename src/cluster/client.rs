//! The connection to the API server: which, and as whom.

use std::fs::metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use tokio::sync::Mutex;
use tracing::{info, warn};

/// How long a TCP and TLS handshake may take.
const CONNECT: Duration = Duration::from_secs(5);
/// How long a write may block.
const WRITE: Duration = Duration::from_secs(30);
/// What makes a container one of a pod with a service account.
const POD_TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";
/// Stands in a kubeconfig where there is no proxy, so that the environment is not asked for one.
const NO_PROXY: &str = "http://none.invalid/";

/// What the operator said about the API server. Nothing is guessed: no `$KUBECONFIG`, no `~/.kube`, no
/// `$HTTPS_PROXY`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientOptions {
    /// `--kubeconfig-file`.
    pub kubeconfig: Option<PathBuf>,
    /// `--kube-api-url`: in the place of the kubeconfig's server, or of the pod's; outside a pod and without a
    /// kubeconfig there are no credentials.
    pub api_url: Option<String>,
}

/// Why there can be no client.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The kubeconfig is missing, unreadable or incomplete.
    #[error("--kubeconfig-file {path:?}: {problem}")]
    Kubeconfig {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// `--kube-api-url` is no URL.
    #[error("--kube-api-url {url:?}: {problem}; it should look like https://10.0.0.1:6443")]
    Url {
        /// As given.
        url: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Nothing was given, and this is not a pod.
    #[error(
        "no API server: neither --kubeconfig-file nor --kube-api-url is given, and this is not a pod with a service \
         account ({0})"
    )]
    NotInCluster(String),
    /// A pod, but what it has of its service account cannot be read.
    #[error("the pod's service account cannot be used: {0}")]
    ServiceAccount(String),
    /// The TLS set-up failed.
    #[error("the credentials for the API server cannot be used: {0}")]
    Credentials(String),
}

/// The API server that was asked for, and who we are there.
///
/// A kubeconfig and the certificates and keys that it names are read again when they change: who rotates them
/// (kubelet, cert-manager) replaces the files and tells nobody. A pod's token and CA are read again by the client
/// itself, every minute.
#[derive(Clone)]
pub struct Connection(Arc<Shared>);

struct Shared {
    options: ClientOptions,
    made: Mutex<Made>,
}

struct Made {
    client: Client,
    /// What it was made from, as it was then.
    files: Files,
    /// As the files were when no client could be made of them.
    unusable: Option<Files>,
}

/// Files, each by what changes whenever it is written or replaced; `None` if it is not there.
type Files = Vec<(PathBuf, Option<[i64; 4]>)>;

/// Connects to the API server that was asked for. Makes no request yet.
pub async fn connect(options: &ClientOptions) -> Result<Connection, ClientError> {
    let (client, files) = make(options).await?;
    let made = Mutex::new(Made { client, files, unusable: None });
    Ok(Connection(Arc::new(Shared { options: options.clone(), made })))
}

impl Connection {
    /// The client to make a request with: a new one if its files have changed. One that cannot be made (half of
    /// the files are replaced) is no reason to give up the one that there is.
    pub(super) async fn client(&self) -> Client {
        let mut made = self.0.made.lock().await;
        let now: Files = made.files.iter().map(|(path, _)| stamped(path.clone())).collect();
        if now == made.files || made.unusable.as_ref() == Some(&now) {
            return made.client.clone();
        }
        match make(&self.0.options).await {
            Ok((client, files)) => {
                info!(
                    "the kubeconfig, or a file that it names, has changed: the API server is asked with what it says now"
                );
                *made = Made { client, files, unusable: None };
            }
            Err(problem) => {
                warn!("{problem}; weft goes on with what it read before, and looks again when the files change");
                made.unusable = Some(now);
            }
        }
        made.client.clone()
    }
}

/// A client, and the files that it was made from as they were before they were read.
///
/// Retries are ours alone (the client's own would hide refusals from the counters). There is no read
/// time-out on the connection, which would cut watches: each request has its own.
async fn make(options: &ClientOptions) -> Result<(Client, Files), ClientError> {
    let (mut config, files) = match (&options.kubeconfig, &options.api_url) {
        (Some(path), _) => from_kubeconfig(path).await?,
        (None, None) => {
            let config = Config::incluster().map_err(|error| ClientError::NotInCluster(error.to_string()))?;
            (config, Files::new())
        }
        // Without the address in the environment, which nobody needs here.
        (None, Some(_)) if Path::new(POD_TOKEN).exists() => {
            let config = Config::incluster_dns().map_err(|error| ClientError::ServiceAccount(error.to_string()))?;
            (config, Files::new())
        }
        (None, Some(url)) => (Config::new(parse_url(url)?), Files::new()),
    };
    if let Some(url) = &options.api_url {
        config.cluster_url = parse_url(url)?;
    }
    config.default_retry = false;
    config.connect_timeout = Some(CONNECT);
    config.read_timeout = None;
    config.write_timeout = Some(WRITE);
    let client = Client::try_from(config).map_err(|error| ClientError::Credentials(error.to_string()))?;
    Ok((client, files))
}

async fn from_kubeconfig(path: &Path) -> Result<(Config, Files), ClientError> {
    let problem = |problem: String| ClientError::Kubeconfig { path: path.to_owned(), problem };
    let mut files = vec![stamped(path.to_owned())];
    let mut kubeconfig = Kubeconfig::read_from(path).map_err(|error| problem(error.to_string()))?;
    for cluster in kubeconfig.clusters.iter_mut().filter_map(|named| named.cluster.as_mut()) {
        files.extend(cluster.certificate_authority.iter().map(|file| stamped(file.into())));
        if cluster.proxy_url.as_deref().is_none_or(str::is_empty) {
            cluster.proxy_url = Some(NO_PROXY.to_owned());
        }
    }
    for user in kubeconfig.auth_infos.iter().filter_map(|named| named.auth_info.as_ref()) {
        files.extend(user.client_certificate.iter().chain(&user.client_key).map(|file| stamped(file.into())));
    }
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
    let mut config = config.map_err(|error| problem(error.to_string()))?;
    match config.proxy_url.take() {
        Some(proxy) if proxy != NO_PROXY => Err(problem(format!(
            "it asks for the proxy {proxy} (proxy-url); weft knows no proxies: it needs a direct way to the API server"
        ))),
        _ => Ok((config, files)),
    }
}

fn stamped(path: PathBuf) -> (PathBuf, Option<[i64; 4]>) {
    let of = metadata(&path).ok();
    let stamp = of.map(|of| [of.ino().cast_signed(), of.size().cast_signed(), of.mtime(), of.mtime_nsec()]);
    (path, stamp)
}

fn parse_url(url: &str) -> Result<http::Uri, ClientError> {
    let problem = |problem: &str| ClientError::Url { url: url.to_owned(), problem: problem.to_owned() };
    let uri: http::Uri = url.parse().map_err(|error: http::uri::InvalidUri| problem(&error.to_string()))?;
    match (uri.scheme_str(), uri.host()) {
        (Some("http" | "https"), Some(_)) => Ok(uri),
        _ => Err(problem("no scheme http or https, or no host")),
    }
}

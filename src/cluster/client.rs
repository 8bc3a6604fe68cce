//! The connection to the API server: which, and as whom.

use std::path::{Path, PathBuf};
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

/// How long a TCP and TLS handshake may take.
const CONNECT: Duration = Duration::from_secs(5);
/// How long a write may block.
const WRITE: Duration = Duration::from_secs(30);

/// What the operator said about the API server. Nothing is guessed: no `$KUBECONFIG`, no `~/.kube`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientOptions {
    /// `--kubeconfig-file`.
    pub kubeconfig: Option<PathBuf>,
    /// `--kube-api-url`: in the place of the kubeconfig's server; alone, without credentials.
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
    /// The TLS set-up failed.
    #[error("the credentials for the API server cannot be used: {0}")]
    Credentials(String),
}

/// A client for the API server that was asked for. Makes no request yet.
///
/// Retries are ours alone (the client's own would hide refusals from the counters). There is no read
/// time-out on the connection, which would cut watches: each request has its own.
pub async fn connect(options: &ClientOptions) -> Result<Client, ClientError> {
    let mut config = match (&options.kubeconfig, &options.api_url) {
        (Some(path), _) => from_kubeconfig(path).await?,
        (None, Some(url)) => Config::new(parse_url(url)?),
        (None, None) => Config::incluster().map_err(|error| ClientError::NotInCluster(error.to_string()))?,
    };
    if let Some(url) = &options.api_url {
        config.cluster_url = parse_url(url)?;
    }
    config.default_retry = false;
    config.connect_timeout = Some(CONNECT);
    config.read_timeout = None;
    config.write_timeout = Some(WRITE);
    Client::try_from(config).map_err(|error| ClientError::Credentials(error.to_string()))
}

async fn from_kubeconfig(path: &Path) -> Result<Config, ClientError> {
    let problem = |problem: String| ClientError::Kubeconfig { path: path.to_owned(), problem };
    let kubeconfig = Kubeconfig::read_from(path).map_err(|error| problem(error.to_string()))?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
    config.map_err(|error| problem(error.to_string()))
}

fn parse_url(url: &str) -> Result<http::Uri, ClientError> {
    let problem = |problem: &str| ClientError::Url { url: url.to_owned(), problem: problem.to_owned() };
    let uri: http::Uri = url.parse().map_err(|error: http::uri::InvalidUri| problem(&error.to_string()))?;
    match (uri.scheme_str(), uri.host()) {
        (Some("http" | "https"), Some(_)) => Ok(uri),
        _ => Err(problem("no scheme http or https, or no host")),
    }
}

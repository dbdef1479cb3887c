//! An S3 server in this process, on loopback or a network of the test's own: `s3s-fs` over a temporary folder. It counts requests by what they ask for
//! (so that "no LIST" is the store's own word), and does to them what a test plants.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use anyhow::{Context, Result};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use tempfile::TempDir;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls;

/// The access key id that the server knows.
pub const ACCESS_KEY_ID: &str = "AKIDTESTS";

/// The secret that goes with it; a test greps everything for it.
pub const SECRET_ACCESS_KEY: &str = "s3cret-Of-The-Tests-4f1c";

/// The bucket that is there at the start.
pub const BUCKET: &str = "metrics";

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Asked {
    /// An object to be stored.
    Put,
    /// An object, or a range of it.
    Get,
    /// An object's length.
    Head,
    /// An object to be deleted.
    Delete,
    /// A listing.
    List,
    /// Anything else.
    Other,
}

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is carried out and answered.
    Served,
    /// The same, after a while.
    Late(Duration),
    /// Nothing happens, and the answer is 503.
    Refused,
    /// Nothing happens, and there is no answer, ever.
    Swallowed,
    /// It is carried out, and there is no answer, ever.
    AnswerLost,
}

type Judge = Box<dyn Fn(Asked, &str) -> Fate + Send>;

#[derive(Default)]
struct Shared {
    counts: Mutex<BTreeMap<Asked, u64>>,
    judge: Mutex<Option<Judge>>,
}

/// The server; it ends when dropped, with its objects.
pub struct S3Server {
    address: SocketAddr,
    /// The certificate, if it speaks TLS.
    certificate_pem: Option<String>,
    shared: Arc<Shared>,
    folder: TempDir,
    // Dropped last: its tasks serve.
    runtime: Option<tokio::runtime::Runtime>,
}

impl S3Server {
    /// Starts it on a port that the system chooses, with an empty bucket.
    pub fn start() -> Result<S3Server> {
        S3Server::start_on(Ipv4Addr::LOCALHOST)
    }

    /// The same on another address of this thread's machine.
    pub fn start_on(address: Ipv4Addr) -> Result<S3Server> {
        S3Server::start_with(address, None)
    }

    /// The same behind TLS, with a certificate that nobody knows.
    pub fn start_tls() -> Result<S3Server> {
        let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()])?;
        let key = rustls::pki_types::PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)?;
        S3Server::start_with(Ipv4Addr::LOCALHOST, Some((TlsAcceptor::from(Arc::new(config)), made.cert.pem())))
    }

    fn start_with(address: Ipv4Addr, tls: Option<(TlsAcceptor, String)>) -> Result<S3Server> {
        let folder = tempfile::Builder::new().prefix("bellrock-s3s-").tempdir()?;
        std::fs::create_dir(folder.path().join(BUCKET))?;
        let fs = s3s_fs::FileSystem::new(folder.path()).map_err(|e| anyhow::anyhow!("{e:?}"))?;
        let mut builder = S3ServiceBuilder::new(fs);
        builder.set_auth(SimpleAuth::from_single(ACCESS_KEY_ID, SECRET_ACCESS_KEY));
        let (service, shared) = (builder.build(), Arc::new(Shared::default()));
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let listener = std::net::TcpListener::bind((address, 0)).context("listen")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let serving = shared.clone();
        let (acceptor, certificate_pem) = tls.unzip();
        runtime.spawn(async move {
            match tokio::net::TcpListener::from_std(listener) {
                Ok(listener) => accept(listener, acceptor, service, serving).await,
                Err(error) => panic!("a socket is not taken: {error}"),
            }
        });
        Ok(S3Server { address, certificate_pem, shared, folder, runtime: Some(runtime) })
    }

    /// Its URL.
    pub fn endpoint(&self) -> String {
        let scheme = if self.certificate_pem.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// Its certificate, if it speaks TLS.
    pub fn certificate_pem(&self) -> Option<&str> {
        self.certificate_pem.as_deref()
    }

    /// The folder of the bucket's objects.
    pub fn objects(&self) -> std::path::PathBuf {
        self.folder.path().join(BUCKET)
    }

    /// How many requests of a kind have come.
    pub fn count(&self, asked: Asked) -> u64 {
        lock(&self.shared.counts).get(&asked).copied().unwrap_or(0)
    }

    /// Decides from now on what becomes of each request, by what it asks for and its path.
    pub fn judge(&self, judge: impl Fn(Asked, &str) -> Fate + Send + 'static) {
        *lock(&self.shared.judge) = Some(Box::new(judge));
    }

    /// Serves everything again.
    pub fn acquit(&self) {
        *lock(&self.shared.judge) = None;
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|e| e.into_inner())
}

async fn accept(
    listener: tokio::net::TcpListener,
    acceptor: Option<TlsAcceptor>,
    service: S3Service,
    shared: Arc<Shared>,
) {
    while let Ok((stream, _)) = listener.accept().await {
        // Without this an answer may wait 40 ms for the acknowledgement of its head.
        stream.set_nodelay(true).ok();
        let (acceptor, service, shared) = (acceptor.clone(), service.clone(), shared.clone());
        tokio::spawn(async move {
            let service = service_fn(move |request| serve(request, service.clone(), shared.clone()));
            let http = hyper::server::conn::http1::Builder::new();
            // An error means that the client has gone, or does not trust us.
            match acceptor {
                None => http.serve_connection(TokioIo::new(stream), service).await.ok(),
                Some(acceptor) => match acceptor.accept(stream).await {
                    Ok(stream) => http.serve_connection(TokioIo::new(stream), service).await.ok(),
                    Err(_) => None,
                },
            };
        });
    }
}

async fn serve(
    request: Request<Incoming>,
    service: S3Service,
    shared: Arc<Shared>,
) -> Result<Response<s3s::Body>, s3s::HttpError> {
    let asked = asked(&request);
    *lock(&shared.counts).entry(asked).or_default() += 1;
    let fate = lock(&shared.judge).as_ref().map_or(Fate::Served, |judge| judge(asked, request.uri().path()));
    match fate {
        Fate::Served => service.call(request.map(s3s::Body::from)).await,
        Fate::Late(by) => {
            tokio::time::sleep(by).await;
            service.call(request.map(s3s::Body::from)).await
        }
        Fate::Refused => {
            let body = s3s::Body::http_body(Full::new(Bytes::from_static(b"planted")));
            let mut response = Response::new(body);
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            Ok(response)
        }
        Fate::Swallowed => std::future::pending().await,
        Fate::AnswerLost => {
            let _unheard = service.call(request.map(s3s::Body::from)).await.is_ok();
            std::future::pending().await
        }
    }
}

fn asked(request: &Request<Incoming>) -> Asked {
    let query = request.uri().query().unwrap_or_default();
    // `/bucket` and `/bucket/` are the bucket, longer paths its objects.
    let is_object = Path::new(request.uri().path()).components().count() > 2;
    match (request.method(), is_object) {
        (&Method::GET, false) if query.contains("list-type") || query.contains("prefix") || query.is_empty() => {
            Asked::List
        }
        (&Method::PUT, true) => Asked::Put,
        (&Method::GET, true) => Asked::Get,
        (&Method::HEAD, true) => Asked::Head,
        (&Method::DELETE, true) => Asked::Delete,
        _ => Asked::Other,
    }
}

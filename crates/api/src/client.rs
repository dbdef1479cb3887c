//! Asks a running node over HTTP: for the program's own subcommands, which have nothing but its address.
//!
//! One GET on a connection of its own, in plain HTTP. No redirects, no retries: who runs a subcommand sees what happened.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper::header::HOST;
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use runtime::Clock;
use tokio::net::TcpStream;

/// The longest page that is read.
const PAGE_BYTES_MAX: usize = 16 << 20;

/// The port of a URL that names none.
const PORT: u16 = 80;

/// What was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The status code.
    pub status: u16,
    /// The body.
    pub body: Bytes,
}

/// GETs `http://host:port/path` within `limit`. The error says in words what went wrong.
pub async fn get(url: &str, limit: Duration, clock: &dyn Clock) -> Result<Page, String> {
    let uri: Uri = url.parse().map_err(|error| format!("{url} is no URL: {error}"))?;
    if uri.scheme_str() != Some("http") {
        return Err(format!("{url} does not begin with http://"));
    }
    let authority = uri.authority().ok_or_else(|| format!("{url} names no host"))?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let asked = async {
        let stream = connect(authority.host(), authority.port_u16().unwrap_or(PORT)).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
        let request = Request::get(path).header(HOST, authority.as_str()).body(Empty::<Bytes>::new());
        let request = request.map_err(|error| error.to_string())?;
        let exchange = async move {
            let answer = sender.send_request(request).await.map_err(|error| error.to_string())?;
            let status = answer.status().as_u16();
            let body = Limited::new(answer.into_body(), PAGE_BYTES_MAX).collect().await;
            let body = body.map_err(|error| format!("read the answer: {error}"))?;
            // Here the sender is dropped, which ends the connection.
            Ok(Page { status, body: body.to_bytes() })
        };
        // What goes wrong with the connection is told to the exchange.
        let (page, _told) = futures::join!(exchange, connection);
        page
    };
    runtime::timeout(clock, limit, asked).await.unwrap_or_else(|timed_out| Err(timed_out.to_string()))
}

#[allow(clippy::disallowed_methods, reason = "a subcommand's one connection, under a time limit")]
async fn connect(host: &str, port: u16) -> Result<TcpStream, String> {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    TcpStream::connect((host, port)).await.map_err(|error| error.to_string())
}

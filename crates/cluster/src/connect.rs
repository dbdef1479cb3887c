//! A connection to another node: TCP, TLS, hello, HTTP/2.

#![allow(clippy::disallowed_methods, reason = "the peer protocol's own door: its connections are opened here")]

use std::io;

use bytes::Bytes;
use http_body_util::{Either, Full};
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::Host;
use crate::hello::{Hello, HelloError, greet};
use crate::message::Lane;
use crate::posts::Posts;
use crate::security::Security;
use crate::settings::Settings;

/// What makes two sessions of TLS different (RFC 5705).
pub(crate) const EXPORTER_LABEL: &[u8] = b"EXPORTER-bellrock-peer";

/// Received bytes that a connection may hold before they are read, and a stream of it.
pub(crate) const WINDOW_BYTES: u32 = 4 << 20;
/// Received bytes that one call may hold before they are read.
pub(crate) const STREAM_WINDOW_BYTES: u32 = 2 << 20;

/// Bytes in one frame: a part or a head's answer is many of HTTP/2's default of 16 KiB.
pub(crate) const FRAME_BYTES_MAX: u32 = 256 << 10;

/// The body of a request: it is all there, or goes on.
pub(crate) type Outgoing = Either<Full<Bytes>, Posts>;

/// An open connection. Clones are the same.
#[derive(Clone)]
pub(crate) struct Connection {
    pub other: Hello,
    pub requests: SendRequest<Outgoing>,
}

pub(crate) async fn connect(
    address: &str,
    host: &dyn Host,
    lane: Lane,
    security: &Security,
    settings: &Settings,
) -> Result<Connection, HelloError> {
    let tcp = TcpStream::connect(address).await?;
    tcp.set_nodelay(true)?;
    let name = ServerName::try_from(host_of(address).to_owned()).map_err(io::Error::other)?;
    let mut tls = TlsConnector::from(security.client.clone()).connect(name, tcp).await?;
    let exported = tls.get_ref().1.export_keying_material([0; 32], EXPORTER_LABEL, None).map_err(io::Error::other)?;
    // Not before TLS is done: the other side has taken note of what it knows of this node before that.
    let own = host.hello();
    let other = greet(&mut tls, &own, lane, security, &exported).await?;
    let (requests, connection) = Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_connection_window_size(WINDOW_BYTES)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES_MAX)
        .keep_alive_interval(settings.ping_interval)
        .keep_alive_timeout(settings.ping_timeout)
        .keep_alive_while_idle(true)
        .handshake(TokioIo::new(tls))
        .await
        .map_err(io::Error::other)?;
    let node = other.node;
    runtime::spawn(async move {
        // Ends when the other side goes, or when the last clone of `requests` does.
        if let Err(error) = connection.await {
            tracing::debug!(%node, %error, "connection to a node ended");
        }
    });
    Ok(Connection { other, requests })
}

/// The host of `host:port`; `[::1]:9` has brackets around it.
fn host_of(address: &str) -> &str {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

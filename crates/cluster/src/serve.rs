//! The peer port: takes connections of other nodes and hands their messages to the host.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http2::Builder;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio_rustls::TlsAcceptor;

use crate::connect::{EXPORTER_LABEL, FRAME_BYTES_MAX, STREAM_WINDOW_BYTES, WINDOW_BYTES};
use crate::error::{Refusal, RefusalKind};
use crate::hello::{Hello, HelloError, welcome};
use crate::message::{Lane, Message};
use crate::peers::Peers;
use crate::posts::Incomplete;
use crate::settings::Settings;

struct Server {
    peers: Peers,
    rooms: Rooms,
}

/// Bytes of bodies that may still be taken in, in KiB. Each lane has its own: a part holds its room until it is durable, and
/// while a store stalls it must not keep the index's messages out.
struct Rooms {
    control: Semaphore,
    bulk: Semaphore,
    parts: Semaphore,
}

impl Rooms {
    fn new(settings: &Settings) -> Rooms {
        let room = |bytes: usize| Semaphore::new(bytes >> 10);
        let (bodies, parts) = (settings.bodies_bytes_max, settings.parts_bytes_max);
        Rooms { control: room(bodies), bulk: room(bodies), parts: room(parts) }
    }

    /// Room for a body, or for as much of it as the lane has at all; waited for, but for parts.
    async fn take(&self, settings: &Settings, message: Message, bytes: usize) -> Result<SemaphorePermit<'_>, Refusal> {
        let share = |max: usize| u32::try_from(bytes.div_ceil(1024).clamp(1, max >> 10)).unwrap_or(u32::MAX);
        let waited = match message.lane() {
            Lane::Control => self.control.acquire_many(share(settings.bodies_bytes_max)).await,
            Lane::Bulk => self.bulk.acquire_many(share(settings.bodies_bytes_max)).await,
            Lane::Parts => {
                let max = settings.parts_bytes_max;
                let full = |_| {
                    let text = format!("parts of other nodes' requests take all of {max} bytes here (parts-bytes-max)");
                    Refusal::new(RefusalKind::Unavailable, text)
                };
                return self.parts.try_acquire_many(share(max)).map_err(full);
            }
        };
        waited.map_err(|_| Refusal::new(RefusalKind::Unavailable, "this node takes no more messages"))
    }
}

/// Serves the peer port until `until` is done; connections end with it.
pub async fn serve(peers: &Peers, listeners: Vec<TcpListener>, until: impl Future<Output = ()>) {
    let settings = &peers.parts().settings;
    let places = Arc::new(Semaphore::new(settings.connections_max));
    let server = Arc::new(Server { peers: peers.clone(), rooms: Rooms::new(settings) });
    let (stop, stopped) = tokio::sync::watch::channel(());
    let accepting =
        listeners.into_iter().map(|listener| accept(listener, server.clone(), places.clone(), stopped.clone()));
    tokio::select! {
        _ = futures::future::join_all(accepting) => {}
        () = until => {}
    }
    // Every connection's task sees it and ends.
    drop(stop);
}

async fn accept(
    listener: TcpListener,
    server: Arc<Server>,
    places: Arc<Semaphore>,
    stopped: tokio::sync::watch::Receiver<()>,
) {
    loop {
        let tcp = match listener.accept().await {
            Ok((tcp, _)) => tcp,
            Err(error) => {
                // Out of file descriptors, usually: closing connections helps, turning round at once does not.
                tracing::warn!(%error, "peer port: connection not accepted");
                server.peers.parts().clock.sleep(std::time::Duration::from_millis(100)).await;
                continue;
            }
        };
        let Ok(place) = places.clone().try_acquire_owned() else {
            server.peers.metrics().connections_refused.with(["too_many"]).inc();
            continue;
        };
        let (server, mut stopped) = (server.clone(), stopped.clone());
        runtime::spawn(async move {
            server.peers.metrics().connections.inc();
            tokio::select! {
                () = server.connection(tcp) => {}
                _ = stopped.changed() => {}
            }
            server.peers.metrics().connections.dec();
            drop(place);
        });
    }
}

impl Server {
    async fn connection(self: &Arc<Self>, tcp: TcpStream) {
        let address = tcp.peer_addr().map_or_else(|_| "unknown".to_owned(), |address| address.to_string());
        let settings = &self.peers.parts().settings;
        let greeted = runtime::timeout(&*self.peers.parts().clock, settings.connect_timeout, self.greet(tcp)).await;
        let (tls, other) = match greeted {
            Ok(Ok(greeted)) => greeted,
            Ok(Err(error)) => {
                self.peers.metrics().connections_refused.with([error.reason()]).inc();
                match error {
                    // Port scanners and health checks connect and say nothing.
                    HelloError::Io(error) => tracing::debug!(address, %error, "peer port: no hello"),
                    // A name gives this node's address, too.
                    HelloError::Itself => {}
                    error => tracing::warn!(address, %error, id = "peer-refused", "a node was refused"),
                }
                return;
            }
            Err(_) => {
                self.peers.metrics().connections_refused.with(["timeout"]).inc();
                return;
            }
        };
        let node = other.node;
        let service = service_fn(|request: Request<Incoming>| {
            let (server, other) = (self.clone(), other.clone());
            async move { Ok::<_, Infallible>(server.answer(other, request).await) }.boxed()
        });
        let served = Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .initial_connection_window_size(WINDOW_BYTES)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .max_frame_size(FRAME_BYTES_MAX)
            .max_concurrent_streams(settings.calls_per_connection_max)
            .keep_alive_interval(settings.ping_interval)
            .keep_alive_timeout(settings.ping_timeout)
            .serve_connection(TokioIo::new(tls), service)
            .await;
        if let Err(error) = served {
            tracing::debug!(%node, %error, "connection from a node ended");
        }
    }

    async fn greet(&self, tcp: TcpStream) -> Result<(tokio_rustls::server::TlsStream<TcpStream>, Hello), HelloError> {
        // Answers are small, and someone waits for each.
        tcp.set_nodelay(true)?;
        // Before TLS, as the other side looks at itself when that is done: so it has all that was seen of it by now.
        let judge = self.peers.parts().host.judge();
        let mut tls = TlsAcceptor::from(self.peers.parts().security.server.clone()).accept(tcp).await?;
        let exported =
            tls.get_ref().1.export_keying_material([0; 32], EXPORTER_LABEL, None).map_err(io::Error::other)?;
        let own = self.peers.parts().host.hello();
        let (other, _) = welcome(&mut tls, &own, judge, &self.peers.parts().security, &exported).await?;
        Ok((tls, other))
    }

    async fn answer(&self, from: Hello, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let answered = match Message::of_name(request.uri().path().trim_start_matches('/')) {
            None => Err(Refusal::new(RefusalKind::Invalid, "this node does not know the message: is it older?")),
            Some(message) => self.answer_message(from, message, request.into_body()).await,
        };
        let (status, body) = match answered {
            Ok(body) => (200, body),
            Err(refusal) => (refusal.kind.status(), Bytes::from(refusal.text)),
        };
        let mut response = Response::new(Full::new(body));
        *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        response
    }

    async fn answer_message(&self, from: Hello, message: Message, body: Incoming) -> Result<Bytes, Refusal> {
        use hyper::body::Body;
        if message == Message::Consensus {
            return self.take_posts(from, body).await;
        }
        let limit = message.request_bytes_max();
        // What it says that it is; a body without a length counts as the longest.
        let expected = body.size_hint().upper().map_or(limit, |upper| usize::try_from(upper).unwrap_or(limit));
        if expected > limit {
            let text = format!("{} of {expected} bytes is over the limit of {limit}", message.name());
            return Err(Refusal::new(RefusalKind::Invalid, text));
        }
        let _room = self.rooms.take(&self.peers.parts().settings, message, expected).await?;
        let body = Limited::new(body, limit).collect().await;
        let body = body.map_err(|error| Refusal::new(RefusalKind::Invalid, format!("body not read: {error}")))?;
        self.peers.parts().host.answer(from, message, body.to_bytes()).await
    }

    /// Hands posts on as they come, until whoever sends them ends it.
    async fn take_posts(&self, from: Hello, mut body: Incoming) -> Result<Bytes, Refusal> {
        let message = Message::Consensus;
        let invalid = |text: String| Refusal::new(RefusalKind::Invalid, text);
        let mut incomplete = Incomplete::default();
        // For a post that is longer than what comes at once.
        let mut room = None;
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| invalid(format!("posts not read: {error}")))?;
            let Ok(came) = frame.into_data() else { continue };
            let whole = incomplete.take_in(came);
            if !whole.is_empty() {
                self.peers.parts().host.answer(from.clone(), message, whole).await?;
                room = None;
            }
            let Some(bytes) = incomplete.bytes() else { continue };
            let bytes_max = message.request_bytes_max();
            if bytes > bytes_max {
                return Err(invalid(format!("a post of {bytes} bytes is over the limit of {bytes_max}")));
            }
            if room.is_none() {
                room = Some(self.rooms.take(&self.peers.parts().settings, message, bytes).await?);
                incomplete.reserve();
            }
        }
        Ok(Bytes::new())
    }
}

//! Accepts connections on several listeners, and lets go of them in order.
//!
//! Each connection is HTTP/1.1 with a limit on the time for a header, so that one that sends nothing does not stay for
//! ever. When the shutdown future is done, listeners close, idle connections too, and requests under way are answered.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use futures::future::{BoxFuture, FutureExt, Shared};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use runtime::Clock;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::router::Api;

/// After an error of accept (no file descriptors left, mostly) it is tried again this much later.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Bytes that a connection may buffer of a header: eight times what any known client sends.
const HEADER_BYTES_MAX: usize = 64 << 10;

/// Serves on all listeners until `shutdown` is done, and then until every request under way is answered.
///
/// Whoever calls bounds the second part, by dropping the future.
pub async fn serve(api: &Api, listeners: Vec<TcpListener>, shutdown: impl Future<Output = ()> + Send + 'static) {
    let shutdown = shutdown.boxed().shared();
    let graceful = GracefulShutdown::new();
    let settings = api.settings();
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(settings.header_timeout).max_buf_size(HEADER_BYTES_MAX);
    let room = Arc::new(Semaphore::new(settings.connections_max));
    let acceptors = listeners.into_iter().map(|listener| {
        let acceptor = Acceptor {
            listener,
            router: api.router(),
            http: http.clone(),
            room: room.clone(),
            clock: api.clock(),
            shutdown: shutdown.clone(),
        };
        acceptor.run(&graceful)
    });
    futures::future::join_all(acceptors).await;
    graceful.shutdown().await;
}

/// One listener.
struct Acceptor {
    listener: TcpListener,
    router: Router,
    http: http1::Builder,
    room: Arc<Semaphore>,
    clock: Arc<dyn Clock>,
    shutdown: Shared<BoxFuture<'static, ()>>,
}

impl Acceptor {
    async fn run(self, graceful: &GracefulShutdown) {
        loop {
            let accepted = tokio::select! {
                biased;
                () = self.shutdown.clone() => return,
                accepted = self.accept() => accepted,
            };
            let (stream, permit) = accepted;
            self.start(stream, permit, graceful.watcher());
        }
    }

    /// The next connection, once there is room for one more.
    async fn accept(&self) -> (TcpStream, OwnedSemaphorePermit) {
        let permit = self.room.clone().acquire_owned().await.expect("this semaphore is never closed");
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => return (stream, permit),
                Err(error) => {
                    tracing::warn!(error = %error, "connection not accepted");
                    self.clock.sleep(ACCEPT_RETRY).await;
                }
            }
        }
    }

    fn start(&self, stream: TcpStream, permit: OwnedSemaphorePermit, watcher: Watcher) {
        let service = TowerToHyperService::new(self.router.clone());
        let connection = self.http.serve_connection(TokioIo::new(stream), service);
        let connection = watcher.watch(connection);
        // Not waited for here: the watcher knows when it has ended.
        drop(runtime::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(error = %error, "connection broken");
            }
            drop(permit);
        }));
    }
}

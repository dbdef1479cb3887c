//! How large things may grow, and how long they may take. Nobody could say when to change these, so they are no flags.

use std::time::Duration;

/// Bounds of the traffic between nodes.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// TCP, TLS and hello together; a node that takes longer is not there.
    pub connect_timeout: Duration,
    /// A connection without an answer to a ping for so long is dropped: a cable that was pulled says nothing.
    pub ping_interval: Duration,
    /// The wait for that answer.
    pub ping_timeout: Duration,
    /// After a failed connection to a node the next is tried after this time; until then calls fail at once.
    pub reconnect_delay: Duration,
    /// Connections that are served at once; more are closed.
    pub connections_max: usize,
    /// Bodies of requests that are held at once, over all connections of a lane; more wait.
    pub bodies_bytes_max: usize,
    /// The same for parts of requests for the writer; more are refused at once, as whoever sent them holds them until then.
    pub parts_bytes_max: usize,
    /// Calls of one connection that are answered at once; more wait with the caller.
    pub calls_per_connection_max: u32,
    /// Posts to one node that wait; more are dropped, oldest kept.
    pub posts_waiting_max: usize,
    /// Their bytes.
    pub posts_waiting_bytes_max: usize,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            connect_timeout: Duration::from_secs(3),
            ping_interval: Duration::from_millis(1000),
            ping_timeout: Duration::from_millis(2000),
            reconnect_delay: Duration::from_millis(250),
            connections_max: 1024,
            bodies_bytes_max: 256 << 20,
            parts_bytes_max: 64 << 20,
            calls_per_connection_max: 256,
            posts_waiting_max: 4096,
            posts_waiting_bytes_max: 192 << 20,
        }
    }
}

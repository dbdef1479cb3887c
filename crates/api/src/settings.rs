//! What an operator may set of the face.

use std::collections::HashMap;
use std::time::Duration;

use model::TenantId;

/// Settings of the face; see each field for its default. A reload may change all but `connections_max` and
/// `bodies_bytes_max`.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// The largest body of a write as it is sent, compressed. Default 32 MiB.
    pub request_bytes_max: usize,
    /// The largest body of a write once decompressed. Default 32 MiB.
    pub request_decoded_bytes_max: usize,
    /// Memory for all bodies that are being received, decompressed and decoded. Default 256 MiB.
    pub bodies_bytes_max: usize,
    /// A body of which nothing has come for this long is given up. Default 10 s.
    pub body_idle_timeout: Duration,
    /// A body that is not complete after this is given up. Default 60 s.
    pub body_timeout: Duration,
    /// A connection that sends no complete header for this long is closed, idle ones included. Default 5 min 30 s: longer
    /// than Prometheus and vmagent keep an idle connection, so that they close it and never write into a closed one.
    pub header_timeout: Duration,
    /// Connections at once; others wait to be accepted. Default 8192.
    pub connections_max: usize,
    /// Limits of tenants that have none of their own.
    pub limits: TenantLimits,
    /// Limits of the tenants that have their own.
    pub tenants: HashMap<TenantId, TenantLimits>,
}

/// Limits of one tenant.
#[derive(Debug, Clone, PartialEq)]
pub struct TenantLimits {
    /// Steps of a range query. Default 11,000, as Prometheus.
    pub points_per_series_max: u64,
}

impl Settings {
    /// The limits of a tenant.
    pub fn limits_of(&self, tenant: &TenantId) -> &TenantLimits {
        self.tenants.get(tenant).unwrap_or(&self.limits)
    }
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            request_bytes_max: 32 << 20,
            request_decoded_bytes_max: 32 << 20,
            bodies_bytes_max: 256 << 20,
            body_idle_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(60),
            header_timeout: Duration::from_secs(330),
            connections_max: 8192,
            limits: TenantLimits::default(),
            tenants: HashMap::new(),
        }
    }
}

impl Default for TenantLimits {
    fn default() -> TenantLimits {
        TenantLimits { points_per_series_max: 11_000 }
    }
}

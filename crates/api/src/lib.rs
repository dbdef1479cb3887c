//! HTTP: tenants, routes, status codes, Prometheus's JSON.
//!
//! The one door to axum and hyper. What a request means is decided here (who asks, what for, within which
//! sizes); what it does is a service's business: [`Ingest`], [`Queries`], [`Health`] and [`ClusterStatus`] are traits,
//! filled in by the roles, and by fakes in the tests. Errors of services carry a [`Kind`], which alone decides the status code.
//!
//! A write: `write` → `body` → `proto` → [`Ingest`]. A query: `query` or `labels` → `params` → [`Queries`] → `response`.

#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests connect to listeners of their own"))]

mod body;
mod budget;
mod client;
mod cluster_status;
mod content_type;
mod json;
mod labels;
mod metrics;
mod pages;
mod params;
mod query;
mod response;
mod router;
mod server;
mod services;
mod settings;
mod tenant;
mod times;
mod write;

#[cfg(test)]
mod tests;

pub use client::{Page, get};
pub use cluster_status::{
    ClusterReport, ClusterStatus, DurabilityReport, LeaseReport, NodeReport, Right, Role, WriterReport,
};
pub use router::{Api, Parts};
pub use server::serve;
pub use services::{
    Answer, Durable, Found, Health, HealthReport, Ingest, Kind, Queries, QueryOptions, ServiceError, Steps,
};
pub use settings::{Settings, TenantLimits};

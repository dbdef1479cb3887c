//! Routes, and what every request goes through.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{MatchedPath, State};
use axum::http::{HeaderValue, Method, Request, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use model::TenantId;
use parking_lot::{Mutex, RwLock};
use runtime::{Clock, Random, Registry};

use crate::budget::ByteBudget;
use crate::cluster_status::ClusterStatus;
use crate::metrics::Metrics;
use crate::params::Params;
use crate::response::{ApiError, ErrorType};
use crate::services::{Health, Ingest, Queries};
use crate::settings::Settings;
use crate::tenant::tenant_of;
use crate::write::Buffers;
use crate::{cluster_status, labels, pages, query, write};

/// Retry-After lies in here: long enough for a flush to succeed, short enough that a sender's queue does not overflow.
const RETRY_AFTER_SECONDS: (u64, u64) = (1, 5);

/// One line in the log this often at most about writes that are answered 5xx; the metrics count them all.
const WARN_INTERVAL: Duration = Duration::from_secs(10);

/// What the face is built from.
#[derive(Clone)]
pub struct Parts {
    /// Takes samples in.
    pub ingest: Arc<dyn Ingest>,
    /// Answers queries.
    pub queries: Arc<dyn Queries>,
    /// Says how the node is.
    pub health: Arc<dyn Health>,
    /// Says how the cluster is.
    pub cluster: Arc<dyn ClusterStatus>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Jitter.
    pub random: Random,
    /// Where metrics are registered, and what `/metrics` shows.
    pub registry: Registry,
    /// Bellrock's version, such as `0.1.0`.
    pub version: String,
}

/// The face; clones are the same.
#[derive(Clone)]
pub struct Api {
    shared: Arc<Shared>,
}

/// What all requests share.
pub(crate) struct Shared {
    pub(crate) ingest: Arc<dyn Ingest>,
    pub(crate) queries: Arc<dyn Queries>,
    pub(crate) health: Arc<dyn Health>,
    pub(crate) cluster: Arc<dyn ClusterStatus>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) registry: Registry,
    pub(crate) version: String,
    pub(crate) bodies: ByteBudget,
    pub(crate) buffers: Buffers,
    random: Random,
    metrics: Metrics,
    settings: RwLock<Arc<Settings>>,
    /// When the last warning about a write was logged, by the boot clock; and how many were passed over since.
    warned: Mutex<(Option<Duration>, u64)>,
}

impl Api {
    /// The face over these parts; registers its metrics.
    pub fn new(settings: Settings, parts: Parts) -> Api {
        let bodies = ByteBudget::new(settings.bodies_bytes_max);
        let metrics = Metrics::new(&parts.registry, &bodies);
        let shared = Shared {
            ingest: parts.ingest,
            queries: parts.queries,
            health: parts.health,
            cluster: parts.cluster,
            clock: parts.clock,
            registry: parts.registry,
            version: parts.version,
            bodies,
            buffers: Buffers::default(),
            random: parts.random,
            metrics,
            settings: RwLock::new(Arc::new(settings)),
            warned: Mutex::default(),
        };
        Api { shared: Arc::new(shared) }
    }

    /// Replaces the settings: a reload. `connections_max` and `bodies_bytes_max` stay as they were.
    pub fn set_settings(&self, settings: Settings) {
        *self.shared.settings.write() = Arc::new(settings);
    }

    /// The clock that it was built with.
    pub(crate) fn clock(&self) -> Arc<dyn Clock> {
        self.shared.clock.clone()
    }

    /// The settings now.
    pub(crate) fn settings(&self) -> Arc<Settings> {
        self.shared.settings()
    }

    /// All routes.
    pub(crate) fn router(&self) -> Router {
        let api = Router::new()
            .route("/write", post(write::write))
            .route("/push", post(write::write))
            .route("/query", get(query::instant).post(query::instant))
            .route("/query_range", get(query::range).post(query::range))
            .route("/series", get(labels::series).post(labels::series))
            .route("/labels", get(labels::names).post(labels::names))
            .route("/label/{name}/values", get(labels::values))
            .route("/metadata", get(labels::metadata))
            .route("/status/buildinfo", get(pages::buildinfo))
            .route("/status/cluster", get(cluster_status::cluster));
        Router::new()
            .nest("/api/v1", api.clone())
            .nest("/prometheus/api/v1", api)
            .route("/-/healthy", get(pages::healthy))
            .route("/-/ready", get(pages::ready))
            .route("/metrics", get(pages::metrics))
            .route("/", get(pages::front))
            .fallback(not_found)
            .method_not_allowed_fallback(method_not_allowed)
            .layer(middleware::from_fn_with_state(self.shared.clone(), observe))
            .with_state(self.shared.clone())
    }
}

impl Shared {
    /// The settings now; they hold for the whole request.
    pub(crate) fn settings(&self) -> Arc<Settings> {
        self.settings.read().clone()
    }

    /// Who asks, and what for.
    pub(crate) async fn question(&self, request: Request<Body>) -> Result<(TenantId, Params), ApiError> {
        let tenant = tenant_of(request.headers()).map_err(|why| ApiError::new(ErrorType::BadData, why))?;
        let params = Params::read(request, &self.settings(), &self.bodies, &*self.clock).await?;
        Ok((tenant, params))
    }

    /// Logs a write that was answered 5xx, unless one was logged just now.
    pub(crate) fn warn_of_write(&self, status: StatusCode, error: &str) {
        let now = self.clock.boottime();
        let mut warned = self.warned.lock();
        if warned.0.is_some_and(|last| now < last + WARN_INTERVAL) {
            warned.1 += 1;
            return;
        }
        let passed_over = std::mem::replace(&mut *warned, (Some(now), 0)).1;
        drop(warned);
        tracing::warn!(status = status.as_u16(), error, passed_over, "write not stored");
    }
}

/// Counts and times each request, and says when to come back.
async fn observe(State(shared): State<Arc<Shared>>, request: Request<Body>, next: Next) -> Response {
    // Counts down also when the sender goes away and this future is dropped.
    struct Running<'a>(&'a Metrics);
    impl Drop for Running<'_> {
        fn drop(&mut self) {
            self.0.running.dec();
        }
    }
    shared.metrics.running.inc();
    let _running = Running(&shared.metrics);
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route = route.as_ref().map_or("other", |path| path.as_str());
    let method = known_method(request.method());
    let since = shared.clock.boottime();
    let mut response = next.run(request).await;
    let status = response.status();
    if matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) {
        let (from, to) = RETRY_AFTER_SECONDS;
        let seconds = from + shared.random.below(to - from + 1);
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    shared.metrics.requests.with([route, method, status.as_str()]).inc();
    shared.metrics.seconds.with([route]).observe((shared.clock.boottime().saturating_sub(since)).as_secs_f64());
    response
}

/// Methods are whatever a sender makes up; metrics' labels are not.
fn known_method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::HEAD => "HEAD",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

async fn not_found(uri: Uri) -> Response {
    let path: String = uri.path().chars().take(200).collect();
    ApiError::new(ErrorType::NotFound, format!("nothing is served at {path:?}; see / for what is")).into_response()
}

async fn method_not_allowed(method: Method, uri: Uri) -> Response {
    let (path, method): (String, String) =
        (uri.path().chars().take(200).collect(), method.as_str().chars().take(20).collect());
    let why = format!("{path:?} does not take {method}; the Allow header says what it takes");
    ApiError::with_status(StatusCode::METHOD_NOT_ALLOWED, why).into_response()
}

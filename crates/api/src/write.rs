//! Takes remote-write requests: reads the body under every limit, decodes it, hands it on, waits until it is durable.
//!
//! 204 means that all of it is durable; 400 that part of it never will be and all else is; anything else that the
//! sender should try again. The memory of a body is held from its first byte until its samples are in the open segment,
//! not while they become durable.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use model::TenantId;
use parking_lot::Mutex;
use proto::{ContentEncoding, DecodeLimits, ProtoError};

use crate::body::{BodyError, read_body};
use crate::budget::{ByteBudget, HeldBytes};
use crate::content_type::negotiate;
use crate::router::Shared;
use crate::services::{Durable, Kind, ServiceError};
use crate::settings::Settings;
use crate::tenant::tenant_of;

/// Bodies above this are decoded on a thread of their own: it takes milliseconds, and other requests wait behind it.
const INLINE_BYTES_MAX: usize = 1 << 20;

/// Buffers that are kept for the next request, and how large they may be.
const BUFFERS_MAX: usize = 8;
const BUFFER_BYTES_MAX: usize = 4 << 20;

/// Why a write is not answered 204.
#[derive(Debug)]
struct Refusal {
    status: StatusCode,
    message: String,
}

impl Refusal {
    fn new(status: StatusCode, message: impl Into<String>) -> Refusal {
        Refusal { status, message: message.into() }
    }
}

impl From<ServiceError> for Refusal {
    fn from(error: ServiceError) -> Refusal {
        let status = match error.kind {
            Kind::Invalid | Kind::Execution => StatusCode::BAD_REQUEST,
            Kind::Throttled => StatusCode::TOO_MANY_REQUESTS,
            Kind::Timeout | Kind::Canceled | Kind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Kind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Refusal::new(status, error.message)
    }
}

/// `POST /api/v1/write`
pub(crate) async fn write(State(shared): State<Arc<Shared>>, request: Request<Body>) -> Response {
    match receive(&shared, request).await {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(Refusal { status, message }) => {
            if status.is_server_error() {
                shared.warn_of_write(status, &message);
            } else {
                tracing::debug!(status = status.as_u16(), error = message, "write refused");
            }
            let text = [(header::CONTENT_TYPE, "text/plain; charset=utf-8")];
            (status, text, message + "\n").into_response()
        }
    }
}

async fn receive(shared: &Arc<Shared>, request: Request<Body>) -> Result<(), Refusal> {
    let (head, body) = request.into_parts();
    let encoding = negotiate(&head.headers).map_err(|why| Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, why))?;
    let tenant = tenant_of(&head.headers).map_err(|why| Refusal::new(StatusCode::BAD_REQUEST, why))?;
    let settings = shared.settings();
    let mut held = shared.bodies.open();
    let bytes_max = settings.request_bytes_max;
    let body = read_body(body, bytes_max, &settings, &*shared.clock, &mut held).await.map_err(|error| {
        let (status, message) = describe_body_error(error, bytes_max, &shared.bodies);
        Refusal::new(status, message)
    })?;
    let work = Received { shared: shared.clone(), settings, tenant, encoding, body, held };
    let durable = match work.body.len() > INLINE_BYTES_MAX {
        true => runtime::blocking(move || work.append()).await,
        false => work.append(),
    };
    Ok(durable?.await?)
}

/// The status and the words for a body that can't be read.
pub(crate) fn describe_body_error(error: BodyError, bytes_max: usize, bodies: &ByteBudget) -> (StatusCode, String) {
    match error {
        BodyError::TooLarge(declared) => {
            let size = declared.map_or("more".to_owned(), |bytes| format!("{bytes} bytes"));
            let why =
                format!("body has {size}, the limit is {bytes_max} bytes (request-bytes-max); send smaller requests");
            (StatusCode::PAYLOAD_TOO_LARGE, why)
        }
        BodyError::NoMemory => (StatusCode::SERVICE_UNAVAILABLE, describe_full(bodies)),
        BodyError::TimedOut => (StatusCode::REQUEST_TIMEOUT, "body did not come in time (body-timeout)".to_owned()),
        BodyError::Broken(why) => (StatusCode::BAD_REQUEST, format!("body can't be read: {why} (malformed-body)")),
    }
}

fn describe_full(bodies: &ByteBudget) -> String {
    let (used, max) = (bodies.used(), bodies.max());
    format!(
        "request bodies take {used} of {max} bytes (bodies-bytes-max), with no room for this one: more is sent at once than \
         this node takes in. Send less at once, or raise --memory.max."
    )
}

/// A request whose body is there.
struct Received {
    shared: Arc<Shared>,
    settings: Arc<Settings>,
    tenant: TenantId,
    encoding: ContentEncoding,
    body: Vec<u8>,
    held: HeldBytes,
}

impl Received {
    fn append(mut self) -> Result<Durable, Refusal> {
        let mut decoded = self.shared.buffers.take();
        let result = self.append_through(&mut decoded);
        self.shared.buffers.give_back(decoded);
        result
    }

    fn append_through(&mut self, decoded: &mut Vec<u8>) -> Result<Durable, Refusal> {
        if self.body.is_empty() {
            return Err(Refusal::new(
                StatusCode::BAD_REQUEST,
                "body is empty; a request without samples still has a byte (malformed-body)",
            ));
        }
        let bytes_max = self.settings.request_decoded_bytes_max;
        let bytes = proto::decoded_bytes(self.encoding, &self.body, bytes_max)?;
        if !self.held.grow(bytes) {
            return Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, describe_full(&self.shared.bodies)));
        }
        proto::decompress(self.encoding, &self.body, bytes_max, decoded)?;
        self.body = Vec::new();
        // The columns that this makes live until `append` returns, so there are no more of them than threads.
        // Columns take less than twice what an honest request takes on the wire.
        let limits = DecodeLimits { result_bytes_max: bytes_max.saturating_mul(2) };
        let request = proto::decode_write_request(decoded, &limits)?;
        Ok(self.shared.ingest.append(&self.tenant, request)?)
    }
}

impl From<ProtoError> for Refusal {
    fn from(error: ProtoError) -> Refusal {
        let id = match error {
            ProtoError::DecodedTooLarge { .. } | ProtoError::ResultTooLarge { .. } => "request-decoded-bytes-max",
            ProtoError::Compression { .. } | ProtoError::Malformed { .. } => "malformed-body",
        };
        Refusal::new(StatusCode::BAD_REQUEST, format!("{error} ({id})"))
    }
}

/// Buffers for decompressed bodies, used again: a fresh megabyte a request would cost as much as decoding it.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    free: Mutex<Vec<Vec<u8>>>,
}

impl Buffers {
    fn take(&self) -> Vec<u8> {
        self.free.lock().pop().unwrap_or_default()
    }

    fn give_back(&self, buffer: Vec<u8>) {
        let mut free = self.free.lock();
        if buffer.capacity() <= BUFFER_BYTES_MAX && free.len() < BUFFERS_MAX {
            free.push(buffer);
        }
    }
}

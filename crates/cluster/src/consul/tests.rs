use std::convert::Infallible;
use std::net::SocketAddr;

use hyper::service::service_fn;
use hyper::{Response, body::Incoming};
use parking_lot::Mutex;
use runtime::{ManualClock, StopReason, SystemClock};
use serde_json::Value;
use tokio::sync::mpsc;

use super::*;

/// What the agent of a test was asked.
#[derive(Debug, PartialEq)]
struct Asked {
    method: Method,
    path: String,
    token: Option<String>,
    body: Value,
}

/// A small agent: knows what it was told, until it is made to forget.
#[derive(Clone)]
struct FakeAgent {
    known: Arc<Mutex<BTreeMap<String, Value>>>,
    /// What it answers instead, if anything.
    refusal: Arc<Mutex<Option<Response<Full<Bytes>>>>>,
    asked: mpsc::UnboundedSender<Asked>,
}

impl FakeAgent {
    /// Starts it; returns where it listens and what it is asked.
    fn start(address: &str) -> (FakeAgent, SocketAddr, mpsc::UnboundedReceiver<Asked>) {
        let (asked, requests) = mpsc::unbounded_channel();
        let agent = FakeAgent { known: Arc::default(), refusal: Arc::default(), asked };
        let listener = runtime::listen(&[address.parse().unwrap()]).unwrap().remove(0);
        let address = listener.local_addr().unwrap();
        let serving = agent.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let agent = serving.clone();
                let service = service_fn(move |request| {
                    let agent = agent.clone();
                    async move { Ok::<_, Infallible>(agent.answer(request).await) }
                });
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        (agent, address, requests)
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
        let token = parts.headers.get("X-Consul-Token").map(|token| token.to_str().unwrap().to_string());
        let (method, path) = (parts.method, parts.uri.path().to_string());
        let status = self.status(&method, &path, &body);
        // The receiver may be gone with its test.
        let _ = self.asked.send(Asked { method, path, token, body });
        let refusal = self.refusal.lock().take();
        refusal.unwrap_or_else(|| Response::builder().status(status).body(Full::default()).unwrap())
    }

    fn status(&self, method: &Method, path: &str, body: &Value) -> StatusCode {
        let mut known = self.known.lock();
        let is_known = match (method, path.strip_prefix("/v1/agent/service/").unwrap()) {
            (&Method::PUT, "register") => {
                known.insert(body["ID"].as_str().unwrap().to_string(), body.clone());
                true
            }
            (&Method::PUT, path) => known.remove(path.strip_prefix("deregister/").unwrap()).is_some(),
            (_, id) => known.contains_key(id),
        };
        if is_known { StatusCode::OK } else { StatusCode::NOT_FOUND }
    }
}

fn settings(address: SocketAddr) -> ConsulSettings {
    ConsulSettings {
        address: address.into(),
        service: "bellrock".to_string(),
        tags: vec!["metrics".to_string()],
        meta: BTreeMap::from([("zone".to_string(), "a".to_string())]),
        token: Some(Secret::new("planted".to_string())),
    }
}

fn node() -> ConsulNode {
    let parse = |text: &str| text.parse().unwrap();
    ConsulNode { name: "n1".to_string(), http: parse("[fd00::1]:9009"), peer: Some(parse("n1.example:9010")) }
}

/// A registration at work.
struct Scene {
    clock: ManualClock,
    tasks: Tasks,
    registry: Registry,
    status: watch::Receiver<ConsulStatus>,
}

impl Scene {
    fn start(settings: ConsulSettings) -> Scene {
        let clock = ManualClock::new(0);
        let (tasks, registry) = (Tasks::new(Shutdown::new()), Registry::new());
        let shared: Arc<dyn Clock> = Arc::new(clock.clone());
        let parts = ConsulParts {
            clock: shared.clone(),
            random: Random::from_seed(1),
            resolver: Resolver::new(None, shared),
            registry: registry.clone(),
            tasks: tasks.clone(),
        };
        let status = register_with_consul(settings, &node(), parts);
        Scene { clock, tasks, registry, status }
    }

    async fn until(&mut self, is_so: impl FnMut(&ConsulStatus) -> bool) -> ConsulStatus {
        self.status.wait_for(is_so).await.unwrap().clone()
    }

    async fn stop(&self) {
        self.tasks.shutdown().begin(StopReason::Requested("test".to_string()));
        self.tasks.stop(&SystemClock, |_| Duration::from_secs(60)).await;
    }
}

const IDS: [&str; 2] = ["bellrock-n1-9009", "bellrock-peer-n1-9010"];

/// The next two requests, which must be registrations of both services.
async fn registrations(requests: &mut mpsc::UnboundedReceiver<Asked>) -> [Value; 2] {
    let mut bodies = Vec::new();
    for id in IDS {
        let asked = requests.recv().await.unwrap();
        assert_eq!((asked.method, asked.path.as_str()), (Method::PUT, "/v1/agent/service/register"));
        assert_eq!((asked.token.as_deref(), asked.body["ID"].as_str()), (Some("planted"), Some(id)));
        bodies.push(asked.body);
    }
    bodies.try_into().unwrap()
}

#[tokio::test]
async fn both_services_are_registered_and_taken_away_at_the_stop() {
    let (agent, address, mut requests) = FakeAgent::start("[::1]:0");
    let mut scene = Scene::start(settings(address));
    let [http, peer] = registrations(&mut requests).await;
    assert_eq!((&http["Name"], &http["Address"], &http["Port"]), (&json!("bellrock"), &json!("fd00::1"), &json!(9009)));
    assert_eq!((&http["Tags"], &http["Meta"]), (&json!(["metrics"]), &json!({"zone": "a"})));
    assert_eq!(http["Check"]["HTTP"], "http://[fd00::1]:9009/-/ready");
    assert_eq!(http["Check"]["DeregisterCriticalServiceAfter"], "1h");
    assert_eq!((&peer["Name"], &peer["Address"]), (&json!("bellrock-peer"), &json!("n1.example")));
    assert_eq!((&peer["Check"]["TCP"], &peer["Check"]["HTTP"]), (&json!("n1.example:9010"), &Value::Null));
    scene.until(|status| status.is_registered).await;
    assert!(scene.registry.encode().contains("bellrock_cluster_consul_registered 1\n"));
    scene.stop().await;
    for id in IDS {
        let asked = requests.recv().await.unwrap();
        assert_eq!((asked.method, asked.path), (Method::PUT, format!("/v1/agent/service/deregister/{id}")));
    }
    assert!(agent.known.lock().is_empty() && !scene.status.borrow().is_registered);
}

#[tokio::test]
async fn an_agent_that_forgot_is_told_again() {
    let (agent, address, mut requests) = FakeAgent::start("127.0.0.1:0");
    let mut scene = Scene::start(settings(address));
    registrations(&mut requests).await;
    scene.until(|status| status.is_registered).await;
    // It knows both: only looked at.
    let mut wait = scene.status.clone();
    wait.mark_unchanged();
    scene.clock.advance(CHECK_INTERVAL * 2);
    for id in IDS {
        let asked = requests.recv().await.unwrap();
        assert_eq!((asked.method, asked.path), (Method::GET, format!("/v1/agent/service/{id}")));
    }
    wait.changed().await.unwrap();
    // It was restarted, and one of them is lost.
    agent.known.lock().remove(IDS[1]);
    scene.clock.advance(CHECK_INTERVAL * 2);
    for expected in [Method::GET, Method::GET, Method::PUT] {
        assert_eq!(requests.recv().await.unwrap().method, expected);
    }
    scene.until(|status| status.is_registered).await;
    assert_eq!(agent.known.lock().len(), 2);
}

#[tokio::test]
async fn an_agent_that_is_away_is_tried_again_and_told_of() {
    // A port that nobody listens on, for now.
    let (_, address, _) = FakeAgent::start("127.0.0.1:0");
    let gone = SocketAddr::from(([127, 0, 0, 2], address.port()));
    let mut scene = Scene::start(settings(gone));
    let status = scene.until(|status| status.error.is_some()).await;
    assert!(!status.is_registered && status.error.unwrap().starts_with(&format!("connect to {gone}: ")));
    assert!(scene.registry.encode().contains("bellrock_cluster_consul_failures_total 1\n"));
    let (_agent, _, mut requests) = FakeAgent::start(&gone.to_string());
    scene.clock.advance(RETRY_INTERVAL * 2);
    registrations(&mut requests).await;
    assert_eq!(scene.until(|status| status.is_registered).await.error, None);
}

#[tokio::test]
async fn a_refusal_is_quoted_and_a_redirect_is_not_followed() {
    let (agent, address, mut requests) = FakeAgent::start("127.0.0.1:0");
    let refuse = |status: StatusCode, body: &'static str| {
        let response = Response::builder().status(status).header("Location", format!("http://{address}/elsewhere"));
        *agent.refusal.lock() = Some(response.body(Full::from(body)).unwrap());
    };
    refuse(StatusCode::FORBIDDEN, "Permission denied: token lacks service:write\n");
    let mut scene = Scene::start(settings(address));
    let status = scene.until(|status| status.error.is_some()).await;
    assert_eq!(
        status.error.as_deref(),
        Some("the agent answers 403 Forbidden: Permission denied: token lacks service:write")
    );
    requests.recv().await.unwrap();
    refuse(StatusCode::TEMPORARY_REDIRECT, "");
    scene.clock.advance(RETRY_INTERVAL * 2);
    let status = scene.until(|status| status.error.as_ref().is_some_and(|error| error.contains("307"))).await;
    assert!(!status.is_registered);
    assert_eq!(requests.recv().await.unwrap().path, "/v1/agent/service/register");
    scene.clock.advance(RETRY_INTERVAL * 2);
    registrations(&mut requests).await;
}

#[tokio::test]
async fn an_agent_that_never_answers_holds_up_nothing() {
    // Connections are taken by the kernel, and nobody reads them.
    let silent = runtime::listen(&["127.0.0.1:0".parse().unwrap()]).unwrap().remove(0);
    let mut scene = Scene::start(settings(silent.local_addr().unwrap()));
    let _connection = silent.accept().await.unwrap();
    scene.clock.advance(REQUEST_TIMEOUT);
    let status = scene.until(|status| status.error.is_some()).await;
    assert_eq!(status.error.as_deref(), Some("timed out after 3s"));
    let moving = async {
        let _connection = silent.accept().await.unwrap();
        scene.clock.advance(DEREGISTER_TIMEOUT);
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = scene.stop() => {}
        () = moving => {}
    }
}

#[test]
fn ids_are_escaped_and_secrets_are_not_shown() {
    assert_eq!(segment("a/b c-1"), "a%2Fb%20c-1");
    let shown = format!("{:?}", settings("127.0.0.1:1".parse().unwrap()));
    assert!(!shown.contains("planted"), "{shown}");
}

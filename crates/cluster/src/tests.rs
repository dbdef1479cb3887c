//! Nodes in one process that talk over loopback.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use model::NodeId;
use parking_lot::Mutex;
use runtime::{Registry, SystemClock};
use tokio::sync::Notify;

use crate::connect::connect;
use crate::message::Lane;
use crate::{CallError, Hello, Host, Judge, Message, Peers, PeersParts, Refusal, RefusalKind};
use crate::{Secret, Security, Settings, serve, split_posts};

const LIMIT: Duration = Duration::from_secs(20);
const SECRET: &[u8] = b"a secret of tests";

/// A node that answers with what it was sent, and keeps posts.
struct Node {
    hello: Mutex<Hello>,
    refuses: Mutex<Option<String>>,
    posts: Mutex<Vec<(NodeId, Vec<u8>)>>,
    posted: Notify,
}

impl Host for Node {
    fn hello(&self) -> Hello {
        self.hello.lock().clone()
    }

    fn judge(&self) -> Judge {
        let refusal = self.refuses.lock().clone();
        Box::new(|_| refusal.map_or(Ok(()), Err))
    }

    fn answer(&self, from: Hello, message: Message, body: Bytes) -> BoxFuture<'static, Result<Bytes, Refusal>> {
        let answer = match message {
            Message::Consensus => {
                let posts = split_posts(&body).unwrap();
                self.posts.lock().extend(posts.into_iter().map(|post| (from.node, post)));
                self.posted.notify_one();
                Ok(Bytes::new())
            }
            Message::TakesParts => Err(Refusal::new(RefusalKind::Again, "not now")),
            _ => Ok(body),
        };
        async move { answer }.boxed()
    }
}

struct Running {
    node: Arc<Node>,
    peers: Peers,
    address: String,
    unreachable: Arc<Notify>,
    _stop: tokio::sync::oneshot::Sender<()>,
}

fn hello(id: u64, cluster: u128) -> Hello {
    Hello {
        cluster,
        incarnation: 1,
        node: NodeId(id),
        name: format!("node {id}"),
        peer: String::new(),
        api: String::new(),
        last_index: 0,
        term: 0,
        boots: 1,
    }
}

/// A node whose log grows by one, and whose acks arrive everywhere, whenever another takes note of where it is.
struct Growing {
    id: u64,
    last_index: Arc<AtomicU64>,
}

impl Host for Growing {
    fn hello(&self) -> Hello {
        Hello { last_index: self.last_index.load(Ordering::SeqCst), ..hello(self.id, 7) }
    }

    fn judge(&self) -> Judge {
        let seen = self.last_index.fetch_add(1, Ordering::SeqCst) + 1;
        Box::new(move |other| if other.last_index < seen { Err("went back".to_owned()) } else { Ok(()) })
    }

    fn answer(&self, _from: Hello, _message: Message, body: Bytes) -> BoxFuture<'static, Result<Bytes, Refusal>> {
        async move { Ok(body) }.boxed()
    }
}

fn start(id: u64, cluster: u128, secret: &[u8]) -> Running {
    let listener = runtime::listen(&["127.0.0.1:0".parse().unwrap()]).unwrap().remove(0);
    let address = listener.local_addr().unwrap().to_string();
    let hello = Hello { peer: address.clone(), ..hello(id, cluster) };
    let node =
        Node { hello: Mutex::new(hello), refuses: Mutex::new(None), posts: Mutex::default(), posted: Notify::new() };
    let node = Arc::new(node);
    let unreachable = Arc::new(Notify::new());
    let told = unreachable.clone();
    let peers = Peers::new(PeersParts {
        host: node.clone(),
        security: Security::with_secret(&Secret::new(secret).unwrap()).unwrap(),
        settings: Settings { reconnect_delay: Duration::ZERO, ..Settings::default() },
        clock: SystemClock::shared(),
        registry: Registry::new(),
        unreachable: Arc::new(move |_| told.notify_one()),
    });
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let served = peers.clone();
    runtime::spawn(async move {
        serve(&served, vec![listener], async move {
            let _dropped = stopped.await;
        })
        .await;
    });
    Running { node, peers, address, unreachable, _stop: stop }
}

fn unreachable(result: Result<impl std::fmt::Debug, CallError>) -> String {
    match result {
        Err(CallError::Unreachable { reason, .. }) => reason,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_node_says_where_it_is_after_the_other_took_note_of_it() {
    let last_index = Arc::new(AtomicU64::new(13));
    let security = Security::with_secret(&Secret::new(SECRET).unwrap()).unwrap();
    let peers = Peers::new(PeersParts {
        host: Arc::new(Growing { id: 1, last_index: last_index.clone() }),
        security: security.clone(),
        settings: Settings::default(),
        clock: SystemClock::shared(),
        registry: Registry::new(),
        unreachable: Arc::new(|_| ()),
    });
    let listener = runtime::listen(&["127.0.0.1:0".parse().unwrap()]).unwrap().remove(0);
    let address = listener.local_addr().unwrap().to_string();
    runtime::spawn(async move { serve(&peers, vec![listener], std::future::pending()).await });
    let caller = Growing { id: 2, last_index };
    let connected = connect(&address, &caller, Lane::Control, &security, &Settings::default()).await;
    assert_eq!(connected.map(|connection| connection.other.node).map_err(|error| error.to_string()), Ok(NodeId(1)));
}

#[tokio::test]
async fn a_call_is_answered_and_a_refusal_says_why() {
    let (a, b) = (start(1, 7, SECRET), start(2, 7, SECRET));
    assert!(matches!(
        a.peers.call(NodeId(2), Message::Append, Bytes::new(), LIMIT).await,
        Err(CallError::Unknown { .. })
    ));
    a.peers.set_addresses(BTreeMap::from([(NodeId(2), b.address.clone())]));
    let large = Bytes::from(vec![7; 20 << 20]);
    assert_eq!(a.peers.call(NodeId(2), Message::SelectHead, "ping".into(), LIMIT).await.unwrap(), "ping");
    let refused = a.peers.call(NodeId(2), Message::TakesParts, Bytes::new(), LIMIT).await.unwrap_err();
    assert_eq!(refused.refusal(), Some(&Refusal::new(RefusalKind::Again, "not now")));
    // Over the limit of its kind: refused by the side that would have to hold it.
    let refused = a.peers.call(NodeId(2), Message::Renew, large, LIMIT).await.unwrap_err();
    assert_eq!(refused.refusal().map(|refusal| refusal.kind), Some(RefusalKind::Invalid), "{refused}");
    assert_eq!(a.peers.greet(&b.address).await.unwrap(), b.node.hello());
}

#[tokio::test]
async fn posts_arrive_in_order_and_whoever_is_gone_is_told_of() {
    let (a, b) = (start(1, 7, SECRET), start(2, 7, SECRET));
    a.peers.set_address(NodeId(2), &b.address);
    for i in 0..1000_u32 {
        a.peers.post(NodeId(2), i.to_le_bytes().to_vec());
    }
    while b.node.posts.lock().len() < 1000 {
        b.node.posted.notified().await;
    }
    let expected: Vec<_> = (0..1000_u32).map(|i| (NodeId(1), i.to_le_bytes().to_vec())).collect();
    assert_eq!(*b.node.posts.lock(), expected);
    drop(b);
    loop {
        a.peers.post(NodeId(2), vec![1]);
        tokio::select! {
            () = a.unreachable.notified() => break,
            () = tokio::task::yield_now() => {}
        }
    }
}

#[tokio::test]
async fn strangers_are_refused_in_words_on_both_sides() {
    let (a, stranger) = (start(1, 7, SECRET), start(2, 7, b"not the same secret"));
    let says = unreachable(stranger.peers.greet(&a.address).await);
    assert!(says.contains("it refuses this node: the join secrets differ"), "{says}");
    let says = unreachable(a.peers.greet(&stranger.address).await);
    assert!(says.contains("join secrets differ"), "{says}");

    let foreign = start(3, 8, SECRET);
    let says = unreachable(a.peers.greet(&foreign.address).await);
    assert!(says.contains("it is of cluster 00000000000000000000000000000008"), "{says}");
    assert!(says.contains("it refuses this node"), "{says}");

    let newcomer = start(4, 0, SECRET);
    newcomer.peers.greet(&a.address).await.unwrap();
    a.peers.greet(&newcomer.address).await.unwrap();
}

#[tokio::test]
async fn an_old_disk_and_a_wrong_address_are_told() {
    let (a, b) = (start(1, 7, SECRET), start(2, 7, SECRET));
    *b.node.refuses.lock() = Some("its log was longer once".to_owned());
    let says = unreachable(a.peers.greet(&b.address).await);
    assert_eq!(says, "it refuses this node: its log was longer once");
    *b.node.refuses.lock() = None;
    a.peers.set_address(NodeId(3), &b.address);
    let says = unreachable(a.peers.call(NodeId(3), Message::Status, Bytes::new(), LIMIT).await);
    assert_eq!(says, "node 0000000000000002 answers there");
}

#[tokio::test]
async fn certificates_of_one_ca_prove_a_node() {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    let ca_key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = params.self_signed(&ca_key).unwrap();
    let issuer = Issuer::new(params, ca_key);
    let security = |issuer: &Issuer<'_, KeyPair>, ca: &[u8]| {
        let key = KeyPair::generate().unwrap();
        let cert = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().signed_by(&key, issuer).unwrap();
        Security::with_certificates(
            ca,
            pem("CERTIFICATE", cert.der()).as_bytes(),
            pem("PRIVATE KEY", &key.serialize_der()).as_bytes(),
        )
        .unwrap()
    };
    let ca_pem = pem("CERTIFICATE", ca.der());
    let (ours, theirs) = (security(&issuer, ca_pem.as_bytes()), security(&issuer, ca_pem.as_bytes()));
    let own = start(1, 7, SECRET).node.hello();
    let hear = |security: Security, with: Security| {
        let own = own.clone();
        async move {
            let listener = runtime::listen(&["127.0.0.1:0".parse().unwrap()]).unwrap().remove(0);
            let address = listener.local_addr().unwrap().to_string();
            let parts = PeersParts {
                host: Arc::new(Node {
                    hello: Mutex::new(own.clone()),
                    refuses: Mutex::default(),
                    posts: Mutex::default(),
                    posted: Notify::new(),
                }),
                security,
                settings: Settings::default(),
                clock: SystemClock::shared(),
                registry: Registry::new(),
                unreachable: Arc::new(|_| ()),
            };
            let served = Peers::new(parts);
            runtime::spawn(async move { serve(&served, vec![listener], std::future::pending()).await });
            let caller = start(2, 7, SECRET).node;
            connect(&address, &*caller, Lane::Control, &with, &Settings::default()).await
        }
    };
    hear(ours.clone(), theirs).await.map(|_| ()).unwrap();
    let other_key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let other_ca = pem("CERTIFICATE", params.self_signed(&other_key).unwrap().der());
    let stranger = security(&Issuer::new(params, other_key), other_ca.as_bytes());
    assert!(hear(ours, stranger).await.is_err());
}

fn pem(kind: &str, der: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = format!("-----BEGIN {kind}-----\n");
    for chunk in der.chunks(3) {
        let bits = chunk.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for i in 0..4 {
            let digit = if i <= chunk.len() { DIGITS[(bits >> (18 - 6 * i)) as usize & 63] } else { b'=' };
            text.push(char::from(digit));
        }
    }
    text.push_str(&format!("\n-----END {kind}-----\n"));
    text
}

//! The first thing that is said on a connection: who is there, and the proof that it belongs here. docs/formats/peer.md.

use std::io;

use model::{DecodeError, NodeId, Reader, put_varint};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::message::Lane;
use crate::security::{Security, Side};

/// The version of everything on the peer port, the messages' bodies included: nodes of two versions refuse one another.
pub const PROTOCOL_VERSION: u8 = 3;

/// No hello, proof included, is longer.
const FRAME_BYTES_MAX: usize = 4 << 10;
/// Nor is a text in it.
const TEXT_BYTES_MAX: usize = 255;
/// Nor what a refusal says.
const REFUSAL_BYTES_MAX: usize = 1 << 10;
/// Of HMAC-SHA256.
const PROOF_BYTES: usize = 32;

/// What a node says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// Whose node it is; 0 if it is no cluster's yet.
    pub cluster: u128,
    /// In which life of that cluster's index; 0 likewise.
    pub incarnation: u64,
    /// Which node it is.
    pub node: NodeId,
    /// What an operator calls it.
    pub name: String,
    /// Where other nodes reach it, `host:port`; empty if they do not.
    pub peer: String,
    /// Where clients reach it, a URL.
    pub api: String,
    /// Of its log: the last entry's index.
    pub last_index: u64,
    /// Of its log: the term it has seen.
    pub term: u64,
    /// How often its log was opened.
    pub boots: u64,
}

impl Hello {
    fn encode(&self, lane: Lane) -> Vec<u8> {
        let mut out = vec![PROTOCOL_VERSION, lane_byte(lane)];
        out.extend_from_slice(&self.cluster.to_le_bytes());
        out.extend_from_slice(&self.node.0.to_le_bytes());
        for number in [self.incarnation, self.last_index, self.term, self.boots] {
            put_varint(&mut out, number);
        }
        for text in [&self.name, &self.peer, &self.api] {
            let end = text.floor_char_boundary(TEXT_BYTES_MAX);
            put_varint(&mut out, end as u64);
            out.extend_from_slice(&text.as_bytes()[..end]);
        }
        out
    }

    fn decode(bytes: &[u8]) -> Result<(Hello, Lane), DecodeError> {
        let mut reader = Reader::new(bytes);
        let version = reader.u8()?;
        if version != PROTOCOL_VERSION {
            return Err(reader.error("another version of the peer protocol"));
        }
        let lane = match reader.u8()? {
            0 => Lane::Control,
            1 => Lane::Bulk,
            2 => Lane::Parts,
            _ => return Err(reader.error("unknown lane")),
        };
        let mut cluster = [0; 16];
        cluster.copy_from_slice(reader.take(16)?);
        let hello = Hello {
            cluster: u128::from_le_bytes(cluster),
            node: NodeId(reader.u64()?),
            incarnation: reader.varint()?,
            last_index: reader.varint()?,
            term: reader.varint()?,
            boots: reader.varint()?,
            name: read_text(&mut reader)?,
            peer: read_text(&mut reader)?,
            api: read_text(&mut reader)?,
        };
        if !reader.is_empty() {
            return Err(reader.error("bytes after the end of a hello"));
        }
        Ok((hello, lane))
    }

    /// Why this node and another, each as it says of itself, have nothing to do with one another.
    fn must_match(&self, other: &Hello) -> Result<(), HelloError> {
        if self.node == other.node {
            return Err(HelloError::Itself);
        }
        let both_have_one = self.cluster != 0 && other.cluster != 0;
        if both_have_one && (self.cluster, self.incarnation) != (other.cluster, other.incarnation) {
            let of = |hello: &Hello| format!("{:032x} incarnation {}", hello.cluster, hello.incarnation);
            return Err(HelloError::OtherCluster { here: of(self), there: of(other) });
        }
        Ok(())
    }
}

fn read_text(reader: &mut Reader<'_>) -> Result<String, DecodeError> {
    let count = reader.count(1)?;
    if count > TEXT_BYTES_MAX {
        return Err(reader.error("a text is too long"));
    }
    let bytes = reader.take(count)?.to_vec();
    String::from_utf8(bytes).map_err(|_| reader.error("a text is not UTF-8"))
}

fn lane_byte(lane: Lane) -> u8 {
    match lane {
        Lane::Control => 0,
        Lane::Bulk => 1,
        Lane::Parts => 2,
    }
}

/// Why two nodes have nothing to say to one another.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HelloError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("its hello can't be read: {0}; is it a peer port of this version?")]
    Damaged(#[from] DecodeError),
    #[error("its hello is {0} bytes long; is it a peer port?")]
    TooLong(usize),
    #[error("the join secrets differ (peer-wrong-secret)")]
    WrongSecret,
    #[error("it is this node itself, or a copy of its disk")]
    Itself,
    #[error("it is of cluster {there}, this node is of {here} (peer-other-cluster)")]
    OtherCluster { here: String, there: String },
    /// The host's word.
    #[error("{0}")]
    NotWelcome(String),
    /// What the other side said.
    #[error("it refuses this node: {0}")]
    Refused(String),
}

impl HelloError {
    /// For metrics.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            HelloError::Io(_) => "io",
            HelloError::Damaged(_) | HelloError::TooLong(_) => "damaged",
            HelloError::WrongSecret => "secret",
            HelloError::OtherCluster { .. } => "cluster",
            HelloError::Itself => "itself",
            HelloError::NotWelcome(_) => "not_welcome",
            HelloError::Refused(_) => "refused",
        }
    }
}

/// Says hello first, and hears who is there.
pub(crate) async fn greet<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    own: &Hello,
    lane: Lane,
    security: &Security,
    exported: &[u8; 32],
) -> Result<Hello, HelloError> {
    let mut frame = own.encode(lane);
    let proof = security.prove(Side::Client, exported, &frame);
    frame.extend_from_slice(&proof);
    write_frame(stream, &frame).await?;
    let answer = read_frame(stream).await?;
    let said = match answer.split_first() {
        Some((0, said)) => said,
        Some((1, refusal)) => return Err(HelloError::Refused(String::from_utf8_lossy(refusal).into_owned())),
        _ => return Err(HelloError::TooLong(answer.len())),
    };
    let (other, _) = read_proven(said, Side::Server, security, exported)?;
    own.must_match(&other)?;
    Ok(other)
}

/// Hears who is there, judges it, and says hello or why not.
pub(crate) async fn welcome<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    own: &Hello,
    judge: impl FnOnce(&Hello) -> Result<(), String>,
    security: &Security,
    exported: &[u8; 32],
) -> Result<(Hello, Lane), HelloError> {
    let said = read_frame(stream).await?;
    let judged = read_proven(&said, Side::Client, security, exported).and_then(|(other, lane)| {
        own.must_match(&other)?;
        judge(&other).map_err(HelloError::NotWelcome)?;
        Ok((other, lane))
    });
    match judged {
        Ok((other, lane)) => {
            let hello = own.encode(lane);
            let proof = security.prove(Side::Server, exported, &hello);
            write_frame(stream, &[&[0], hello.as_slice(), proof.as_slice()].concat()).await?;
            Ok((other, lane))
        }
        Err(refused) => {
            // From the other side's point of view.
            let text = match &refused {
                HelloError::OtherCluster { here, there } => {
                    HelloError::OtherCluster { here: there.clone(), there: here.clone() }.to_string()
                }
                other => other.to_string(),
            };
            let end = text.floor_char_boundary(REFUSAL_BYTES_MAX);
            write_frame(stream, &[&[1], &text.as_bytes()[..end]].concat()).await?;
            Err(refused)
        }
    }
}

/// The proof is looked at before anything that it covers.
fn read_proven(said: &[u8], side: Side, security: &Security, exported: &[u8; 32]) -> Result<(Hello, Lane), HelloError> {
    let proof_bytes = security.prove(side, exported, &[]).len();
    debug_assert!(proof_bytes == PROOF_BYTES || proof_bytes == 0);
    let (hello, proof) = said.split_at_checked(said.len().saturating_sub(proof_bytes)).unwrap_or((said, &[]));
    if !security.is_proven(side, exported, hello, proof) {
        return Err(HelloError::WrongSecret);
    }
    Ok(Hello::decode(hello)?)
}

async fn write_frame<S: AsyncWrite + Unpin>(stream: &mut S, frame: &[u8]) -> io::Result<()> {
    let length = u32::try_from(frame.len()).map_err(io::Error::other)?;
    stream.write_all(&length.to_le_bytes()).await?;
    stream.write_all(frame).await?;
    stream.flush().await
}

async fn read_frame<S: AsyncRead + Unpin>(stream: &mut S) -> Result<Vec<u8>, HelloError> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).await?;
    let length = u32::from_le_bytes(length) as usize;
    if length > FRAME_BYTES_MAX {
        return Err(HelloError::TooLong(length));
    }
    let mut frame = vec![0; length];
    stream.read_exact(&mut frame).await?;
    Ok(frame)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::security::Secret;
    use proptest::prelude::*;

    fn hello() -> Hello {
        Hello {
            cluster: 7,
            incarnation: 1,
            node: NodeId(9),
            name: "a".into(),
            peer: "[::1]:1".into(),
            api: String::new(),
            last_index: 300,
            term: 2,
            boots: 1,
        }
    }

    #[test]
    fn a_hello_is_read_back() {
        for lane in [Lane::Control, Lane::Bulk, Lane::Parts] {
            assert_eq!(Hello::decode(&hello().encode(lane)), Ok((hello(), lane)));
        }
        let bytes = hello().encode(Lane::Bulk);
        let mut newer = bytes.clone();
        newer[0] += 1;
        assert!(Hello::decode(&newer).is_err());
    }

    #[test]
    fn a_proof_is_of_one_side_one_session_and_one_hello() {
        let security = |secret: &[u8]| Security::with_secret(&Secret::new(secret).unwrap()).unwrap();
        let ours = security(b"0123456789abcdef\n");
        let proof = ours.prove(Side::Client, &[1; 32], b"hello");
        assert!(security(b"0123456789abcdef").is_proven(Side::Client, &[1; 32], b"hello", &proof));
        assert!(!ours.is_proven(Side::Server, &[1; 32], b"hello", &proof));
        assert!(!ours.is_proven(Side::Client, &[2; 32], b"hello", &proof));
        assert!(!ours.is_proven(Side::Client, &[1; 32], b"hell", &proof));
        assert!(!ours.is_proven(Side::Client, &[1; 32], b"hello", &[]));
        assert!(!security(b"another secret, long").is_proven(Side::Client, &[1; 32], b"hello", &proof));
        assert!(Secret::new(b"short\n").is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_error_at_worst(bytes: Vec<u8>) {
            let _ = Hello::decode(&bytes).is_ok();
            let mut behind_the_version = vec![PROTOCOL_VERSION, 0];
            behind_the_version.extend_from_slice(&bytes);
            let _ = Hello::decode(&behind_the_version).is_ok();
        }
    }
}

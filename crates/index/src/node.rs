//! The nodes of the cluster: how to reach each one, so that nobody depends on DNS once it is in.

use model::{DecodeError, Reader, put_varint};

/// The most bytes of each text here.
pub const NODE_TEXT_BYTES_MAX: usize = 255;

/// What the index says of a node. Texts are cut off at [`NODE_TEXT_BYTES_MAX`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct NodeInfo {
    /// What an operator calls it; a label, two nodes may have the same.
    pub name: String,
    /// Where the others reach it: `host:port`.
    pub peer: String,
    /// Where clients reach it: a URL; empty if it does not say.
    pub api: String,
}

/// Texts as they can be stored; what is longer is cut off at a character.
pub(crate) fn put_info(out: &mut Vec<u8>, info: &NodeInfo) {
    for text in [&info.name, &info.peer, &info.api] {
        let end = text.floor_char_boundary(NODE_TEXT_BYTES_MAX);
        put_varint(out, end as u64);
        out.extend_from_slice(&text.as_bytes()[..end]);
    }
}

pub(crate) fn read_info(reader: &mut Reader<'_>) -> Result<NodeInfo, DecodeError> {
    Ok(NodeInfo { name: read_text(reader)?, peer: read_text(reader)?, api: read_text(reader)? })
}

fn read_text(reader: &mut Reader<'_>) -> Result<String, DecodeError> {
    let count = reader.count(1)?;
    if count > NODE_TEXT_BYTES_MAX {
        return Err(reader.error("a text of a node is too long"));
    }
    let bytes = reader.take(count)?.to_vec();
    String::from_utf8(bytes).map_err(|_| reader.error("a text of a node is not UTF-8"))
}

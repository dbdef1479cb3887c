//! Finds the other nodes and carries messages to them.

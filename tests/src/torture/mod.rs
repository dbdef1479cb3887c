//! The torture: nodes and a store on machines of their own, senders and readers that never rest, and a nemesis with a seed.
//!
//! Senders push known samples through any node, as agents with retries do, and remember exactly what was acked. Readers ask
//! every node all the time and hold each answer against what had been acked when they asked: everything of it, once, as it
//! was sent, and nothing that was not sent; only an answer that says that it is old may be old, and by no more than it says.
//! Meanwhile faults of RELIABILITY.md's table come and go; after each all must be whole again.
//!
//! | file | what is in it |
//! |---|---|
//! | [`writing`], [`reading`] | the senders and the readers |
//! | [`world`], [`machine`], [`below`] | machines, nodes, nameserver, store; what "well" means |
//! | [`nemesis`] | which fault comes when, and what is looked at after it |
//! | [`processes`], [`disks`], [`networks`], [`stores`] | the faults of a cluster that stands |
//! | [`lives`] | those of one that begins, grows and shrinks |
//! | [`table`] | what was measured |

pub mod below;
pub mod disks;
pub mod findings;
pub mod gap;
pub mod lives;
pub mod machine;
pub mod nemesis;
pub mod networks;
pub mod processes;
pub mod reading;
pub mod stores;
pub mod table;
pub mod world;
pub mod writing;

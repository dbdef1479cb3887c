//! Power loss under load: an ext4 image is shut down without a flush of its journal. Every acked sample is read back.
//!
//! Needs root.

use tests::disk::Disk;
use tests::load::{Load, Shape};
use tests::{Node, Random, Settings};

use crate::crash::{is_as_acked, wait_for_acks};
use crate::settings;

/// How often the power is cut.
const ROUNDS: usize = 5;

/// Room for a few minutes of load.
const DISK_MEBIBYTES: u64 = 512;

/// Cuts the power in the middle of writes; returns false at the first sample that is not as it was acked, or if the
/// node does not start again.
fn survives_power_loss(settings: &Settings, seed: u64, mut disk: Disk) -> bool {
    let mut random = Random::new(seed);
    let mut node = Node::start_on(settings, &disk.path().join("data")).unwrap();
    let mut load = Load::new(seed, Shape::default());
    for round in 0..ROUNDS {
        let switch = disk.power_switch().unwrap();
        let run = load.run(&node.client().clone(), |progress| {
            wait_for_acks(progress, &mut random);
            // A machine without power sends no answers. This one does: ext4 lets an fsync succeed that is under way
            // while its journal is aborted (tried with bare write and fsync: 7 such in 720, Linux 6.18).
            progress.lose_answers();
            switch.cut()?;
            node.kill()
        });
        let run = run.unwrap();
        disk.unmount().unwrap();
        disk.mount().unwrap();
        if let Err(error) = node.start_again() {
            println!("round {round}: the node does not start again: {error:#}");
            return false;
        }
        let after = format!("round {round}: power cut after {} acked samples", run.acked);
        if !is_as_acked(&after, &mut load, node.client(), true) {
            println!("{}", node.process().output());
            return false;
        }
    }
    true
}

#[test]
fn acked_samples_survive_power_loss() {
    let Some(disk) = Disk::new(DISK_MEBIBYTES) else { return };
    let seed = Random::seed("power::acked_samples_survive_power_loss");
    assert!(survives_power_loss(&settings(), seed, disk), "acked samples are not as they were sent, seed {seed}");
}

/// The check finds what it is there to find.
#[cfg(feature = "plant")]
#[test]
fn an_ack_before_the_fsync_is_found() {
    let Some(disk) = Disk::new(DISK_MEBIBYTES) else { return };
    let seed = Random::seed("power::an_ack_before_the_fsync_is_found");
    let planted = settings().variable("BELLROCK_PLANT", "ack-before-fsync");
    assert!(!survives_power_loss(&planted, seed, disk), "the planted bug was not found, seed {seed}");
}

//! Faults of the store: it fails, is silent, loses answers, is slow.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Result;

use crate::random::mix;
use crate::s3::{Asked, Fate};
use crate::torture::world::World;

/// How long a fault of the store lasts: in a full run longer than a segment is tried before its requests are refused.
fn span(is_full: bool) -> Duration {
    Duration::from_secs(if is_full { 15 } else { 8 })
}

/// Fault 17: ten minutes in a full run, as in RELIABILITY.md's table.
pub fn fails(world: &mut World, is_full: bool) -> Result<String> {
    let span = Duration::from_secs(if is_full { 600 } else { 15 });
    under(world, span, |_, _| Fate::Refused)?;
    Ok(format!("for {span:?}"))
}

/// Fault 18, always longer than a segment is tried before its requests are refused.
pub fn silent(world: &mut World, is_full: bool) -> Result<String> {
    let span = Duration::from_secs(if is_full { 15 } else { 12 });
    under(world, span, |_, _| Fate::Swallowed)?;
    Ok(format!("for {span:?}"))
}

/// Fault 19: of every three PUTs one, by chance.
pub fn answers_lost(world: &mut World, is_full: bool) -> Result<String> {
    let span = span(is_full);
    let chance = chance(world.random.bits());
    under(world, span, move |asked, _| match asked {
        Asked::Put if chance().is_multiple_of(3) => Fate::AnswerLost,
        _ => Fate::Served,
    })?;
    Ok(format!("one of three for {span:?}"))
}

/// Fault 20.
pub fn slow(world: &mut World, is_full: bool) -> Result<String> {
    let span = span(is_full);
    let chance = chance(world.random.bits());
    under(world, span, move |_, _| match chance() % 100 {
        0 => Fate::Late(Duration::from_secs(5)),
        _ => Fate::Served,
    })?;
    Ok(format!("for {span:?}"))
}

fn under(world: &mut World, span: Duration, judge: impl Fn(Asked, &str) -> Fate + Send + 'static) -> Result<()> {
    world.below.s3()?.judge(judge);
    let held = world.hold(span);
    world.below.s3()?.acquit();
    held
}

/// Numbers at random, to be drawn by requests as they come.
fn chance(seed: u64) -> impl Fn() -> u64 + Send {
    let drawn = AtomicU64::new(seed);
    move || mix(drawn.fetch_add(1, Ordering::Relaxed))
}

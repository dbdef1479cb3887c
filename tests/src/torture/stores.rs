//! Faults of the store: it fails, is silent, loses answers, is slow.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Result;

use crate::random::mix;
use crate::s3::{Asked, Fate};
use crate::torture::world::World;

/// How long a fault of the store lasts, unless it is a long one: longer than a segment is tried before its requests are refused.
const SPAN: Duration = Duration::from_secs(15);

/// Fault 17. Ten minutes in RELIABILITY.md's table; here a minute, or 15 s: nothing new happens later.
pub fn fails(world: &mut World, is_full: bool) -> Result<String> {
    let span = if is_full { Duration::from_secs(60) } else { SPAN };
    under(world, span, |_, _| Fate::Refused)?;
    Ok(format!("for {span:?}"))
}

/// Fault 18.
pub fn silent(world: &mut World) -> Result<String> {
    under(world, SPAN, |_, _| Fate::Swallowed)?;
    Ok(format!("for {SPAN:?}"))
}

/// Fault 19: of every three PUTs one, by chance.
pub fn answers_lost(world: &mut World) -> Result<String> {
    let chance = chance(world.random.bits());
    under(world, SPAN, move |asked, _| match asked {
        Asked::Put if chance() % 3 == 0 => Fate::AnswerLost,
        _ => Fate::Served,
    })?;
    Ok(format!("one of three for {SPAN:?}"))
}

/// Fault 20.
pub fn slow(world: &mut World) -> Result<String> {
    let chance = chance(world.random.bits());
    under(world, SPAN, move |_, _| match chance() % 100 {
        0 => Fate::Late(Duration::from_secs(5)),
        _ => Fate::Served,
    })?;
    Ok(format!("for {SPAN:?}"))
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

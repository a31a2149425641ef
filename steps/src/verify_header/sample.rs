//! Which items are checked: drawn by the run's seed, so that anybody can draw them again.

use runbook_engine::error::StepError;
use serde_json::json;

use crate::kind::Context;
use crate::upload::Descriptor;

/// splitmix64 (Steele, Lea, Flood 2014).
struct SplitMix64(u64);

impl SplitMix64 {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

/// `most` of the keys, or all of them, in the order drawn: the keys in byte order, shuffled from the front.
fn draw(mut keys: Vec<String>, most: usize, seed: u64) -> Vec<String> {
    keys.sort_unstable();
    keys.dedup();
    let mut random = SplitMix64(seed);
    let drawn = most.min(keys.len());
    for at in 0..drawn {
        let remaining = (keys.len() - at) as u64;
        let pick = usize::try_from(random.next() % remaining).unwrap_or(0);
        keys.swap(at, at + pick);
    }
    keys.truncate(drawn);
    keys
}

/// The keys to check: those recorded by an earlier attempt, or a draw that is recorded before anything is checked.
/// A draw stands for the descriptors with this digest: others, uploaded anew, are drawn from anew.
pub(super) async fn drawn(
    cx: &Context,
    items: &[Descriptor],
    sha256: &str,
    most: usize,
) -> Result<Vec<String>, StepError> {
    if most == 0 {
        return Err(StepError::invalid("`sample` is 0, and a check of nothing proves nothing"));
    }
    if items.is_empty() {
        return Err(StepError::gate("there is nothing to check: no item was uploaded"));
    }
    let keys = draw(items.iter().map(|item| item.key.clone()).collect(), most, cx.run.seed);
    let stands = cx.ledger.remember(&format!("sample:{sha256}"), json!(keys)).await?;
    serde_json::from_value(stands)
        .map_err(|error| StepError::refused("the recorded sample can not be read").with_source(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generator_is_splitmix64() {
        let mut random = SplitMix64(1_234_567);
        let expected = [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423];
        assert_eq!([random.next(), random.next(), random.next()], expected);
    }

    #[test]
    fn a_draw_depends_on_the_seed_alone() {
        let keys: Vec<String> = (0..100).map(|n| format!("k{n:03}")).collect();
        let backwards: Vec<String> = keys.iter().rev().cloned().collect();
        let drawn = draw(keys.clone(), 20, 42);
        assert_eq!(drawn, draw(backwards, 20, 42));
        assert_ne!(drawn, draw(keys.clone(), 20, 43));
        let mut distinct = drawn.clone();
        distinct.sort();
        distinct.dedup();
        assert_eq!(distinct.len(), 20);
        let mut all = draw(keys.clone(), 500, 42);
        all.sort();
        assert_eq!(all, keys);
    }
}

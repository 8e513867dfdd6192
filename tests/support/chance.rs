//! Chance that can be had again: `NORN_SEED` names it, `NORN_FUZZ_SECONDS` how long it is tried.

use std::time::Duration;

/// Numbers by chance (SplitMix64): the same seed gives the same numbers.
pub struct Chance(pub u64);

impl Chance {
    /// From `NORN_SEED`, else another one every time.
    pub fn from_env() -> Self {
        Self(variable("NORN_SEED").unwrap_or_else(|| u64::from(uuid::Uuid::new_v4().as_fields().0)))
    }

    /// A number below `end`, which is not zero.
    pub fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % end as u64).expect("it is below a usize")
    }

    pub fn one<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }
}

/// How long chance is tried, unless `NORN_FUZZ_SECONDS` says otherwise.
pub fn time(usual: Duration) -> Duration {
    variable("NORN_FUZZ_SECONDS").map_or(usual, Duration::from_secs)
}

fn variable(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok().filter(|text| !text.is_empty())?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

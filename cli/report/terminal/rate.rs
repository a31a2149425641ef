//! How fast a step is, over the last few seconds.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Over how long the rate is taken: long enough to be calm, short enough to be true.
const WINDOW: Duration = Duration::from_secs(15);

/// How far apart samples are at least.
const STEP: Duration = Duration::from_millis(250);

#[derive(Default)]
pub(super) struct Rate {
    samples: VecDeque<(Instant, u64)>,
}

impl Rate {
    pub(super) fn sample(&mut self, done: u64) {
        self.sample_at(Instant::now(), done);
    }

    fn sample_at(&mut self, now: Instant, done: u64) {
        if self.samples.back().is_some_and(|(at, _)| now.duration_since(*at) < STEP) {
            return;
        }
        self.samples.push_back((now, done));
        while self.samples.front().is_some_and(|(at, _)| now.duration_since(*at) > WINDOW) {
            self.samples.pop_front();
        }
    }

    /// Items a second; nothing before a second has passed.
    pub(super) fn per_second(&self) -> Option<f64> {
        let ((start, first), (end, last)) = (self.samples.front()?, self.samples.back()?);
        let passed = end.duration_since(*start).as_secs_f64();
        let items = u32::try_from(last.saturating_sub(*first)).unwrap_or(u32::MAX);
        (passed >= 1.0 && items > 0).then(|| f64::from(items) / passed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_that_of_the_last_seconds() {
        let (start, mut rate) = (Instant::now(), Rate::default());
        rate.sample_at(start, 0);
        assert_eq!(rate.per_second(), None);
        for second in 1..=60u64 {
            let done = if second <= 30 { second * 100 } else { 3000 + (second - 30) * 10 };
            rate.sample_at(start + Duration::from_secs(second), done);
        }
        let now = rate.per_second().unwrap();
        assert!((now - 10.0).abs() < 0.01, "{now}");
    }
}

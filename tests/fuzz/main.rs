//! Every parser of text or bytes from outside, against mutated input: none may panic, hang, or return a
//! value that breaks what its type promises.
//!
//! Runs for `WEFT_FUZZ_SECONDS` each (0.3 unless set). A failure prints the input and the seed;
//! `WEFT_FUZZ_SEED` repeats a run.
#![expect(clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

mod legacy;
mod mutate;
mod texts;
mod wire;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use mutate::Mutator;

/// Longer than this for one input means that a parser is not linear in it.
const SLOW: Duration = Duration::from_millis(500);

/// Feeds a parser with mutations of `seeds`, spiced with words of `dictionary`.
pub(crate) fn fuzz(seeds: &[&[u8]], dictionary: &[&str], parse: impl Fn(&[u8])) {
    let variable = |name: &str| std::env::var(name).ok();
    let seconds = variable("WEFT_FUZZ_SECONDS").and_then(|text| text.parse().ok()).unwrap_or(0.3);
    let seed = variable("WEFT_FUZZ_SEED").and_then(|text| text.parse().ok()).unwrap_or_else(mutate::fresh_seed);
    let mut mutator = Mutator::new(seed, seeds, dictionary);
    let end = Instant::now() + Duration::from_secs_f64(seconds);
    let mut inputs: Vec<Vec<u8>> = seeds.iter().map(|seed| seed.to_vec()).collect();
    loop {
        for input in inputs.drain(..) {
            let began = Instant::now();
            let outcome = catch_unwind(AssertUnwindSafe(|| parse(&input)));
            let took = began.elapsed();
            if outcome.is_err() || took > SLOW {
                let what = if outcome.is_err() { "failed" } else { "was slow" };
                panic!("{what} ({took:?}, WEFT_FUZZ_SEED={seed}) on: {}", input.escape_ascii());
            }
        }
        if Instant::now() > end {
            return;
        }
        inputs.extend((0..64).map(|_| mutator.next()));
    }
}

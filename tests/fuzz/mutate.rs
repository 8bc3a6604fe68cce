//! Mutations of known inputs: what a careless or hostile writer would make of them.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};

/// Another number in every process.
pub(crate) fn fresh_seed() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// Makes inputs, the same ones for the same seed.
pub(crate) struct Mutator<'a> {
    state: u64,
    seeds: &'a [&'a [u8]],
    dictionary: &'a [&'a str],
}

/// Numbers at which something changes.
const NUMBERS: [&str; 14] =
    ["0", "-1", "1", "32", "33", "128", "129", "255", "65535", "65536", "16777215", "16777216", "4294967296", "1e400"];

impl<'a> Mutator<'a> {
    pub(crate) fn new(seed: u64, seeds: &'a [&'a [u8]], dictionary: &'a [&'a str]) -> Self {
        Self { state: seed, seeds, dictionary }
    }

    /// SplitMix64.
    fn random(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `end`; 0 if that is 0.
    fn below(&mut self, end: usize) -> usize {
        let random = self.random() >> 32;
        usize::try_from(random).expect("32 bits fit") % end.max(1)
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    /// One input: a seed after one to eight mutations.
    pub(crate) fn next(&mut self) -> Vec<u8> {
        let mut input = self.pick(self.seeds).to_vec();
        for _ in 0..=self.below(8) {
            self.mutate(&mut input);
        }
        input
    }

    fn mutate(&mut self, input: &mut Vec<u8>) {
        let at = self.below(input.len() + 1);
        let to = (at + self.below(16) + 1).min(input.len());
        match self.below(10) {
            0 if at < input.len() => input[at] ^= 1 << self.below(8),
            1 if at < input.len() => input[at] = self.pick(b"\0\xff\x7f\x80{}[]\":,/.-=\n\\u "),
            2 => drop(input.drain(at.min(to)..to)),
            3 => input.truncate(at),
            4 => {
                let copy = input[at.min(to)..to].to_vec();
                (0..=self.below(64)).for_each(|_| input.extend_from_slice(&copy));
            }
            5 => self.splice(input, at),
            6 if !self.dictionary.is_empty() => insert(input, at, self.pick(self.dictionary).as_bytes()),
            7 => self.number(input, at),
            8 => insert(input, at, "é\u{212a}\u{202e}".as_bytes()),
            _ => {
                let byte = self.random().to_le_bytes()[0];
                insert(input, at, &[byte]);
            }
        }
    }

    /// Goes on with the tail of another seed.
    fn splice(&mut self, input: &mut Vec<u8>, at: usize) {
        let other = self.pick(self.seeds);
        let from = self.below(other.len());
        input.truncate(at);
        input.extend_from_slice(other.get(from..).unwrap_or(&[]));
    }

    /// Puts another number in the place of the next one.
    fn number(&mut self, input: &mut Vec<u8>, at: usize) {
        let Some(from) = input[at..].iter().position(u8::is_ascii_digit).map(|offset| at + offset) else { return };
        let length = input[from..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        let number = self.pick(&NUMBERS);
        input.splice(from..from + length, number.bytes());
    }
}

fn insert(input: &mut Vec<u8>, at: usize, what: &[u8]) {
    input.splice(at..at, what.iter().copied());
}

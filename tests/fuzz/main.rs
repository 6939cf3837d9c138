//! Fuzzing that needs nothing but `cargo test`: for every parser of foreign bytes a module, named after what it attacks,
//! with seeds, a dictionary and one `check` that panics when a promise is broken.
//!
//! Inputs are mutated seeds. There is no coverage to steer by, so `check` says in one word how an input ended, and inputs
//! that end in a new way become seeds themselves. `FUZZ_ITERATIONS` sets how many inputs each target gets (default
//! 4,000), `FUZZ_SEED` where chance begins. The same targets run under cargo-fuzz, see `fuzz/`.

mod bus_message;
mod config;
mod cookies;
mod head_rewriting;
mod http1_body;
mod http1_request_head;
mod http1_response_head;
mod proxy_protocol;
mod sni;
mod target;

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

use target::{Ending, Target};
use weighbridge::domain::dice::Dice;

#[test]
fn bus_message() {
    attack(&bus_message::TARGET);
}

#[test]
fn config() {
    attack(&config::TARGET);
}

#[test]
fn cookies() {
    attack(&cookies::TARGET);
}

#[test]
fn head_rewriting() {
    attack(&head_rewriting::TARGET);
}

#[test]
fn http1_request_head() {
    attack(&http1_request_head::TARGET);
}

#[test]
fn http1_response_head() {
    attack(&http1_response_head::TARGET);
}

#[test]
fn http1_body() {
    attack(&http1_body::TARGET);
}

#[test]
fn proxy_protocol() {
    attack(&proxy_protocol::TARGET);
}

#[test]
fn sni() {
    attack(&sni::TARGET);
}

const INPUT_BYTES_MAX: usize = 4096;
const CORPUS_MAX: usize = 1000;

fn attack(target: &Target) {
    let number = |name, default| match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} is not a number: {text:?}")),
        Err(_) => default,
    };
    let (iterations, seed) = (number("FUZZ_ITERATIONS", 4_000), number("FUZZ_SEED", 1));
    let mut dice = Dice::seeded(seed);
    let mut corpus: Vec<Vec<u8>> = target.seeds.iter().map(|bytes| bytes.to_vec()).collect();
    let mut endings: HashSet<Ending> = corpus.iter().map(|input| run(target, input, seed)).collect();
    for _ in 0..iterations {
        let input = mutated(&corpus, target.dictionary, &mut dice);
        if endings.insert(run(target, &input, seed)) && corpus.len() < CORPUS_MAX {
            corpus.push(input);
        }
    }
    assert!(endings.len() > 1, "{}: all {iterations} inputs ended the same way, so nothing was attacked", target.name);
}

fn run(target: &Target, input: &[u8], seed: u64) -> Ending {
    catch_unwind(AssertUnwindSafe(|| (target.check)(input))).unwrap_or_else(|_| {
        panic!("{} failed with FUZZ_SEED={seed} on the input\nb\"{}\"", target.name, input.escape_ascii())
    })
}

fn mutated(corpus: &[Vec<u8>], dictionary: &[&[u8]], dice: &mut Dice) -> Vec<u8> {
    let mut input = corpus[dice.below(corpus.len())].clone();
    for _ in 0..=dice.below(4) {
        mutate(&mut input, corpus, dictionary, dice);
    }
    input.truncate(INPUT_BYTES_MAX);
    input
}

fn mutate(input: &mut Vec<u8>, corpus: &[Vec<u8>], dictionary: &[&[u8]], dice: &mut Dice) {
    const NASTY: &[u8] = b"\r\n\0\t ,;:=\"/?#%@[]*_-+\x0b\x0c\x1b\x7f\x80\xa0\xff0a9f";
    let at = dice.below(input.len() + 1);
    let end = at + dice.below((input.len() - at).min(32) + 1);
    match dice.below(9) {
        0 => insert(input, at, &[NASTY[dice.below(NASTY.len())]]),
        1 if at < input.len() => input[at] = NASTY[dice.below(NASTY.len())],
        2 if at < input.len() => input[at] ^= 1 << dice.below(8),
        3 => drop(input.drain(at..end)),
        4 => {
            let copy = input[at..end].to_vec();
            insert(input, dice.below(input.len() + 1), &copy);
        }
        5 => {
            let other = &corpus[dice.below(corpus.len())];
            input.truncate(at);
            input.extend_from_slice(&other[dice.below(other.len() + 1)..]);
        }
        6 if dice.below(4) == 0 => input.truncate(at),
        _ => insert(input, at, dictionary[dice.below(dictionary.len())]),
    }
}

fn insert(input: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    input.splice(at..at, bytes.iter().copied());
}

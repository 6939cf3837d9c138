//! Chance as the rules see it: a seeded generator handed in by the caller, so every choice can be replayed.

/// A small pseudo-random generator (xoshiro256++ seeded by splitmix64, Blackman and Vigna 2019). Not for secrets.
#[derive(Clone, Debug)]
pub struct Dice {
    state: [u64; 4],
}

impl Dice {
    /// The same seed gives the same rolls, for ever.
    pub fn seeded(seed: u64) -> Dice {
        let mut z = seed;
        let mut next = || {
            z = z.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mut x = z;
            x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            x ^ (x >> 31)
        };
        Dice { state: [next(), next(), next(), next()] }
    }

    /// Sixty-four random bits.
    pub fn bits(&mut self) -> u64 {
        let [a, b, c, d] = &mut self.state;
        let rolled = a.wrapping_add(*d).rotate_left(23).wrapping_add(*a);
        let t = *b << 17;
        *c ^= *a;
        *d ^= *b;
        *b ^= *c;
        *a ^= *d;
        *c ^= t;
        *d = d.rotate_left(45);
        rolled
    }

    /// A number in `0..bound`, 0 if `bound` is 0. Multiply-shift (Lemire 2019); the bias is below 2^-32 for the pool
    /// sizes in use.
    pub fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.bits()) * bound as u128) >> 64) as usize
    }

    /// A share in `0.0..1.0`.
    pub fn share(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_rolls_the_same() {
        let (mut a, mut b) = (Dice::seeded(7), Dice::seeded(7));
        assert!((0..100).all(|_| a.bits() == b.bits()));
        assert_ne!(Dice::seeded(7).bits(), Dice::seeded(8).bits());
    }

    #[test]
    fn every_side_comes_up_about_as_often() {
        let mut dice = Dice::seeded(1);
        let mut seen = [0u32; 6];
        for _ in 0..60_000 {
            seen[dice.below(6)] += 1;
        }
        assert!(seen.iter().all(|n| (9_500..10_500).contains(n)), "{seen:?}");
        assert_eq!(dice.below(0), 0);
        assert!((0..1000).all(|_| (0.0..1.0).contains(&dice.share())));
    }
}

//! Hashing with a secret key: host names are chosen by clients and by the owners of apps, so nobody outside may know
//! which of them collide.

use std::hash::{BuildHasher, DefaultHasher, Hasher};

/// Makes SipHash-1-3 hashers that have already taken in a secret.
#[derive(Clone, Debug)]
pub struct Keyed {
    primed: DefaultHasher,
}

impl Keyed {
    /// A hash with `secret` as its key: draw it at random once per process; a test may fix it.
    pub fn new(secret: u128) -> Keyed {
        let mut primed = DefaultHasher::new();
        primed.write_u128(secret);
        Keyed { primed }
    }

    /// The hash of bytes that are hashed as nothing else is.
    pub fn hash(&self, bytes: &[u8]) -> u64 {
        let mut hasher = self.primed.clone();
        hasher.write(bytes);
        hasher.finish()
    }
}

impl BuildHasher for Keyed {
    type Hasher = DefaultHasher;

    fn build_hasher(&self) -> DefaultHasher {
        self.primed.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_secret_decides_the_hash() {
        let host = "shop.example.com";
        assert_eq!(Keyed::new(1).hash_one(host), Keyed::new(1).hash_one(host));
        assert_ne!(Keyed::new(1).hash_one(host), Keyed::new(2).hash_one(host));
        assert_ne!(Keyed::new(1).hash_one(host), Keyed::new(1).hash_one("shop.example.org"));
    }
}

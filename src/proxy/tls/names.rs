//! Which of several things is for a host name: names exactly, or by a wildcard for their first label.

use std::collections::HashMap;

/// Things by name, each for any number of names.
#[derive(Clone, Debug)]
pub struct Names<T> {
    things: Vec<T>,
    exact: HashMap<Box<str>, Vec<usize>>,
    /// By what follows `*.`.
    wildcard: HashMap<Box<str>, Vec<usize>>,
}

impl<T> Default for Names<T> {
    fn default() -> Names<T> {
        Names { things: Vec::new(), exact: HashMap::new(), wildcard: HashMap::new() }
    }
}

impl<T> Names<T> {
    /// Adds a thing for `names`, in any case; each may begin with `*.`, which stands for one label.
    pub fn add<'a>(&mut self, thing: T, names: impl IntoIterator<Item = &'a str>) {
        let place = self.things.len();
        self.things.push(thing);
        for name in names {
            let name = name.to_ascii_lowercase();
            let (map, name) = match name.strip_prefix("*.") {
                Some(parent) => (&mut self.wildcard, parent),
                None => (&mut self.exact, name.as_str()),
            };
            let places = map.entry(name.into()).or_default();
            if places.last() != Some(&place) {
                places.push(place);
            }
        }
    }

    /// What is for `name`, the best first: for exactly that name, then by wildcard, then all others. Among equals, in the
    /// order they were added.
    pub fn candidates(&self, name: Option<&str>) -> impl Iterator<Item = &T> {
        let name = name.map(str::to_ascii_lowercase);
        let listed = |map: &'_ HashMap<Box<str>, Vec<usize>>, name: Option<&str>| {
            name.and_then(|name| map.get(name)).cloned().unwrap_or_default()
        };
        let exact = listed(&self.exact, name.as_deref());
        let parent = name.as_deref().and_then(|name| name.split_once('.')).map(|(_, parent)| parent);
        let wildcard = listed(&self.wildcard, parent);
        exact.into_iter().chain(wildcard).chain(0..self.things.len()).map(|place| &self.things[place])
    }

    /// How many things there are.
    pub fn len(&self) -> usize {
        self.things.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.things.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Who is first in line for `name`; `certificates` are lines of a title and names.
    #[track_caller]
    fn check(certificates: &str, asked: &[(&str, &str)]) {
        let mut names = Names::default();
        for line in certificates.lines() {
            let mut words = line.split_whitespace();
            names.add(words.next().expect("a title"), words);
        }
        for (name, expected) in asked {
            let name = (!name.is_empty()).then_some(*name);
            assert_eq!(names.candidates(name).next(), Some(expected), "{name:?}");
        }
    }

    #[test]
    fn the_exact_name_beats_the_wildcard_and_the_first_serves_the_rest() {
        check(
            "first a.test\nwild *.b.test\nexact www.b.test\nboth *.c.test c.test",
            &[
                ("a.test", "first"),
                ("www.b.test", "exact"),
                ("WWW.B.test", "exact"),
                ("shop.b.test", "wild"),
                ("c.test", "both"),
                ("x.c.test", "both"),
                ("", "first"),
                ("other.test", "first"),
            ],
        );
    }

    #[test]
    fn a_wildcard_stands_for_exactly_one_label() {
        check("first x\nwild *.b.test", &[("b.test", "first"), ("a.b.b.test", "first"), (".b.test", "wild")]);
        check("first x\nodd *.", &[("", "first"), ("com", "first"), ("com.", "odd")]);
    }

    #[test]
    fn those_of_one_name_come_in_order_and_then_all_others() {
        let mut names = Names::default();
        names.add("rsa", ["a.test", "a.test"]);
        names.add("other", ["b.test"]);
        names.add("ecdsa", ["A.test"]);
        let found: Vec<_> = names.candidates(Some("a.test")).copied().collect();
        assert_eq!(found, ["rsa", "ecdsa", "rsa", "other", "ecdsa"]);
        assert!(Names::<()>::default().candidates(Some("a.test")).next().is_none());
    }
}

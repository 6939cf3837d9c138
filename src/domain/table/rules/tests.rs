//! What a change of one route among many copies. What is found is tested with the look-ups of the table.

use std::collections::HashMap;

use super::*;
use crate::domain::identity::Address;
use crate::domain::moment::Moment;
use crate::domain::protocol::register::Registration;
use crate::domain::table::settings::TableSettings;
use crate::domain::table::{Changes, RouteTable};

/// Routes of one host, half of them wildcards, with their pools.
fn routes(count: usize) -> Vec<(RouteUri, Arc<Pool>)> {
    let mut table = RouteTable::new(TableSettings::default(), 7);
    let uri = |no: u16| {
        let host = if no < 750 { "a.test" } else { "*.a.test" };
        RouteUri::parse(&format!("{host}/{:05}/beyond-what-is-kept-in-place", u32::from(no) * 7919 % 100_000))
            .expect("a good route")
    };
    for no in 0..count as u16 {
        let registration = Registration { uris: vec![uri(no)], ..Registration::at(Address::new("10.0.0.1", 1 + no)) };
        table.register(&registration, Moment::START, &mut Changes::default());
    }
    let snapshot = table.snapshot(Moment::START).expect("it is new");
    snapshot.pools().map(|pool| (RouteUri::parse(&pool.route).expect("it was one"), pool.clone())).collect()
}

/// All lists, by their addresses, with their lengths.
fn lists(rules: &Rules) -> HashMap<*const Entry, usize> {
    let (mut lists, mut below) = (HashMap::new(), vec![&rules.0]);
    while let Some(list) = below.pop() {
        lists.insert(list.as_ptr(), list.len());
        below.extend(list.iter().filter_map(|entry| match entry {
            Entry::Rule(_) => None,
            Entry::Branch(branch) => Some(&branch.entries),
        }));
    }
    lists
}

#[test]
fn a_change_copies_few_entries_however_many_there_are() {
    const ROUTES: usize = 1_500;
    let routes = routes(ROUTES);
    assert_eq!(routes.len(), ROUTES);
    let (first, rest) = routes.split_first().expect("there are many");
    let mut rules = Rules::new(&first.0, first.1.clone());
    let mut change = |uri: &RouteUri, pool: Option<&Arc<Pool>>| {
        let picture = rules.clone(); // which is to stay as it is
        let before = lists(&picture);
        rules.set(uri, pool.cloned());
        let after = lists(&rules);
        assert_eq!(before, lists(&picture));
        let copied: usize =
            after.iter().filter(|(list, _)| !before.contains_key(*list)).map(|(_, length)| length).sum();
        // Three levels; the list at the bottom and the one above it may have been split.
        assert!(copied <= 4 * (LIST_MAX + 1), "{copied} entries were copied");
        let known = after.values().sum::<usize>() + 1 - after.len();
        assert_eq!(known, rules.pools().count());
    };
    rest.iter().for_each(|(uri, pool)| change(uri, Some(pool)));
    routes.iter().rev().for_each(|(uri, pool)| change(uri, Some(pool)));
    rest.iter().for_each(|(uri, _)| change(uri, None));
    assert_eq!(rules.pools().count(), 1);
}

#[test]
fn a_list_of_one_takes_a_cache_line() {
    assert_eq!(size_of::<Entry>() + 2 * size_of::<usize>(), 64);
}

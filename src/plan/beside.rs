//! Two tables side by side. Both are sorted by the same keys, so that one walk over both finds every
//! difference: a table of thousands of rows that are right costs next to nothing.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use crate::model::table::{Entry, Tables};

/// Every key that is in either, in the order of [`Tables::entries`], with the row that each has there.
pub(super) fn rows_beside<'a>(
    left: &'a Tables,
    right: &'a Tables,
) -> impl Iterator<Item = (Option<Entry>, Option<Entry>)> + 'a {
    let fdb = beside(&left.fdb, &right.fdb, |key, value| Entry::Fdb(*key, *value));
    let neighbours = beside(&left.neighbours, &right.neighbours, |key, value| Entry::Neighbour(*key, *value));
    let routes = beside(&left.routes, &right.routes, |key, value| Entry::Route(*key, *value));
    fdb.chain(neighbours).chain(routes)
}

fn beside<'a, K: Ord, V>(
    left: &'a BTreeMap<K, V>,
    right: &'a BTreeMap<K, V>,
    row: impl Fn(&K, &V) -> Entry + 'a,
) -> impl Iterator<Item = (Option<Entry>, Option<Entry>)> + 'a {
    let (mut left, mut right) = (left.iter().peekable(), right.iter().peekable());
    std::iter::from_fn(move || {
        let order = match (left.peek(), right.peek()) {
            (Some((left, _)), Some((right, _))) => left.cmp(right),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => return None,
        };
        let from_left = if order.is_le() { left.next() } else { None };
        let from_right = if order.is_ge() { right.next() } else { None };
        Some((from_left.map(|(key, value)| row(key, value)), from_right.map(|(key, value)| row(key, value))))
    })
}

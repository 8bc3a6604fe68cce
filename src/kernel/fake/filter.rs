//! nf_tables in memory, as far as weft's own table goes. A transaction happens whole or not at all.

use super::net::Net;
use crate::model::addr::Family;
use crate::model::nft::{ListedRule, NftChange, SeenTable};
use crate::model::op::{FilterOp, Refusal};

/// "No such file or directory": what a change is about is not there.
const ENOENT: i32 = 2;
/// "File exists".
const EEXIST: i32 = 17;

const fn refused(errno: i32) -> Refusal {
    Refusal { errno, text: None }
}

impl Net {
    /// Our packet filter in a family, to look at or to disturb.
    pub fn filter_mut(&mut self, family: Family) -> &mut Option<SeenTable> {
        self.filter.get_mut(family)
    }

    /// From now on our packet filter in a family cannot be read for this reason, or can be again.
    pub fn hide_filter(&mut self, family: Family, problem: Option<&str>) {
        *self.filter_problem.get_mut(family) = problem.map(str::to_owned);
    }

    pub(super) fn readable_filter(&self, family: Family) -> Option<SeenTable> {
        self.filter.get(family).clone().filter(|_| self.filter_problem.get(family).is_none())
    }

    pub(super) fn apply_filter(&mut self, op: &FilterOp) -> Result<(), Refusal> {
        let mut table = self.filter.get(op.family).clone();
        for change in &op.changes {
            change_table(&mut table, change)?;
        }
        *self.filter.get_mut(op.family) = table;
        Ok(())
    }
}

fn change_table(table: &mut Option<SeenTable>, change: &NftChange) -> Result<(), Refusal> {
    let missing = || refused(ENOENT);
    if let NftChange::AddTable(_) = change {
        table.get_or_insert_default();
        return Ok(());
    }
    let held = table.as_mut().ok_or_else(missing)?;
    match change {
        NftChange::AddTable(_) => {}
        NftChange::DeleteTable(_) => *table = None,
        NftChange::AddChain(_, chain) => {
            if held.chains.contains_key(&chain.name) {
                return Ok(());
            }
            held.chains.insert(chain.name.clone(), (chain.clone(), Vec::new()));
            held.objects += 1;
        }
        NftChange::FlushChain(_, chain) => held.chains.get_mut(chain).ok_or_else(missing)?.1.clear(),
        NftChange::DeleteChain(_, chain) => {
            held.chains.remove(chain).ok_or_else(missing)?;
            held.objects -= 1;
        }
        NftChange::AddRule(_, chain, rule) => {
            let (_, rules) = held.chains.get_mut(chain).ok_or_else(missing)?;
            let handle = rules.last().map_or(1, |last| last.handle + 1);
            rules.push(ListedRule { handle, rule: rule.clone(), counted: None });
        }
        NftChange::DeleteRule(_, chain, handle) => {
            let (_, rules) = held.chains.get_mut(chain).ok_or_else(missing)?;
            let at = rules.iter().position(|listed| listed.handle == *handle).ok_or_else(missing)?;
            rules.remove(at);
        }
        NftChange::AddSet(_, set) => {
            if held.sets.contains_key(&set.name) {
                return Err(refused(EEXIST));
            }
            held.sets.insert(set.name.clone(), (Some(set.clone()), std::collections::BTreeSet::new()));
            held.objects += 1;
        }
        NftChange::AddElements(_, set, elements) => {
            held.sets.get_mut(set).ok_or_else(missing)?.1.extend(elements);
        }
        NftChange::DeleteElements(_, set, elements) => {
            let (_, there) = held.sets.get_mut(set).ok_or_else(missing)?;
            for element in elements {
                there.take(element).ok_or_else(missing)?;
            }
        }
    }
    Ok(())
}

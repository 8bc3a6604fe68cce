//! What was promised, beside what was measured.

use crate::cluster::Stack;
use crate::filter::Filtered;
use crate::memory::{self, Weighed};
use crate::program::Programmed;
use crate::samples::Timed;
use crate::still::Still;
use crate::table::Table;
use crate::ways::Direct;

/// One promise.
#[derive(Clone)]
struct Limit {
    what: String,
    measured: f64,
    most: f64,
}

/// Of everything that was measured at this many peers.
const PEERS: u32 = 5000;

/// The promises, whether each was kept, and whether all were.
pub(crate) fn table(
    programmed: &[Programmed],
    still: &[Still],
    direct: &[Direct],
    weighed: &[Weighed],
    filtered: &[Filtered],
) -> (Table, bool) {
    let limits = [from_empty(programmed), no_op(still), straight(direct), memory(weighed), filter(filtered)].concat();
    let mut table = Table::new(
        "Promises",
        "At 5,000 peers. Ratios are of CPU times, and the median of all runs; at least 5 times faster is at most 0.2 of \
         the time. The pass with nothing to do is the median by the clock on the wall.",
        &["what", "measured", "at most", "kept"],
    );
    let mut all = true;
    for limit in limits {
        let kept = limit.measured <= limit.most;
        all &= kept;
        table.row(vec![
            limit.what.into(),
            format!("{:.2}", limit.measured).into(),
            format!("{}", limit.most).into(),
            if kept { "yes" } else { "NO" }.into(),
        ]);
    }
    (table, all)
}

/// By the thread's own clock: what others on a busy machine do to the lock is no promise of ours. The median and
/// not the least, as that clock now and then leaves out a third of a run that the clock on the wall shows whole.
fn from_empty(all: &[Programmed]) -> Vec<Limit> {
    let limits = |it: &Programmed| {
        let families = it.stack.label();
        let over = |ours: &Timed, theirs: &Timed| ours.cpu.over(&theirs.cpu).median();
        [
            ("from empty to the last write ÷ floor", over(&it.written, &it.floor), 1.3),
            ("from no device to the last write ÷ floor", over(&it.whole_written, &it.whole_floor), 1.3),
            ("from empty to the last write ÷ flannel-shaped, one at a time", over(&it.written, &it.flannel), 0.2),
        ]
        .map(|(what, measured, most)| Limit { what: format!("{families}: {what} (CPU)"), measured, most })
    };
    all.iter().filter(|it| it.size == PEERS).flat_map(limits).collect()
}

fn no_op(all: &[Still]) -> Vec<Limit> {
    let limit = |it: &Still| {
        let what = format!("{}: a pass with nothing to do, ms", it.stack.label());
        Limit { what, measured: it.kinds[0].1.total.median(), most: 30.0 }
    };
    all.iter().filter(|it| it.size == PEERS).map(limit).collect()
}

fn straight(all: &[Direct]) -> Vec<Limit> {
    let limits = |it: &Direct| {
        [
            ("from empty to the last write ÷ floor (CPU)", it.over_floor(), 1.3),
            // Dual-stack direct routing has nine rows for a peer, half as many again as without.
            ("a pass with nothing to do, ms", it.at_rest(), 45.0),
        ]
        .map(|(what, measured, most)| Limit { what: format!("{}: {what}", it.label()), measured, most })
    };
    all.iter().filter(|it| it.size == PEERS).flat_map(limits).collect()
}

fn filter(all: &[Filtered]) -> Vec<Limit> {
    let limit = |it: &Filtered| {
        let what = format!("{}: round trip between pods, --vtep-filter=enforce ÷ off", it.label());
        Limit { what, measured: it.cost(), most: 1.05 }
    };
    all.iter().map(limit).collect()
}

#[allow(clippy::cast_precision_loss)]
fn memory(all: &[Weighed]) -> Vec<Limit> {
    let limits = |it: &Weighed| {
        let list = if it.streaming { "streaming list" } else { "list in pages" };
        let families = if it.stack == Stack::Dual { "dual-stack" } else { "IPv4" };
        [
            ("peak memory, MiB", it.peak as f64 / 1024.0, 32.0),
            ("CPU time in a second at rest, ms", it.at_rest.as_secs_f64() * 1e3, 3.0),
        ]
        .map(|(what, measured, most)| Limit { what: format!("{families}, {list}: {what}"), measured, most })
    };
    let mut limits: Vec<Limit> = all.iter().filter(|it| it.size() == PEERS).flat_map(limits).collect();
    if !all.is_empty() {
        let measured = memory::program_size() as f64 / 1e6;
        limits.push(Limit { what: "the program, MB".to_owned(), measured, most: 12.0 });
    }
    limits
}

//! The old packet filter's tables: bytes with offsets in them.

use weft::kernel::legacy::blob::{HOOKS, Hooks, Table};
use weft::model::addr::Family;
use weft::model::leftover::Chain;

use crate::fuzz;

/// `nat` with flannel's chain and its jump in POSTROUTING, one foreign rule before and one behind.
fn seed(family: Family) -> (Vec<u8>, Hooks) {
    let head = match family {
        Family::V4 => 112,
        Family::V6 => 168,
    };
    let entry = |parts: &[Vec<u8>], target: &[u8]| {
        let matches = parts.concat();
        let (at, next) = (head + matches.len(), head + matches.len() + target.len());
        let mut entry = vec![0; head];
        let offsets = [at, next].map(|number| u16::try_from(number).expect("short").to_ne_bytes()).concat();
        let place = if family == Family::V4 { 88 } else { 140 };
        entry[place..place + 4].copy_from_slice(&offsets);
        [entry, matches, target.to_vec()].concat()
    };
    let part = |name: &str, value: &[u8]| {
        let size = u16::try_from(32 + value.len()).expect("short");
        let mut part = size.to_ne_bytes().to_vec();
        part.extend(name.bytes());
        part.resize(32, 0);
        [part, value.to_vec()].concat()
    };
    let text = |text: &str, length| {
        let mut bytes = text.as_bytes().to_vec();
        bytes.resize(length, 0);
        bytes
    };
    let verdict = |to: i32| part("", &i64::from(to).to_ne_bytes());
    let comment = [part("comment", &text("flanneld masq", 256))];
    let sizes = [entry(&[], &verdict(0)).len(), entry(&comment, &verdict(0)).len(), head + 64];
    let [plain, jump, name] = sizes.map(|size| i32::try_from(size).expect("short"));
    let parts = [
        entry(&[], &verdict(-2)),
        entry(&comment, &verdict(3 * plain + jump + name)),
        entry(&[], &verdict(-1)),
        entry(&[], &verdict(-2)),
        entry(&[], &part("ERROR", &text("FLANNEL-POSTRTG", 32))),
        entry(&[], &verdict(-5)),
        entry(&[], &part("ERROR", &text("ERROR", 32))),
    ];
    let mut hooks = Hooks { valid: 1 << 4, ..Hooks::default() };
    hooks.underflow[HOOKS - 1] = (2 * plain + jump).cast_unsigned();
    (parts.concat(), hooks)
}

#[test]
fn tables_of_the_old_packet_filter() {
    for family in Family::BOTH {
        let (seed, hooks) = seed(family);
        let table = Table::parse(family, hooks, &seed).expect("a table");
        let rest = table.without(Chain::Masquerade).expect("sound").expect("flannel's chain is in it");
        assert_eq!(rest.kept, [true, false, true, true, false, false, true], "{family}");
        assert_eq!(table.find(Chain::Masquerade).map(|seen| seen.jumps), Some(1));
        fuzz(&[&seed, &rest.bytes], &["FLANNEL-POSTRTG\0", "comment\0", "\0\0\0\0", "\u{1}\0\0\0"], |bytes| {
            let Ok(table) = Table::parse(family, hooks, bytes) else { return };
            for chain in Chain::BOTH {
                let _ = table.find(chain);
                // A garbled table can have several chains of one name, and then they go one after another.
                let (mut left, mut rest) = (table.len(), table.without(chain));
                while let Ok(Some(less)) = rest {
                    let again = Table::parse(family, less.hooks, &less.bytes).expect("what is written can be read");
                    assert_eq!(again.len(), less.kept.iter().filter(|kept| **kept).count());
                    assert!(again.len() < left, "something was taken out");
                    left = again.len();
                    rest = again.without(chain);
                }
            }
        });
    }
}

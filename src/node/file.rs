//! Files that somebody else reads at any moment: never half-written, and put back when they change.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// Makes the file hold this content, whatever it held before: the directory is made if it is
/// missing (0755), the content replaced in one step (written aside with this mode, synced, renamed).
/// Nothing is written if it is right already. Returns whether it was written.
///
/// # Errors
/// If the file system refuses; the old file, if any, is then as it was.
pub fn ensure(path: &Path, content: &str, mode: u32) -> io::Result<bool> {
    if fs::read(path).is_ok_and(|held| held == content.as_bytes()) {
        return Ok(false);
    }
    let invalid = || io::Error::new(io::ErrorKind::InvalidInput, "the path names no file");
    let name = path.file_name().ok_or_else(invalid)?;
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::DirBuilder::new().recursive(true).mode(0o755).create(dir)?;
    // One fixed name aside: what a crash leaves is overwritten next time, and never adds up. Its ending is none
    // that a CNI runtime looks for (.conf, .conflist, .json): it never reads half a file.
    let aside = dir.join(format!(".{}.weft", name.to_string_lossy()));
    let written = write_aside(&aside, content, mode).and_then(|()| fs::rename(&aside, path));
    if written.is_err() {
        // The error that matters is the one above.
        let _ = fs::remove_file(&aside);
    }
    written?;
    File::open(dir)?.sync_all()?;
    Ok(true)
}

fn write_aside(aside: &Path, content: &str, mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(aside)?;
    // Whatever the umask took away, or an older file had.
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.write_all(content.as_bytes())?;
    file.sync_all()
}

/// Removes the file, for clean-up. Returns whether there was one.
///
/// # Errors
/// If the file system refuses.
pub fn remove(path: &Path) -> io::Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V4: &str = "one\n";
    const DUAL: &str = "another, of another length\n";

    #[test]
    fn the_file_is_written_once_and_put_back_when_changed_or_gone() {
        let root = tempfile::tempdir().expect("a directory");
        let path = root.path().join("flannel/file");
        let mode = |path: &Path| fs::metadata(path).expect("metadata").permissions().mode() & 0o777;
        assert!(ensure(&path, V4, 0o644).expect("written"));
        assert!(!ensure(&path, V4, 0o644).expect("right already"));
        assert_eq!((mode(&path), mode(path.parent().expect("a parent"))), (0o644, 0o755));
        fs::write(&path, "garbage").expect("changed");
        assert!(ensure(&path, V4, 0o644).expect("put back"));
        fs::remove_dir_all(path.parent().expect("a parent")).expect("removed");
        assert!(ensure(&path, V4, 0o644).expect("put back"));
        assert_eq!(fs::read_to_string(&path).expect("read"), V4);
        assert_eq!(fs::read_dir(path.parent().expect("a parent")).expect("listed").count(), 1, "nothing is left aside");
    }

    #[test]
    fn a_reader_never_sees_half_a_file() {
        use std::sync::atomic::{AtomicBool, Ordering};
        let root = tempfile::tempdir().expect("a directory");
        let path = root.path().join("10-x.conflist");
        ensure(&path, V4, 0o644).expect("written");
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for turn in 0..200 {
                    ensure(&path, if turn % 2 == 0 { DUAL } else { V4 }, 0o644).expect("written");
                }
                stop.store(true, Ordering::Relaxed);
            });
            while !stop.load(Ordering::Relaxed) {
                let text = fs::read_to_string(&path).expect("always there");
                assert!(text == V4 || text == DUAL, "{text:?}");
                for entry in fs::read_dir(root.path()).expect("listed").map_while(Result::ok) {
                    let other = entry.path();
                    let seen =
                        other.extension().is_some_and(|last| ["conf", "conflist", "json"].iter().any(|of| last == *of));
                    assert!(other == path || !seen, "a runtime would read {}", other.display());
                }
            }
        });
    }

    #[test]
    fn a_refusal_leaves_nothing_aside() {
        let root = tempfile::tempdir().expect("a directory");
        let path = root.path().join("file");
        fs::create_dir(&path).expect("a directory in the way");
        assert!(ensure(&path, V4, 0o644).is_err());
        assert_eq!(fs::read_dir(root.path()).expect("listed").count(), 1);
    }
}

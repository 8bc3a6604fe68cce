//! WATCH: one line of JSON for each change, until a time-out, an error, or somebody goes.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use futures_util::stream;
use serde_json::{Value, json};
use tokio::sync::watch as signal;
use tokio::time::Instant;

use super::fault::Action;
use super::list::{Filter, UNDECODABLE};
use super::render::Render;
use super::route::Query;
use super::shared::Shared;
use super::status::Failure;
use super::store::{Change, Object, Store};

/// How long a watch lasts that asks for no time (a real server takes 30 to 60 minutes, at random).
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(1800);

/// How long before a watch ends it gets its last bookmark.
const BEFORE_THE_END: Duration = Duration::from_secs(2);

/// One watch.
pub(super) struct Watch {
    shared: Arc<Shared>,
    render: Render,
    filter: Filter,
    /// Everything up to here has been told.
    revision: u64,
    /// Where it began.
    start: u64,
    lines: VecDeque<Bytes>,
    bookmarks: bool,
    next_bookmark: Instant,
    deadline: Instant,
    muted: bool,
    ended: bool,
    /// Told when every watch is closed: also between two lines.
    closed: signal::Receiver<u64>,
}

impl Watch {
    /// Begins one, or refuses it.
    pub(super) fn begin(
        shared: &Arc<Shared>,
        render: Render,
        filter: Filter,
        query: &Query,
        fault: Option<&Action>,
    ) -> Result<Self, Failure> {
        let streaming = query.is("sendInitialEvents") && fault != Some(&Action::IgnoreStreaming);
        check(query, fault)?;
        let asked = query.number("resourceVersion")?.unwrap_or(0);
        let timeout = query.number("timeoutSeconds")?.map_or(DEFAULT_TIMEOUT, Duration::from_secs);
        let now = Instant::now();
        let deadline = now + timeout;
        let mut watch = Self {
            shared: Arc::clone(shared),
            render,
            filter,
            revision: asked,
            start: asked,
            lines: VecDeque::new(),
            bookmarks: query.is("allowWatchBookmarks"),
            next_bookmark: next_bookmark(shared, now, deadline),
            deadline,
            muted: fault == Some(&Action::MuteWatch),
            ended: fault == Some(&Action::EndWatch),
            closed: shared.closed.subscribe(),
        };
        let store = shared.store();
        if asked == 0 || streaming {
            watch.tell_all(&store, streaming);
        } else if let Err(gone) = store.reaches(render.resource, asked) {
            watch.give_up(&Failure::expired(asked, gone.oldest));
        }
        drop(store);
        match fault {
            Some(Action::GarbageLine) => watch.lines.push_front(Bytes::from_static(b"<html>502</html>\n")),
            Some(Action::Undecodable) => watch.lines.push_back(line("ADDED", UNDECODABLE)),
            Some(Action::ExpiredWatch) => watch.give_up(&Failure::expired(asked, asked + 1)),
            _ => {}
        }
        Ok(watch)
    }

    /// The state as ADDED events, and the bookmark that says it is whole.
    fn tell_all(&mut self, store: &Store, streaming: bool) {
        self.revision = store.revision();
        let objects = store.at(self.render.resource, self.revision).unwrap_or_default();
        for object in objects.values().filter(|object| self.filter.admits(object)) {
            self.lines.push_back(line("ADDED", &self.render.one(object)));
        }
        if streaming && self.bookmarks {
            self.lines.push_back(text(&self.render.bookmark(self.revision, true)));
        }
    }

    /// Collects what has happened since the last look.
    fn catch_up(&mut self) {
        let shared = Arc::clone(&self.shared);
        let store = shared.store();
        match store.since(self.render.resource, self.revision) {
            Ok(changes) => {
                for change in &changes {
                    let line = self.event(change);
                    self.lines.extend(line);
                }
                self.revision = self.revision.max(store.revision());
            }
            Err(gone) => self.give_up(&Failure::expired(self.revision, gone.oldest)),
        }
    }

    /// A change as the watcher sees it: one that moves an object out of the selection is a removal.
    fn event(&self, change: &Change) -> Option<Bytes> {
        let admits = |object: &Object| self.filter.admits(object);
        let before = change.before.as_ref().is_some_and(admits);
        let after = !change.removed && admits(&change.after);
        let word = match (before, after) {
            (false, false) => return None,
            (false, true) => "ADDED",
            (true, true) => "MODIFIED",
            (true, false) => "DELETED",
        };
        Some(line(word, &self.render.one(&change.after)))
    }

    fn give_up(&mut self, failure: &Failure) {
        self.lines.push_back(text(&json!({ "type": "ERROR", "object": failure.body() })));
        self.ended = true;
    }

    /// The next line; `None` when the watch is over.
    async fn next(&mut self) -> Option<Bytes> {
        let mut written = self.shared.written.subscribe();
        loop {
            if !self.muted && !self.ended {
                self.catch_up();
            }
            if let Some(line) = self.lines.pop_front().filter(|_| !self.muted) {
                return Some(line);
            }
            if self.ended {
                return None;
            }
            tokio::select! {
                _ = written.changed() => {}
                _ = self.closed.changed() => return None,
                () = tokio::time::sleep_until(self.deadline) => self.ended = true,
                () = tokio::time::sleep_until(self.next_bookmark), if self.bookmarks && !self.muted => {
                    self.next_bookmark = next_bookmark(&self.shared, Instant::now(), self.deadline);
                    // A real server has nothing to say either while nothing was written since.
                    if self.revision > self.start {
                        return Some(text(&self.render.bookmark(self.revision, false)));
                    }
                }
            }
        }
    }

    /// The lines as a stream.
    pub(super) fn lines(self) -> impl Stream<Item = Bytes> {
        stream::unfold(self, |mut watch| async move { watch.next().await.map(|line| (line, watch)) })
    }
}

/// Every so often, and shortly before the end, as a real server does (`nextBookmarkTime` in k8s.io/apiserver).
fn next_bookmark(shared: &Shared, now: Instant, deadline: Instant) -> Instant {
    let regular = now + *shared.bookmark_every.lock();
    let last = deadline.checked_sub(BEFORE_THE_END).filter(|last| *last > now);
    last.map_or(regular, |last| regular.min(last))
}

/// The rules of streaming lists (`ValidateListOptions` in k8s.io/apimachinery).
fn check(query: &Query, fault: Option<&Action>) -> Result<(), Failure> {
    let invalid = |problem| Err(Failure::invalid("ListOptions", "", problem));
    if query.get("sendInitialEvents").is_none() || fault == Some(&Action::IgnoreStreaming) {
        return Ok(());
    }
    if fault == Some(&Action::RefuseStreaming) {
        return invalid(
            "sendInitialEvents: Forbidden: sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled",
        );
    }
    if query.get("resourceVersionMatch") != Some("NotOlderThan") {
        return invalid(
            "resourceVersionMatch: Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
        );
    }
    Ok(())
}

fn line(word: &str, object: &[u8]) -> Bytes {
    let mut out = format!(r#"{{"type":"{word}","object":"#).into_bytes();
    out.extend_from_slice(object);
    out.extend_from_slice(b"}\n");
    out.into()
}

fn text(event: &Value) -> Bytes {
    format!("{event}\n").into()
}

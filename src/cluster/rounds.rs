//! One round of the [`Watcher`]: the requests, and what is taken from their answers.

use std::time::Duration;

use futures_util::FutureExt;
use tracing::debug;

use super::api::{Lines, Start};
use super::counters::Count;
use super::event::Event;
use super::peers::Seen;
use super::problem::{Class, Problem};
use super::watch::{End, Streams, Watcher};
use super::wire::Page;

/// A burst of changes is one snapshot, unless it is longer than this.
const BURST: u32 = 256;

/// What an event was.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Taken {
    Node,
    Bookmark,
}

impl Watcher {
    /// One connection, or a list in pages and the watch that follows it.
    pub(super) async fn round(&mut self) -> End {
        match (self.resume.clone(), std::mem::take(&mut self.wanted)) {
            (Some(version), false) => self.watch(&version).await,
            (resume, _) => {
                // What is asked for before this moment is met by a list that begins now.
                let _met = self.relist.notified().now_or_never();
                let lists = self.peers.snapshot().lists;
                let end = self.list().await;
                // One that was asked for is still wanted if it did not come; the watch goes on until the next.
                if resume.is_some() && self.peers.snapshot().lists == lists {
                    self.relist.notify_one();
                }
                end
            }
        }
    }

    // === Lists ===

    /// A list in one form or the other, and the watch that follows it.
    async fn list(&mut self) -> End {
        self.listed = Some((self.clock)());
        if self.streams == Streams::Yes {
            return self.stream_list().await;
        }
        let listed = self.paged_list().await;
        if self.streams == Streams::Doubted {
            self.streams = if listed.is_ok() { Streams::No } else { Streams::Yes };
        }
        match listed {
            Ok(version) => self.watch(&version).await,
            Err(problem) => problem.into(),
        }
    }

    /// Page after page of a consistent LIST. Returns where a watch goes on.
    async fn paged_list(&mut self) -> Result<String, Problem> {
        self.peers.begin();
        let mut next: Option<String> = None;
        loop {
            self.counters.count(Count::Page);
            let body = self.api.page(self.timing.page, next.as_deref()).await?;
            self.counters.heard((self.clock)());
            let page = Page::read(&self.keys, &body)?;
            for node in &page.items.nodes {
                self.peers.apply(self.view.see(node));
            }
            let meta = page.meta;
            if meta.next.is_empty() {
                self.end_list(&meta.resource_version)?;
                return Ok(meta.resource_version);
            }
            if next.as_ref() == Some(&meta.next) {
                return Err(Problem::Garbage("the same page of a list over and over".to_owned()));
            }
            next = Some(meta.next);
        }
    }

    /// A watch that begins with everything there is.
    async fn stream_list(&mut self) -> End {
        self.counters.count(Count::Watch);
        let seconds = self.watch_time();
        let mut lines = match self.api.watch(Start::Everything, seconds).await {
            Ok(lines) => lines,
            // 422 is the answer of a server that knows streaming lists and has them off; older ones and
            // proxies have their own.
            Err(problem) if matches!(problem.class(), Class::Refused | Class::Forbidden) => {
                return End::NoStream(problem);
            }
            Err(problem) => return problem.into(),
        };
        self.peers.begin();
        let total = self.timing.initial_total;
        match tokio::time::timeout(total, self.initial_events(&mut lines)).await {
            // Who ends a list with a bookmark sends bookmarks.
            Ok(Ok(())) => self.follow(lines, self.timing.bookmark_silence).await,
            Ok(Err(problem)) => End::NoStream(problem),
            // A server that does not know `sendInitialEvents` sends events for ever, and no end.
            Err(_) => End::NoStream(Problem::Timeout { what: "end a streaming list", after: total }),
        }
    }

    /// Takes the events of a streaming list up to the bookmark that ends them.
    async fn initial_events(&mut self, lines: &mut Lines) -> Result<(), Problem> {
        while self.peers.listing() {
            let Some(line) = lines.next(self.timing.initial_silence).await? else {
                return Err(Problem::Cut("the watch ended before the list was whole".to_owned()));
            };
            self.take(&line)?;
        }
        Ok(())
    }

    /// The list that was coming in is at its end.
    fn end_list(&mut self, version: &str) -> Result<(), Problem> {
        let before = self.peers.snapshot().nodes.len();
        if let Err(nameless) = self.peers.swap() {
            // What could be read of it counts all the same.
            self.unpublished += 1;
            return Err(Problem::Garbage(format!("a list with {nameless} objects that have no name")));
        }
        self.resume = Some(version.to_owned());
        self.counters.count(Count::List);
        let now = self.peers.snapshot();
        debug!(nodes = now.nodes.len(), before, lists = now.lists, "the list of nodes is whole");
        self.unpublished += 1;
        self.publish();
        self.recovered();
        Ok(())
    }

    // === Watches ===

    async fn watch(&mut self, version: &str) -> End {
        self.counters.count(Count::Watch);
        let seconds = self.watch_time();
        match self.api.watch(Start::After(version), seconds).await {
            Ok(lines) => self.follow(lines, seconds + self.timing.watch_grace).await,
            Err(problem) => problem.into(),
        }
    }

    /// Takes events for as long as they come. Without any for `patience` the connection is dead.
    async fn follow(&mut self, mut lines: Lines, mut patience: Duration) -> End {
        let (relist, clock, listed) = (self.relist.clone(), self.clock.clone(), self.listed.unwrap_or_default());
        let (apart, chance) = (self.timing.between_lists, self.dice.up_to(self.timing.spread));
        let mut asked = std::pin::pin!(async move {
            relist.notified().await;
            // Asked until it is met: this watch may end before.
            relist.notify_one();
            tokio::time::sleep(apart.saturating_sub(clock().saturating_sub(listed)) + chance).await;
        });
        let mut heard = false;
        loop {
            let line = tokio::select! {
                biased;
                () = &mut asked => return End::Asked,
                line = lines.next(patience) => line,
            };
            let line = match line {
                Ok(Some(line)) => line,
                Ok(None) => return End::Closed { heard },
                Err(problem) => return problem.into(),
            };
            match self.take(&line) {
                Ok(Taken::Bookmark) => patience = patience.min(self.timing.bookmark_silence),
                Ok(Taken::Node) => {}
                Err(problem) => return problem.into(),
            }
            if !heard {
                heard = true;
                self.recovered();
            }
            if self.unpublished >= BURST || (self.unpublished > 0 && !lines.ready()) {
                self.publish();
            }
        }
    }

    /// Takes one event, into the list that is coming in or into what is known.
    fn take(&mut self, line: &[u8]) -> Result<Taken, Problem> {
        let event = Event::read(&self.keys, line)?;
        self.counters.heard((self.clock)());
        let listing = self.peers.listing();
        let (changed, version) = match event {
            Event::Failed(status) => return Err(Problem::refused(500, None, &status)),
            Event::Bookmark { resource_version, initial_events_end } => {
                self.counters.count(Count::Bookmark);
                match (listing, initial_events_end) {
                    (true, true) => self.end_list(&resource_version)?,
                    // The first bookmark of a streaming list is the one that ends it (KEP-3157).
                    (true, false) => return Err(Problem::Garbage("a bookmark that does not end a list".to_owned())),
                    (false, _) => self.advance(resource_version)?,
                }
                return Ok(Taken::Bookmark);
            }
            Event::Applied(node) => match self.view.see(&node) {
                Seen::Nameless if !listing => return Err(nameless()),
                seen => (self.peers.apply(seen), node.meta.resource_version),
            },
            Event::Deleted(node) if node.meta.name.is_empty() => return Err(nameless()),
            Event::Deleted(node) => (self.peers.delete(&node.meta.name), node.meta.resource_version),
        };
        self.counters.count(Count::Event);
        self.unpublished += u32::from(changed);
        self.advance(version)?;
        Ok(Taken::Node)
    }

    /// A watch may go on from here. Not from the middle of a list; and not backwards: that is a server
    /// that has lost a part of its history, and with it perhaps some of the nodes that we know.
    fn advance(&mut self, version: String) -> Result<(), Problem> {
        if version.is_empty() || self.peers.listing() {
            return Ok(());
        }
        let number = |version: &str| version.parse::<u64>().ok();
        if let (Some(old), Some(new)) = (self.resume.as_deref().and_then(number), number(&version))
            && new < old
        {
            return Err(Problem::Garbage(format!("resourceVersion {new} after {old}")));
        }
        self.resume = Some(version);
        Ok(())
    }

    /// A quarter of the time is left to chance, so that the agents of a cluster do not come in step.
    fn watch_time(&mut self) -> Duration {
        self.timing.watch + self.dice.up_to(self.timing.watch / 4)
    }
}

fn nameless() -> Problem {
    Problem::Garbage("an event about a Node without a name".to_owned())
}

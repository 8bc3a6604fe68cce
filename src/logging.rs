//! Log lines on standard error: text for people, JSON for machines.

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::LogConfig;
use crate::config::flags::{LogFormat, LogLevel};

/// Starts logging to standard error for the whole process. A second call changes nothing.
pub fn init(config: LogConfig) {
    // The only failure is that a logger is there already.
    let _ = subscriber(config, std::io::stderr).try_init();
}

/// A subscriber that writes to any place: what [`init`] installs, and what tests read.
pub fn subscriber<W>(config: LogConfig, writer: W) -> Box<dyn tracing::Subscriber + Send + Sync>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let layer = tracing_subscriber::fmt::layer().with_writer(writer).with_target(false);
    let layer = match config.format {
        LogFormat::Text => layer.with_ansi(false).boxed(),
        LogFormat::Json => layer.json().flatten_event(true).with_current_span(false).with_span_list(false).boxed(),
    };
    Box::new(tracing_subscriber::registry().with(layer.with_filter(targets(config.level))))
}

/// weft at the level asked for, its libraries only where something is wrong: kube's client logs each
/// failing request at `error`, which weft reports (and counts) in its own words.
fn targets(level: LogLevel) -> Targets {
    let level = match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => return Targets::new().with_default(LevelFilter::TRACE),
    };
    Targets::new()
        .with_default(level.min(LevelFilter::WARN))
        .with_target("weft", level)
        .with_target("kube_client", LevelFilter::OFF)
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("not poisoned").write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: LogFormat, level: LogLevel, write: impl FnOnce()) -> String {
        let sink = Sink::default();
        let writer = sink.clone();
        let subscriber = subscriber(LogConfig { format, level }, move || writer.clone());
        tracing::subscriber::with_default(subscriber, write);
        let bytes = sink.0.lock().expect("not poisoned").clone();
        String::from_utf8(bytes).expect("UTF-8")
    }

    #[test]
    fn the_http_librarys_complaints_are_left_to_weft() {
        let text = logged(LogFormat::Text, LogLevel::Info, || {
            tracing::error!(target: "kube_client::client::builder", "failed with error");
            tracing::info!(target: "hyper", "connected");
            tracing::debug!("a pass");
            tracing::info!(peer = "b", "one line");
        });
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(text.ends_with("INFO one line peer=\"b\"\n"), "{text}");
    }

    #[test]
    fn a_json_line_is_one_object_with_its_fields_on_top() {
        let text = logged(LogFormat::Json, LogLevel::Info, || tracing::warn!(peer = "b", "one line"));
        let line: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(line["level"], "WARN");
        assert_eq!(line["message"], "one line");
        assert_eq!(line["peer"], "b");
    }
}

//! Log lines: one event, one line, whatever words an event holds.
//!
//! Every value is written through [`text`](mod@crate::text): a newline, an ESC sequence or a
//! bidirectional override in a topic, a name or an error text is an escape in the line, so nobody
//! outside can forge a line or drive the terminal it is read on. A value is cut at [`VALUE_CHARS`].
//! It happens here, under every `tracing` macro of a program and of the libraries below it, so that no
//! caller can forget it.

use std::fmt;

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::format::{self, FormatEvent, FormatFields, JsonFields, Writer};
use tracing_subscriber::fmt::{self as lines, FmtContext, MakeWriter};
use tracing_subscriber::layer::Layer;
use tracing_subscriber::registry::LookupSpan;

use crate::text::{bounded, visible_json};

/// The longest value in a line, in characters; what is longer is cut.
pub const VALUE_CHARS: usize = 1024;

/// The longest JSON line that is written without looking at its values, in bytes.
const JSON_LINE_BYTES: usize = 4 * VALUE_CHARS;

/// How lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

/// Writes events as lines to `writer`, coloured with `ansi`.
pub fn layer<S, W>(
    format: Format,
    writer: W,
    ansi: bool,
) -> Box<dyn Layer<S> + Send + Sync + 'static>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let all = lines::layer().with_writer(writer).with_ansi(ansi);
    match format {
        Format::Human => all.fmt_fields(Words).boxed(),
        Format::Json => {
            all.fmt_fields(JsonFields::new()).event_format(Json(format::format().json())).boxed()
        }
    }
}

/// Fields for people.
struct Words;

impl<'w> FormatFields<'w> for Words {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'w>, fields: R) -> fmt::Result {
        let mut visitor = WordsVisitor { writer, is_first: true, result: Ok(()) };
        fields.record(&mut visitor);
        visitor.result
    }
}

struct WordsVisitor<'w> {
    writer: Writer<'w>,
    is_first: bool,
    result: fmt::Result,
}

impl WordsVisitor<'_> {
    fn write(&mut self, name: &str, value: &str) -> fmt::Result {
        if !std::mem::take(&mut self.is_first) {
            self.writer.write_char(' ')?;
        }
        let value = bounded(value, VALUE_CHARS);
        match (name, self.writer.has_ansi_escapes()) {
            ("message", _) => write!(self.writer, "{value}"),
            (name, true) => {
                write!(self.writer, "\u{1b}[3m{name}\u{1b}[0m\u{1b}[2m=\u{1b}[0m{value}")
            }
            (name, false) => write!(self.writer, "{name}={value}"),
        }
    }
}

impl Visit for WordsVisitor<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            self.record_debug(field, &format_args!("{value}"));
        } else {
            self.record_debug(field, &value);
        }
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        let mut text = value.to_string();
        let mut next = value.source();
        while let Some(source) = next {
            text.push_str(": ");
            text.push_str(&source.to_string());
            next = source.source();
        }
        self.record_debug(field, &format_args!("{text}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // What the crate `log` adds to its events is in the line already.
        if self.result.is_ok() && !field.name().starts_with("log.") {
            let name = field.name().strip_prefix("r#").unwrap_or(field.name());
            self.result = self.write(name, &format!("{value:?}"));
        }
    }
}

/// An event as JSON.
struct Json(format::Format<format::Json>);

impl<S, N> FormatEvent<S, N> for Json
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut line = String::new();
        self.0.format_event(context, Writer::new(&mut line), event)?;
        let line = line.trim_end();
        if line.len() <= JSON_LINE_BYTES {
            return writeln!(writer, "{}", visible_json(line));
        }
        let mut whole: serde_json::Value = serde_json::from_str(line).map_err(|_| fmt::Error)?;
        cut(&mut whole);
        writeln!(writer, "{}", visible_json(&whole.to_string()))
    }
}

/// Cuts every text in a document.
fn cut(value: &mut serde_json::Value) {
    match value {
        serde_json::Value::String(text) => *text = bounded(text, VALUE_CHARS).into_owned(),
        serde_json::Value::Array(all) => all.iter_mut().for_each(cut),
        serde_json::Value::Object(all) => all.values_mut().for_each(cut),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    const HOSTILE: &str = "x\n2026-01-01 ERROR forged\r\u{1b}[2J\u{85}\u{202e}gnp\u{200b}";

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: Format, log: impl FnOnce()) -> String {
        let buffer = Buffer::default();
        let writer = buffer.clone();
        let layer = layer(format, move || writer.clone(), false);
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), log);
        let bytes = buffer.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    fn hostile() {
        let error = io::Error::other(HOSTILE);
        let _span = tracing::info_span!("span", of = %HOSTILE).entered();
        tracing::warn!(topic = %HOSTILE, quoted = HOSTILE, error = &error as &dyn std::error::Error, "said: {HOSTILE}");
    }

    #[test]
    fn an_event_is_one_line_without_a_control_whatever_is_in_it() {
        // JSON names the span twice: alone, and in the list of all.
        for (format, times) in [(Format::Human, 5), (Format::Json, 6)] {
            let text = logged(format, hostile);
            assert_eq!(text.matches('\n').count(), 1, "{text}");
            assert!(!text.trim_end().contains(crate::text::is_hidden), "{text:?}");
            assert_eq!(text.matches("forged").count(), times, "{text}");
        }
    }

    #[test]
    fn a_json_line_says_exactly_what_the_event_said() {
        let line = logged(Format::Json, hostile);
        let read: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(read["fields"]["topic"], HOSTILE);
        assert_eq!(read["fields"]["message"], format!("said: {HOSTILE}"));
        assert_eq!(read["level"], "WARN");
    }

    #[test]
    fn a_long_value_is_cut_and_the_others_are_whole() {
        let long = "y".repeat(65_535);
        for format in [Format::Human, Format::Json] {
            let text = logged(format, || tracing::info!(topic = %long, n = 7, "a message"));
            assert!(text.len() < 2 * VALUE_CHARS, "{}", text.len());
            assert!(
                text.contains("a message") && text.contains('7') && text.contains("y…"),
                "{text}"
            );
        }
    }

    #[test]
    fn a_line_for_people_reads_as_before() {
        let text =
            logged(Format::Human, || tracing::info!(sample = %"d/1/2", n = 7, why = "x", "stored"));
        assert!(text.ends_with(" stored sample=d/1/2 n=7 why=\"x\"\n"), "{text}");
        assert!(text.contains(" INFO fleetloop_observe::log::tests: "), "{text}");
    }
}

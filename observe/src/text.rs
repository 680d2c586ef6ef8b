//! Words from outside, made safe to print.
//!
//! A topic, a name, a reason or an error text may come from a device, a worker, a model file or
//! whoever holds a token. Printed as it is, a newline forges a log line, an ESC sequence drives the
//! reader's terminal, and a bidirectional override or a zero-width character shows something else than
//! what is there. [`visible`] writes each such character as `\u{…}` and is used where printing lives:
//! the log ([`mod@crate::log`]), tables and sentences of command lines, pages. [`has_hidden`] is for the
//! doors where people give names.

use std::borrow::Cow;
use std::error::Error;
use std::fmt::Write as _;

/// Whether `c` is not seen as itself: controls (C0, DEL, C1), line and paragraph separators,
/// bidirectional controls, zero-width and other format characters (Unicode 16.0, general category `Cf`,
/// as far as it matters in one line of text).
pub const fn is_hidden(c: char) -> bool {
    matches!(c,
        '\u{0}'..='\u{1f}' | '\u{7f}'..='\u{9f}'
        | '\u{ad}' | '\u{61c}' | '\u{180e}'
        | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// Whether `text` holds a character that [`is_hidden`]: such a name is refused where people give it.
pub fn has_hidden(text: &str) -> bool {
    text.contains(is_hidden)
}

/// `text` on one line, with each hidden character as an escape: `\n`, `\t`, `\u{1b}` … What comes out
/// is not changed by a second pass.
pub fn visible(text: &str) -> Cow<'_, str> {
    if !has_hidden(text) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        push_visible(&mut out, c);
    }
    Cow::Owned(out)
}

/// An error and its causes in one line: `what failed: why: why that`. It is not made visible.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// [`visible`], and no longer than `chars` characters: a longer text ends in `…`.
pub fn bounded(text: &str, chars: usize) -> Cow<'_, str> {
    let shown = visible(text);
    match shown.char_indices().nth(chars) {
        None => shown,
        Some(_) => {
            let kept = chars.saturating_sub(1);
            let end = shown.char_indices().nth(kept).map_or(shown.len(), |(at, _)| at);
            Cow::Owned(format!("{}…", &shown[..end]))
        }
    }
}

/// `text` of several lines: its newlines stay, everything else hidden is escaped.
pub fn visible_lines(text: &str) -> Cow<'_, str> {
    if !text.contains(|c| c != '\n' && is_hidden(c)) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if c == '\n' { out.push(c) } else { push_visible(&mut out, c) }
    }
    Cow::Owned(out)
}

/// A JSON document with every hidden character in its texts as JSON's own escape, `\u202e`: it reads
/// back as the same, and can be shown. A document of one line stays one.
pub fn visible_json(json: &str) -> Cow<'_, str> {
    // Controls below U+0020 stand only between tokens: within texts JSON escapes them itself.
    let is_raw = |c: char| c > '\u{1f}' && is_hidden(c);
    if !json.contains(is_raw) {
        return Cow::Borrowed(json);
    }
    let mut out = String::with_capacity(json.len() + 16);
    for c in json.chars() {
        if is_raw(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                // Writing into a String cannot fail.
                let _ = write!(out, "\\u{unit:04x}");
            }
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

fn push_visible(out: &mut String, c: char) {
    match c {
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        // Writing into a String cannot fail.
        c if is_hidden(c) => drop(write!(out, "\\u{{{:x}}}", u32::from(c))),
        c => out.push(c),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_seen_is_written_out() {
        let hostile = "a\nb\r\t\u{1b}[31m\u{85}\u{202e}c\u{200b}d\u{2028}\u{feff}\u{7f}";
        assert_eq!(
            visible(hostile),
            "a\\nb\\r\\t\\u{1b}[31m\\u{85}\\u{202e}c\\u{200b}d\\u{2028}\\u{feff}\\u{7f}"
        );
        assert_eq!(visible(&visible(hostile)), visible(hostile));
        assert_eq!(visible_lines("a\nb\u{1b}"), "a\nb\\u{1b}");
    }

    #[test]
    fn ordinary_words_of_any_language_stay_as_they_are() {
        for text in ["Presse 7 – Öl", "压力机", "الضاغط", "µs ✓ 🏭", "C:\\new"] {
            assert!(matches!(visible(text), Cow::Borrowed(same) if same == text));
            assert!(!has_hidden(text));
        }
    }

    #[test]
    fn a_json_document_reads_back_as_it_was() {
        let value = serde_json::json!({"a\u{202e}": "b\u{e0041}\u{9b}\n\u{200b}é"});
        let json = serde_json::to_string(&value).unwrap();
        let shown = visible_json(&json);
        assert!(!has_hidden(&shown), "{shown}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), value);
    }

    #[test]
    fn a_long_text_ends_where_it_is_cut() {
        assert_eq!(bounded("abcdef", 6), "abcdef");
        assert_eq!(bounded("abcdefg", 6), "abcde…");
        assert_eq!(bounded("ééééééé", 3), "éé…");
        assert_eq!(bounded("\n\n\n", 4), "\\n\\…");
    }
}

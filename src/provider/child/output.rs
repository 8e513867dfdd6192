//! What a command wrote: in its log, as clean text, line by line, and capped for the state.
//!
//! Here: decoding, lines, the cap. Elsewhere: reading it (`child`), taking out secrets (`scrub`).

use std::collections::VecDeque;
use std::fs::File;
use std::io::Write;
use std::path::Path;

use super::ChildError;
use crate::scrub::{self, Scrub};

/// The most of an output that is kept, in bytes, with the mark of the cut.
pub const KEPT: usize = 64 << 10;
/// So many of them are its start.
const HEAD: usize = 16 << 10;
/// A line longer than this is handed on in pieces.
const LINE: usize = 16 << 10;

/// Where the output goes: log, capture and lines.
pub struct Writer<'a> {
    log: File,
    path: &'a Path,
    scrub: scrub::Stream,
    decoder: Decoder,
    lines: Lines,
    capture: Capture,
}

impl<'a> Writer<'a> {
    pub fn new(log: File, path: &'a Path, scrub: &Scrub) -> Self {
        Self {
            log,
            path,
            scrub: scrub.stream(),
            decoder: Decoder::default(),
            lines: Lines::default(),
            capture: Capture::default(),
        }
    }

    pub fn push(&mut self, bytes: &[u8], on_line: &mut impl FnMut(&str)) -> Result<(), ChildError> {
        let mut clean = Vec::with_capacity(bytes.len());
        self.scrub.push(bytes, &mut clean);
        self.keep(&clean, on_line)
    }

    fn keep(&mut self, clean: &[u8], on_line: &mut impl FnMut(&str)) -> Result<(), ChildError> {
        let written = self.log.write_all(clean);
        written.map_err(|why| ChildError::Log { log: self.path.to_owned(), why })?;
        let text = self.decoder.push(clean);
        self.capture.push(&text);
        self.lines.push(&text, on_line);
        Ok(())
    }

    pub fn finish(mut self, on_line: &mut impl FnMut(&str)) -> Result<String, ChildError> {
        let mut clean = Vec::new();
        self.scrub.finish(&mut clean);
        self.keep(&clean, on_line)?;
        let text = self.decoder.finish();
        self.capture.push(&text);
        self.lines.push(&text, &mut *on_line);
        self.lines.finish(on_line);
        Ok(self.capture.finish(self.path))
    }
}

/// Decodes a stream into text: what is not UTF-8 becomes U+FFFD, NUL is left out.
#[derive(Default)]
struct Decoder {
    /// The start of a character whose rest has not come yet.
    held: Vec<u8>,
}

impl Decoder {
    pub fn push(&mut self, bytes: &[u8]) -> String {
        self.held.extend_from_slice(bytes);
        let mut text = String::with_capacity(self.held.len());
        let mut open = 0;
        let mut chunks = self.held.utf8_chunks().peekable();
        while let Some(chunk) = chunks.next() {
            text.push_str(chunk.valid());
            let invalid = chunk.invalid();
            let last = chunks.peek().is_none();
            // Only at the very end can an invalid part still become a character.
            if last && std::str::from_utf8(invalid).is_err_and(|error| error.error_len().is_none()) {
                open = invalid.len();
            } else if !invalid.is_empty() {
                text.push(char::REPLACEMENT_CHARACTER);
            }
        }
        self.held.drain(..self.held.len() - open);
        text.retain(|character| character != '\0');
        text
    }

    /// What is left at the end of the stream.
    pub fn finish(self) -> String {
        String::from_utf8_lossy(&self.held).into_owned()
    }
}

/// Cuts text into lines, without their ends.
#[derive(Default)]
struct Lines {
    open: String,
}

impl Lines {
    pub fn push(&mut self, text: &str, mut on_line: impl FnMut(&str)) {
        for piece in text.split_inclusive('\n') {
            self.open.push_str(piece);
            if self.open.ends_with('\n') || self.open.len() >= LINE {
                self.flush(&mut on_line);
            }
        }
    }

    pub fn finish(mut self, mut on_line: impl FnMut(&str)) {
        if !self.open.is_empty() {
            self.flush(&mut on_line);
        }
    }

    fn flush(&mut self, on_line: &mut impl FnMut(&str)) {
        // A progress bar rewrites its line: what stands at last is the line.
        let line = self.open.trim_end_matches(['\n', '\r']);
        on_line(line.rsplit_once('\r').map_or(line, |(_, last)| last));
        self.open.clear();
    }
}

/// The start and the end of an output.
#[derive(Default)]
struct Capture {
    head: String,
    tail: VecDeque<u8>,
    total: usize,
}

impl Capture {
    pub fn push(&mut self, text: &str) {
        self.total += text.len();
        let (head, tail) = match self.tail.is_empty() {
            true => text.split_at(text.floor_char_boundary(HEAD - self.head.len())),
            false => ("", text),
        };
        self.head.push_str(head);
        self.tail.extend(tail.as_bytes());
        let over = self.tail.len().saturating_sub(KEPT - HEAD);
        self.tail.drain(..over);
    }

    /// The whole output where it fits, else its start, a mark that names the log, and its end.
    pub fn finish(self, log: &Path) -> String {
        let mut tail = Vec::from(self.tail);
        let mut text = self.head;
        if text.len() + tail.len() < self.total {
            let mark = |cut| format!("\n[... {cut} bytes cut; the whole log is in {} ...]\n", log.display());
            // The mark takes its place from the tail; the largest number makes the longest mark.
            let room = (KEPT - text.len()).saturating_sub(mark(self.total).len());
            let mut start = tail.len().saturating_sub(room);
            // Bytes that continue a character have lost its start.
            while tail.get(start).is_some_and(|byte| byte & 0xC0 == 0x80) {
                start += 1;
            }
            tail.drain(..start);
            text.push_str(&mark(self.total - text.len() - tail.len()));
        }
        text.push_str(&String::from_utf8_lossy(&tail));
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_character_may_come_in_pieces_and_what_is_none_is_replaced() {
        let bytes = "a\0ü€😀".as_bytes();
        for cut in 0..bytes.len() {
            let mut decoder = Decoder::default();
            let text = decoder.push(&bytes[..cut]) + &decoder.push(&bytes[cut..]) + &decoder.finish();
            assert_eq!(text, "aü€😀", "cut at {cut}");
        }
        let mut decoder = Decoder::default();
        assert_eq!(decoder.push(b"x\xFFy\xE2\x82"), "x\u{FFFD}y");
        assert_eq!(decoder.finish(), "\u{FFFD}");
    }

    #[test]
    fn lines_come_whole_and_a_progress_bar_as_it_stands_at_last() {
        let (mut lines, mut seen) = (Lines::default(), Vec::new());
        for text in ["on", "e\ntwo\r\n10%\r", "100%\nno end"] {
            lines.push(text, |line| seen.push(line.to_owned()));
        }
        assert_eq!(seen, ["one", "two", "100%"]);
        lines.finish(|line| seen.push(line.to_owned()));
        assert_eq!(seen.last().map(String::as_str), Some("no end"));
    }

    #[test]
    fn an_output_keeps_its_start_and_its_end_within_the_cap() {
        let log = Path::new("build.log");
        let check = |text: &str, chunk: usize| {
            let mut capture = Capture::default();
            let characters: Vec<char> = text.chars().collect();
            for part in characters.chunks(chunk) {
                capture.push(&part.iter().collect::<String>());
            }
            capture.finish(log)
        };
        let fits = "é".repeat(KEPT / 2);
        assert_eq!(check(&fits, 1000), fits);
        for chunk in [1, 1000, usize::MAX] {
            let kept = check(&format!("start{}end", "€".repeat(50_000)), chunk);
            assert!(kept.len() <= KEPT && kept.len() > KEPT - 10, "{}", kept.len());
            assert!(kept.starts_with("start€") && kept.ends_with("€end"));
            let (head, rest) = kept.split_once("\n[... ").expect("the cut is marked");
            let (cut, tail) =
                rest.split_once(" bytes cut; the whole log is in build.log ...]\n").expect("so");
            let cut: usize = cut.parse().expect("a number");
            assert_eq!(head.len() + cut + tail.len(), 150_008);
        }
    }
}

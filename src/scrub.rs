//! What nobody is to read is taken out: secret values, and characters that steer a terminal.
//!
//! Here: finding the values in text and in streams. Elsewhere: which values are secret.
//! Invariant: no value of [`SHORTEST`] bytes or more passes, however a stream is cut into chunks.

use std::borrow::Cow;
use std::sync::Arc;

use crate::secret::Secret;

/// Values below this many bytes are left alone: they would blot out ordinary text.
pub const SHORTEST: usize = 8;
/// What stands where a value stood.
const MARK: &[u8] = b"***";

/// The values to take out. Cloning is cheap.
#[derive(Clone)]
pub struct Scrub(Arc<Values>);

struct Values {
    /// Longest first, so that the longest match decides.
    values: Vec<Vec<u8>>,
    /// Whether some value starts with the byte; most bytes of a stream start none.
    starts: [bool; 256],
}

impl Scrub {
    /// Values are looked for without the white space around them, which a file often adds.
    pub fn new<'a>(values: impl IntoIterator<Item = &'a Secret>) -> Self {
        let mut values: Vec<Vec<u8>> = values
            .into_iter()
            .map(|value| value.expose().trim().as_bytes().to_vec())
            .filter(|value| value.len() >= SHORTEST)
            .collect();
        values.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        values.dedup();
        let mut starts = [false; 256];
        for value in &values {
            starts[usize::from(value[0])] = true;
        }
        Self(Arc::new(Values { values, starts }))
    }

    /// One whole text.
    pub fn text<'t>(&self, text: &'t str) -> Cow<'t, str> {
        if self.0.values.is_empty() {
            return Cow::Borrowed(text);
        }
        let mut stream = self.stream();
        let mut clean = Vec::with_capacity(text.len());
        stream.push(text.as_bytes(), &mut clean);
        stream.finish(&mut clean);
        // Whole values of UTF-8 text were replaced by ASCII, so this loses nothing.
        Cow::Owned(String::from_utf8_lossy(&clean).into_owned())
    }

    pub fn stream(&self) -> Stream {
        Stream { scrub: self.clone(), held: Vec::new(), covered: 0 }
    }
}

/// Scrubs a stream chunk by chunk.
pub struct Stream {
    scrub: Scrub,
    /// The end of what came, as it may be the start of a value.
    held: Vec<u8>,
    /// How many of the next bytes belong to a value whose mark was already put out.
    covered: usize,
}

impl Stream {
    /// Takes the next chunk and appends to `out` what is certain by now.
    pub fn push(&mut self, chunk: &[u8], out: &mut Vec<u8>) {
        self.held.extend_from_slice(chunk);
        self.advance(false, out);
    }

    /// Appends what was held back: the stream has ended.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        self.advance(true, out);
    }

    fn advance(&mut self, last: bool, out: &mut Vec<u8>) {
        let Values { values, starts } = &*self.scrub.0;
        let mut at = 0;
        while let Some(&byte) = self.held.get(at) {
            if starts[usize::from(byte)] {
                let rest = &self.held[at..];
                if !last && values.iter().any(|value| value.len() > rest.len() && value.starts_with(rest)) {
                    break;
                }
                if let Some(value) = values.iter().find(|value| rest.starts_with(value)) {
                    // Values that overlap share one mark, so that no tail of either is left.
                    if self.covered == 0 {
                        out.extend_from_slice(MARK);
                    }
                    self.covered = self.covered.max(value.len());
                }
            }
            if self.covered > 0 {
                self.covered -= 1;
            } else {
                out.push(byte);
            }
            at += 1;
        }
        self.held.drain(..at);
    }
}

/// Text that cannot steer a terminal: control characters are spelled out, and those that turn the
/// direction of what follows.
pub fn visible(text: &str) -> String {
    let steers = |c: char| {
        (c.is_control() && c != '\t')
            || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    if !text.chars().any(steers) {
        return text.to_owned();
    }
    let spelled = |c: char| if steers(c) { c.escape_default().to_string() } else { c.into() };
    text.chars().map(spelled).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scrub(values: &[&str]) -> Scrub {
        let values: Vec<Secret> = values.iter().map(|value| Secret::new(*value)).collect();
        Scrub::new(&values)
    }

    /// The text in chunks of every size gives the same as the whole.
    fn check(values: &[&str], text: &str, expected: &str) {
        let scrub = scrub(values);
        assert_eq!(scrub.text(text), expected);
        for size in 1..=text.len() {
            let (mut stream, mut out) = (scrub.stream(), Vec::new());
            for chunk in text.as_bytes().chunks(size) {
                stream.push(chunk, &mut out);
            }
            stream.finish(&mut out);
            assert_eq!(String::from_utf8_lossy(&out), expected, "in chunks of {size}");
        }
    }

    #[test]
    fn values_go_however_the_stream_is_cut() {
        check(&["correct-horse"], "a correct-horse, a correct-hors", "a ***, a correct-hors");
        check(&["correct-horse"], "correct-correct-horse", "correct-***");
        check(&["line one\nline two"], "x\nline one\nline two\ny", "x\n***\ny");
        check(&["pässwörter"], "ä pässwörter ö", "ä *** ö");
    }

    #[test]
    fn the_longest_value_decides_and_overlaps_leave_no_tail() {
        check(&["password", "password1234"], "password1234 password12", "*** ***12");
        check(&["password1234", "1234567890"], "password1234567890.", "***.");
        check(&["password"], "passwordpassword", "******");
    }

    #[test]
    fn short_values_stay_and_white_space_around_a_value_does_not_hide_it() {
        check(&["1234567"], "1234567", "1234567");
        check(&["12345678\n"], "got 12345678!", "got ***!");
        check(&[], "as it is", "as it is");
    }

    #[test]
    fn text_that_may_not_be_a_value_is_not_held_back() {
        let (mut stream, mut out) = (scrub(&["correct-horse"]).stream(), Vec::new());
        stream.push(b"password: ", &mut out);
        assert_eq!(out, b"password: ");
    }
}

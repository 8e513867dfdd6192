//! The texts a spec was read from, and places in them.

/// One file as it was read.
#[derive(Debug, Clone)]
pub struct SourceFile {
    /// The path as messages show it, relative to where norn runs if that is shorter.
    pub path: String,
    /// The folder of the file relative to the root file's, with `/`, empty for the root's own.
    pub folder: String,
    pub text: String,
}

/// Every file of one spec; the root comes first.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    files: Vec<SourceFile>,
    /// Where the lines of each file begin, in bytes.
    lines: Vec<Vec<usize>>,
}

/// The index of a file in its [`Sources`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId(u32);

/// A place in a file, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    pub file: FileId,
    pub start: usize,
    pub len: usize,
}

impl Span {
    pub const fn new(file: FileId, start: usize, len: usize) -> Self {
        Self { file, start, len }
    }
}

impl Sources {
    pub fn add(&mut self, file: SourceFile) -> FileId {
        let id = FileId(u32::try_from(self.files.len()).expect("a spec has fewer than 2^32 files"));
        let breaks = file.text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        self.lines.push(std::iter::once(0).chain(breaks.map(|(at, _)| at + 1)).collect());
        self.files.push(file);
        id
    }

    pub fn get(&self, id: FileId) -> &SourceFile {
        &self.files[id.0 as usize]
    }

    pub fn iter(&self) -> impl Iterator<Item = &SourceFile> {
        self.files.iter()
    }

    /// The line and the column of a span's start, both from 1; the column counts characters.
    pub fn line_column(&self, span: Span) -> (usize, usize) {
        let text = &self.get(span.file).text;
        // A span may end within a character that stands for bytes which are no UTF-8.
        let at = text.floor_char_boundary(span.start);
        let lines = &self.lines[span.file.0 as usize];
        let line = lines.partition_point(|begin| *begin <= at);
        let column = text[lines[line - 1]..at].chars().count() + 1;
        (line, column)
    }

    /// `file:line:column` of a span's start.
    pub fn place(&self, span: Span) -> String {
        let (line, column) = self.line_column(span);
        format!("{}:{line}:{column}", self.get(span.file).path)
    }
}

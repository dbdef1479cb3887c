//! Why a text is not PromQL, and where.

use crate::ast::PositionRange;

/// A text that does not parse, or whose types do not fit. Printed as Prometheus prints it:
/// `1:5: parse error: unexpected <op:*>`, line and column counted from 1, columns in bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: parse error: {message}", self.place())]
pub struct ParseError {
    /// The bytes at fault.
    pub position: PositionRange,
    /// The line that they start in; 0 if the text is empty and so has none.
    pub line: u32,
    /// The byte of that line that they start at.
    pub column: u32,
    /// What is wrong, without the place.
    pub message: String,
}

impl ParseError {
    pub(crate) fn new(text: &str, position: PositionRange, message: impl Into<String>) -> ParseError {
        let before = &text.as_bytes()[..text.len().min(position.start as usize)];
        let line_start = before.iter().rposition(|&byte| byte == b'\n').map_or(0, |i| i + 1);
        let (line, column) = match text {
            "" => (0, 0),
            _ => (1 + before.iter().filter(|&&byte| byte == b'\n').count(), 1 + before.len() - line_start),
        };
        ParseError { position, line: line as u32, column: column as u32, message: message.into() }
    }

    fn place(&self) -> String {
        match self.line {
            0 => "unknown position".to_owned(),
            line => format!("{line}:{}", self.column),
        }
    }
}

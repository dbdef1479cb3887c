//! Cuts a text into tokens, one at a time.
//!
//! Three places have words of their own: outside, in braces, where every word is a label's name, and in brackets,
//! where only durations and their operators are known. The lexer follows the brackets itself, so that it needs no
//! help from the parser. A token is a kind and a place; its text is looked up there.

use crate::ast::{AggregateOp, BinaryOp, PositionRange};
use crate::error::ParseError;
use crate::literal::quote;

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TokenKind {
    /// A name without a colon that is no keyword.
    Identifier,
    /// A name with a colon.
    MetricIdentifier,
    /// A number, not necessarily a valid one.
    Number,
    /// A number with a unit, not necessarily a valid duration.
    Duration,
    /// A text with its quotes, its escapes not yet checked.
    String,
    /// `{`
    LeftBrace,
    /// `}`
    RightBrace,
    /// `[`
    LeftBracket,
    /// `]`
    RightBracket,
    /// `(`
    LeftParen,
    /// `)`
    RightParen,
    /// `,`
    Comma,
    /// `:`
    Colon,
    /// `=`
    Assign,
    /// `=~`
    Regex,
    /// `!~`
    NotRegex,
    /// `@`
    At,
    /// An operator between expressions; in braces, `!=`.
    Operator(BinaryOp),
    /// The name of an aggregation.
    Aggregate(AggregateOp),
    /// Another word with a meaning.
    Keyword(Keyword),
    /// The end of the text.
    End,
}

/// A word with a meaning in some places, and a name in others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keyword {
    Anchored,
    Bool,
    By,
    End,
    Fill,
    FillLeft,
    FillRight,
    GroupLeft,
    GroupRight,
    Ignoring,
    MaxOf,
    MinOf,
    Offset,
    On,
    Range,
    Smoothed,
    Start,
    Step,
    Without,
}

/// A token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) kind: TokenKind,
    pub(crate) position: PositionRange,
}

/// Where in a `[range:step]` the lexer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bracket {
    /// Outside.
    Closed,
    /// Before a first word or number.
    Opened,
    /// In the range.
    Range,
    /// Behind the colon.
    Step,
}

/// Walks a text token by token.
#[derive(Debug)]
pub(crate) struct Lexer<'a> {
    text: &'a str,
    /// Where the current token starts.
    start: usize,
    /// How far the text has been read.
    at: usize,
    open_parens: usize,
    in_braces: bool,
    bracket: Bracket,
}

impl<'a> Lexer<'a> {
    /// `text` is shorter than 4 GiB: the parser sees to it.
    pub(crate) fn new(text: &'a str) -> Lexer<'a> {
        Lexer { text, start: 0, at: 0, open_parens: 0, in_braces: false, bracket: Bracket::Closed }
    }

    /// The next token; at the end, `End` again and again.
    ///
    /// Errors: a character that has no place here, a text or bracket that is not closed.
    pub(crate) fn next(&mut self) -> Result<Token, ParseError> {
        self.skip_spaces_and_comments();
        self.start = self.at;
        let kind = if self.in_braces { self.token_in_braces()? } else { self.token()? };
        Ok(Token { kind, position: self.position() })
    }

    /// The text behind the tokens so far.
    pub(crate) fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn position(&self) -> PositionRange {
        PositionRange { start: self.start as u32, end: self.at as u32 }
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn bump(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += c.len_utf8();
        Some(c)
    }

    /// Takes the next character if it is `c`.
    fn take(&mut self, c: char) -> bool {
        let found = self.peek() == Some(c);
        if found {
            self.at += c.len_utf8();
        }
        found
    }

    fn take_while(&mut self, keep: impl Fn(char) -> bool) {
        let rest = self.rest();
        self.at += rest.find(|c| !keep(c)).unwrap_or(rest.len());
    }

    fn error(&self, message: impl Into<String>) -> ParseError {
        let position = PositionRange { start: self.start as u32, end: self.text.len() as u32 };
        ParseError::new(self.text, position, message)
    }

    /// An error about what lies behind the bracket that was just taken.
    fn error_behind(&self, message: impl Into<String>) -> ParseError {
        let position = PositionRange { start: self.at as u32, end: self.text.len() as u32 };
        ParseError::new(self.text, position, message)
    }

    fn skip_spaces_and_comments(&mut self) {
        loop {
            self.take_while(is_space);
            if self.peek() != Some('#') {
                return;
            }
            self.take_while(|c| c != '\n' && c != '\r');
        }
    }

    fn token(&mut self) -> Result<TokenKind, ParseError> {
        let Some(c) = self.bump() else { return self.end() };
        if self.bracket == Bracket::Opened && !(c.is_ascii_alphanumeric() || "()+-*/%^,.:]".contains(c)) {
            return Err(self.unexpected_char(c));
        }
        let kind = match c {
            ',' => TokenKind::Comma,
            '@' => TokenKind::At,
            '*' => TokenKind::Operator(BinaryOp::Mul),
            '/' => TokenKind::Operator(BinaryOp::Div),
            '%' => TokenKind::Operator(BinaryOp::Mod),
            '+' => TokenKind::Operator(BinaryOp::Add),
            '-' => TokenKind::Operator(BinaryOp::Sub),
            '^' => TokenKind::Operator(BinaryOp::Pow),
            '=' | '!' | '<' | '>' => self.comparison(c)?,
            '(' | ')' | '{' | '[' | ']' => self.bracket(c)?,
            '"' | '\'' | '`' => self.string(c)?,
            '.' if !self.peek().is_some_and(|next| next.is_ascii_digit()) => return Err(self.unexpected_char(c)),
            '0'..='9' | '.' => self.number_or_duration()?,
            _ if self.bracket != Bracket::Closed => self.word_in_brackets(c)?,
            ':' | '_' | 'a'..='z' | 'A'..='Z' => self.word(),
            _ => return Err(self.unexpected_char(c)),
        };
        if self.bracket == Bracket::Opened && kind != TokenKind::LeftBracket {
            self.bracket = Bracket::Range;
        }
        Ok(kind)
    }

    fn unexpected_char(&self, c: char) -> ParseError {
        match self.bracket {
            Bracket::Opened => self.error(format!("unexpected character in duration expression: '{c}'")),
            _ => self.error(format!("unexpected character: '{c}'")),
        }
    }

    fn end(&mut self) -> Result<TokenKind, ParseError> {
        match self.bracket {
            Bracket::Opened => Err(self.error("unexpected end of input in duration expression")),
            _ if self.open_parens > 0 => Err(self.error("unclosed left parenthesis")),
            Bracket::Closed => Ok(TokenKind::End),
            _ => Err(self.error("unclosed left bracket")),
        }
    }

    fn comparison(&mut self, first: char) -> Result<TokenKind, ParseError> {
        let op = match (first, self.peek()) {
            ('=', Some('=')) => BinaryOp::Equal,
            ('=', Some('~')) => return Err(self.error("unexpected character after '=': '~'")),
            ('=', _) => return Ok(TokenKind::Assign),
            ('!', Some('=')) => BinaryOp::NotEqual,
            ('!', Some(c)) => return Err(self.error(format!("unexpected character after '!': '{c}'"))),
            ('!', None) => return Err(self.error("unexpected end of input after '!'")),
            ('<', Some('=')) => BinaryOp::LessOrEqual,
            ('<', Some('/')) => BinaryOp::TrimUpper,
            ('<', _) => return Ok(TokenKind::Operator(BinaryOp::Less)),
            (_, Some('=')) => BinaryOp::GreaterOrEqual,
            (_, Some('/')) => BinaryOp::TrimLower,
            _ => return Ok(TokenKind::Operator(BinaryOp::Greater)),
        };
        self.bump();
        Ok(TokenKind::Operator(op))
    }

    fn bracket(&mut self, c: char) -> Result<TokenKind, ParseError> {
        match c {
            '(' => self.open_parens += 1,
            ')' if self.open_parens == 0 => return Err(self.error_behind("unexpected right parenthesis ')'")),
            ')' => self.open_parens -= 1,
            '[' if self.bracket != Bracket::Closed => return Err(self.error("unexpected left bracket '['")),
            '[' => self.bracket = Bracket::Opened,
            ']' if self.bracket == Bracket::Closed => return Err(self.error("unexpected right bracket ']'")),
            ']' => self.bracket = Bracket::Closed,
            _ => self.in_braces = true,
        }
        Ok(match c {
            '(' => TokenKind::LeftParen,
            ')' => TokenKind::RightParen,
            '[' => TokenKind::LeftBracket,
            ']' => TokenKind::RightBracket,
            _ => TokenKind::LeftBrace,
        })
    }

    /// In brackets: a colon, or the name of a duration function.
    fn word_in_brackets(&mut self, first: char) -> Result<TokenKind, ParseError> {
        if first == ':' {
            match self.bracket {
                Bracket::Opened => return Err(self.error("unexpected colon before duration in duration expression")),
                Bracket::Step => return Err(self.error("unexpected colon ':'")),
                _ => self.bracket = Bracket::Step,
            }
            return Ok(TokenKind::Colon);
        }
        self.take_while(|c| c.is_ascii_alphabetic() || c == '_');
        match keyword(&self.text[self.start..self.at]) {
            Some(kind @ TokenKind::Keyword(Keyword::Step | Keyword::Range | Keyword::MinOf | Keyword::MaxOf)) => {
                Ok(kind)
            }
            _ if self.bracket == Bracket::Opened => Err(self.unexpected_char(first)),
            _ => Err(self.error(format!("unexpected character: '{first}', expected ':'"))),
        }
    }

    fn word(&mut self) -> TokenKind {
        self.take_while(|c| is_alphanumeric(c) || c == ':');
        let word = &self.text[self.start..self.at];
        match keyword(word) {
            // `fill` is young: it stays a metric's name wherever no parenthesis follows.
            Some(TokenKind::Keyword(Keyword::Fill | Keyword::FillLeft | Keyword::FillRight))
                if !self.rest().trim_start_matches(is_space).starts_with('(') =>
            {
                TokenKind::Identifier
            }
            Some(kind) => kind,
            None if word.contains(':') => TokenKind::MetricIdentifier,
            None => TokenKind::Identifier,
        }
    }

    /// A number's first character has been taken. What follows a number must not be part of a word.
    fn number_or_duration(&mut self) -> Result<TokenKind, ParseError> {
        self.at = self.start;
        let length = number_length(self.rest());
        self.at += length;
        if self.peek().is_none_or(|c| !is_alphanumeric(c) && c != '.') {
            return Ok(TokenKind::Number);
        }
        let units = duration_units_length(self.rest());
        self.at += units;
        if self.peek().is_none_or(|c| !is_alphanumeric(c) && c != '.') {
            return Ok(TokenKind::Duration);
        }
        if units > 0 || self.peek() == Some('.') {
            self.bump();
        }
        let bad = &self.text[self.start..self.at];
        Err(self.error(format!("bad number or duration syntax: {}", quote(bad.as_bytes()))))
    }

    /// The opening mark has been taken.
    fn string(&mut self, mark: char) -> Result<TokenKind, ParseError> {
        let is_raw = mark == '`';
        loop {
            match self.bump() {
                Some(c) if c == mark => return Ok(TokenKind::String),
                // U+FFFD is what decoders put where the bytes are not UTF-8; Prometheus refuses it likewise.
                Some(char::REPLACEMENT_CHARACTER) => return Err(self.error("invalid UTF-8 rune")),
                Some('\\') if !is_raw && self.bump().is_none() => {
                    return Err(self.error("escape sequence not terminated"));
                }
                Some('\n') if !is_raw => return Err(self.error("unterminated quoted string")),
                None if is_raw => return Err(self.error("unterminated raw string")),
                None => return Err(self.error("unterminated quoted string")),
                Some(_) => {}
            }
        }
    }

    fn token_in_braces(&mut self) -> Result<TokenKind, ParseError> {
        let Some(c) = self.bump() else { return Err(self.error("unexpected end of input inside braces")) };
        Ok(match c {
            '_' | 'a'..='z' | 'A'..='Z' => {
                self.take_while(is_alphanumeric);
                TokenKind::Identifier
            }
            ',' => TokenKind::Comma,
            '"' | '\'' | '`' => self.string(c)?,
            '=' if self.take('~') => TokenKind::Regex,
            '=' => TokenKind::Assign,
            '!' if self.take('~') => TokenKind::NotRegex,
            '!' if self.take('=') => TokenKind::Operator(BinaryOp::NotEqual),
            '!' => {
                let next = self.bump().map_or_else(|| "end of input".to_owned(), |next| format!("'{next}'"));
                return Err(self.error(format!("unexpected character after '!' inside braces: {next}")));
            }
            '{' => return Err(self.error("unexpected left brace '{'")),
            '}' => {
                self.in_braces = false;
                TokenKind::RightBrace
            }
            _ => return Err(self.error(format!("unexpected character inside braces: '{c}'"))),
        })
    }
}

/// The bytes of the longest number that `text`, which starts with a digit or a dot and a digit, starts with.
fn number_length(text: &str) -> usize {
    let bytes = text.as_bytes();
    let run = |from: usize, keep: fn(&u8) -> bool| from + bytes[from..].iter().take_while(|&byte| keep(byte)).count();
    let decimal: fn(&u8) -> bool = |byte| byte.is_ascii_digit() || *byte == b'_';
    if text.starts_with("0x") || text.starts_with("0X") {
        return run(2, |byte| byte.is_ascii_hexdigit() || *byte == b'_');
    }
    let mut end = run(0, decimal);
    if bytes.get(end) == Some(&b'.') {
        end = run(end + 1, decimal);
    }
    if matches!(bytes.get(end), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
        if bytes.get(end + 1 + sign).is_some_and(u8::is_ascii_digit) {
            end = run(end + 1 + sign, decimal);
        }
    }
    end
}

/// The bytes of the units behind a number, and of the further numbers with units behind them: of "h30m" in "1h30m".
fn duration_units_length(text: &str) -> usize {
    let bytes = text.as_bytes();
    let mut end = 0;
    // Units that don't exist ("hs") or are out of order are left to the parser, whose message is better.
    loop {
        let digits = bytes[end..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        let unit = end + digits;
        if (end > 0 && digits == 0) || !bytes.get(unit).is_some_and(|byte| b"smhdwy".contains(byte)) {
            return end;
        }
        end = unit + 1 + usize::from(bytes.get(unit + 1) == Some(&b's'));
    }
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r')
}

fn is_alphanumeric(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// What a word means, in any case: an operator, an aggregation, a keyword or a special number.
fn keyword(word: &str) -> Option<TokenKind> {
    use TokenKind::{Aggregate, Keyword as Word, Operator};
    Some(match word.to_ascii_lowercase().as_str() {
        "and" => Operator(BinaryOp::And),
        "or" => Operator(BinaryOp::Or),
        "unless" => Operator(BinaryOp::Unless),
        "atan2" => Operator(BinaryOp::Atan2),
        "avg" => Aggregate(AggregateOp::Avg),
        "bottomk" => Aggregate(AggregateOp::Bottomk),
        "count" => Aggregate(AggregateOp::Count),
        "count_values" => Aggregate(AggregateOp::CountValues),
        "group" => Aggregate(AggregateOp::Group),
        "limit_ratio" => Aggregate(AggregateOp::LimitRatio),
        "limitk" => Aggregate(AggregateOp::Limitk),
        "max" => Aggregate(AggregateOp::Max),
        "min" => Aggregate(AggregateOp::Min),
        "quantile" => Aggregate(AggregateOp::Quantile),
        "stddev" => Aggregate(AggregateOp::Stddev),
        "stdvar" => Aggregate(AggregateOp::Stdvar),
        "sum" => Aggregate(AggregateOp::Sum),
        "topk" => Aggregate(AggregateOp::Topk),
        "anchored" => Word(Keyword::Anchored),
        "bool" => Word(Keyword::Bool),
        "by" => Word(Keyword::By),
        "end" => Word(Keyword::End),
        "fill" => Word(Keyword::Fill),
        "fill_left" => Word(Keyword::FillLeft),
        "fill_right" => Word(Keyword::FillRight),
        "group_left" => Word(Keyword::GroupLeft),
        "group_right" => Word(Keyword::GroupRight),
        "ignoring" => Word(Keyword::Ignoring),
        "max_of" => Word(Keyword::MaxOf),
        "min_of" => Word(Keyword::MinOf),
        "offset" => Word(Keyword::Offset),
        "on" => Word(Keyword::On),
        "range" => Word(Keyword::Range),
        "smoothed" => Word(Keyword::Smoothed),
        "start" => Word(Keyword::Start),
        "step" => Word(Keyword::Step),
        "without" => Word(Keyword::Without),
        "inf" | "nan" => TokenKind::Number,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The texts of all tokens, or the error behind them.
    fn cut(text: &str) -> String {
        let mut lexer = Lexer::new(text);
        let mut out = Vec::new();
        loop {
            match lexer.next() {
                Ok(Token { kind: TokenKind::End, .. }) => return out.join(" | "),
                Ok(token) => {
                    out.push(text[token.position.start as usize..token.position.end as usize].to_owned());
                }
                Err(error) => return format!("{} ! {error}", out.join(" | ")),
            }
        }
    }

    #[test]
    fn texts_are_cut_into_tokens() {
        let check = |text, tokens: &str| assert_eq!(cut(text), tokens);
        check("a+b  # rest\n*c", "a | + | b | * | c");
        check("a:b>=1.5e-3 != 5m </ >/", "a:b | >= | 1.5e-3 | != | 5m | </ | >/");
        check("1e5m1h 0x1F .5", "1e5m1h | 0x1F | .5");
        check(r#"{sum=~"a\"b", 'c'!~`\`}"#, r#"{ | sum | =~ | "a\"b" | , | 'c' | !~ | `\` | }"#);
        check("a[5m:STEP()*2]", "a | [ | 5m | : | STEP | ( | ) | * | 2 | ]");
        check("a[-step():]", "a | [ | - | step | ( | ) | : | ]");
    }

    #[test]
    fn bad_characters_are_named() {
        let check = |text, tokens: &str| assert_eq!(cut(text), tokens);
        check("a ? b", "a ! 1:3: parse error: unexpected character: '?'");
        check("a\n é", "a ! 2:2: parse error: unexpected character: 'é'");
        check("(1))", "( | 1 | ) ! 1:5: parse error: unexpected right parenthesis ')'");
        check("1.2.3", r#" ! 1:1: parse error: bad number or duration syntax: "1.2.""#);
        check("a[5m:1m:1m]", "a | [ | 5m | : | 1m ! 1:8: parse error: unexpected colon ':'");
        check("a[:1m]", "a | [ ! 1:3: parse error: unexpected colon before duration in duration expression");
    }

    #[test]
    fn fill_is_a_keyword_only_before_a_parenthesis() {
        let kind = |text| Lexer::new(text).next().unwrap().kind;
        assert_eq!(kind("fill + 1"), TokenKind::Identifier);
        assert_eq!(kind("fill  (1)"), TokenKind::Keyword(Keyword::Fill));
    }
}

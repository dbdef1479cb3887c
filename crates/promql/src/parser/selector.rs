//! Selectors: braces, and what may follow a selector: `[5m]`, `[1h:5m]`, `@`, `offset`, `anchored`, `smoothed`.

use std::cmp::max;

use model::{Labels, METRIC_NAME, MatchOp, Matcher};

use super::duration::A_DURATION;
use super::{Node, Parser, is_metric_name};
use crate::ast::{At, BinaryOp, Expr, Extent, MatrixSelector, PositionRange, RangeMode, Subquery, VectorSelector};
use crate::error::ParseError;
use crate::lexer::{Keyword, Token, TokenKind};
use crate::literal::format_number;

const IN_MATCHERS: &str = "label matching";
const IN_LABELS: &str = "label set";
const COMMA_OR_BRACE: &str = r#""," or "}""#;
const NAME_OR_BRACE: &str = r#"identifier or "}""#;
const A_DURATION_OR_BRACKET: &str = r#"number, duration, step(), range(), or "]""#;

/// What an `@` or `offset` behind a selector changes.
struct Modified<'e> {
    at: &'e mut Option<At>,
    offset: &'e mut Option<Extent>,
    position: &'e mut PositionRange,
}

impl Parser<'_> {
    /// Parses a selector whose name has just been taken.
    pub(super) fn selector(&mut self, name: Token) -> Result<VectorSelector, ParseError> {
        let matcher = Matcher::equal(METRIC_NAME, self.text_of(name));
        match self.take(TokenKind::LeftBrace)? {
            Some(open) => self.selector_in_braces(open, Some((name, matcher))),
            None => Ok(self.vector_selector(Some((name, matcher)), Vec::new(), name.position.start)),
        }
    }

    /// Parses a selector whose opening brace has just been taken, and before it its name.
    pub(super) fn selector_in_braces(
        &mut self,
        open: Token,
        name: Option<(Token, Matcher)>,
    ) -> Result<VectorSelector, ParseError> {
        let mut matchers = Vec::new();
        while self.take(TokenKind::RightBrace)?.is_none() {
            matchers.push(self.matcher()?);
            self.end_of_item(IN_MATCHERS)?;
        }
        let start = name.as_ref().map_or(open, |(token, _)| *token).position.start;
        Ok(self.vector_selector(name, matchers, start))
    }

    fn vector_selector(
        &mut self,
        name: Option<(Token, Matcher)>,
        mut matchers: Vec<Matcher>,
        start: u32,
    ) -> VectorSelector {
        let name = name.map(|(token, matcher)| {
            matchers.push(matcher);
            self.text_of(token).to_owned()
        });
        let position = self.since(start);
        VectorSelector { name, matchers, at: None, offset: None, range_mode: RangeMode::Plain, position }
    }

    /// Behind an item in braces: takes the comma, or sees that the closing brace follows.
    fn end_of_item(&mut self, context: &str) -> Result<(), ParseError> {
        let token = self.peek()?;
        match token.kind {
            TokenKind::Comma => self.next().map(|_| ()),
            TokenKind::RightBrace => Ok(()),
            _ => Err(self.unexpected_in(token, context, COMMA_OR_BRACE)),
        }
    }

    /// Parses `name="value"`, with any operator, or a metric's name in quotes.
    fn matcher(&mut self) -> Result<Matcher, ParseError> {
        let token = self.next()?;
        let name = self.name_in_braces(token, IN_MATCHERS)?;
        let operator = self.peek()?;
        let op = match operator.kind {
            TokenKind::Assign => MatchOp::Equal,
            TokenKind::Operator(BinaryOp::NotEqual) => MatchOp::NotEqual,
            TokenKind::Regex => MatchOp::Regex,
            TokenKind::NotRegex => MatchOp::NotRegex,
            _ if token.kind == TokenKind::String => return Ok(Matcher::equal(METRIC_NAME, name)),
            _ => return Err(self.unexpected_in(operator, IN_MATCHERS, "label matching operator")),
        };
        self.next()?;
        let value = self.expect_in(TokenKind::String, IN_MATCHERS, "string")?;
        let value = self.utf8(value)?;
        let position = self.since(token.position.start);
        if matches!(op, MatchOp::Regex | MatchOp::NotRegex) {
            self.count_regex(position)?;
        }
        Matcher::new(name, op, value).map_err(|error| self.error(position, error.to_string()))
    }

    fn count_regex(&mut self, position: PositionRange) -> Result<(), ParseError> {
        self.regexes += 1;
        if self.regexes > super::REGEXES_MAX {
            let message = format!("more than {} regular expressions", super::REGEXES_MAX);
            return Err(self.error(position, message));
        }
        Ok(())
    }

    fn name_in_braces(&mut self, token: Token, context: &str) -> Result<String, ParseError> {
        match token.kind {
            TokenKind::Identifier => Ok(self.text_of(token).to_owned()),
            TokenKind::String => self.utf8(token),
            _ => Err(self.unexpected_in(token, context, NAME_OR_BRACE)),
        }
    }

    /// Parses a label set, and takes no token behind it; see [`super::parse_labels`].
    pub(super) fn labels(&mut self) -> Result<Labels, ParseError> {
        let mut pairs = Vec::new();
        let text = self.text.trim_start();
        if text.is_empty() {
            return Ok(Labels::empty());
        }
        let has_name = !text.starts_with('{');
        if has_name {
            let name = self.next()?;
            if !is_metric_name(name.kind) {
                return Err(self.unexpected(name));
            }
            pairs.push((METRIC_NAME.to_owned(), self.text_of(name).to_owned()));
        }
        if !has_name || self.lexer.rest().starts_with('{') {
            self.next()?;
            self.labels_in_braces(&mut pairs)?;
        }
        Labels::from_pairs(pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())))
            .map_err(|error| self.error(self.since(0), error.to_string()))
    }

    fn labels_in_braces(&mut self, pairs: &mut Vec<(String, String)>) -> Result<(), ParseError> {
        while self.take(TokenKind::RightBrace)?.is_none() {
            let token = self.next()?;
            let name = self.name_in_braces(token, IN_LABELS)?;
            if self.take(TokenKind::Assign)?.is_some() {
                let value = self.expect_in(TokenKind::String, IN_LABELS, "string")?;
                pairs.push((name, self.utf8(value)?));
            } else if token.kind == TokenKind::String {
                pairs.push((METRIC_NAME.to_owned(), name));
            } else {
                let token = self.peek()?;
                return Err(self.unexpected_in(token, IN_LABELS, r#""=""#));
            }
            self.end_of_item(IN_LABELS)?;
        }
        Ok(())
    }

    /// Parses `[range]` or `[range:step]` behind an expression.
    pub(super) fn window(&mut self, node: Node) -> Result<Node, ParseError> {
        let open = self.next()?;
        let (range, range_height) = self.extent(("subquery or range selector", A_DURATION))?;
        let below = max(node.height, range_height);
        let token = self.next()?;
        match token.kind {
            TokenKind::RightBracket => {
                let matrix = self.matrix(node.expr, range, open)?;
                self.node(Expr::Matrix(Box::new(matrix)), below)
            }
            TokenKind::Colon => self.subquery(node.expr, range, below),
            _ => Err(self.unexpected_in(token, "subquery or range", r#"":" or "]""#)),
        }
    }

    fn matrix(&mut self, expr: Expr, range: Extent, open: Token) -> Result<MatrixSelector, ParseError> {
        let message = match expr {
            Expr::Vector(selector) if selector.offset.is_some() => "no offset modifiers allowed before range",
            Expr::Vector(selector) if selector.at.is_some() => "no @ modifiers allowed before range",
            Expr::Vector(selector) => {
                let position = self.since(selector.position.start);
                return Ok(MatrixSelector { selector: *selector, range, position });
            }
            _ => "ranges only allowed for vector selectors",
        };
        Err(self.error(self.since(open.position.start), message))
    }

    /// The colon has been taken.
    fn subquery(&mut self, expr: Expr, range: Extent, mut below: u32) -> Result<Node, ParseError> {
        let mut step = None;
        if self.take(TokenKind::RightBracket)?.is_none() {
            let (extent, height) = self.extent(("subquery selector", A_DURATION_OR_BRACKET))?;
            step = Some(extent).filter(|step| *step != Extent::Literal(0));
            below = max(below, height);
            self.expect_in(TokenKind::RightBracket, "subquery selector", r#""]""#)?;
        }
        let position = self.since(expr.position().start);
        let subquery = Subquery { expr, range, step, at: None, offset: None, position };
        self.node(Expr::Subquery(Box::new(subquery)), below)
    }

    /// Parses `@ time`, `@ start()` or `@ end()` behind a selector or subquery.
    pub(super) fn at(&mut self, mut node: Node) -> Result<Node, ParseError> {
        self.next()?;
        let whole = node.expr.position();
        let at = self.at_time(whole)?;
        let end = self.end;
        let Some(modified) = modified(&mut node.expr) else {
            let message = "@ modifier must be preceded by an instant vector selector or range vector selector or a \
                           subquery";
            return Err(self.error(whole, message));
        };
        if modified.at.is_some() {
            return Err(self.error(whole, "@ <timestamp> may not be set multiple times"));
        }
        *modified.at = Some(at);
        modified.position.end = end;
        Ok(node)
    }

    fn at_time(&mut self, whole: PositionRange) -> Result<At, ParseError> {
        let edge = match self.peek()?.kind {
            TokenKind::Keyword(Keyword::Start) => Some(At::Start),
            TokenKind::Keyword(Keyword::End) => Some(At::End),
            _ => None,
        };
        if let Some(edge) = edge {
            self.next()?;
            self.expect_in(TokenKind::LeftParen, "@", "timestamp")?;
            self.expect_in(TokenKind::RightParen, "@", "timestamp")?;
            return Ok(edge);
        }
        let seconds = self.signed_number("@", "timestamp")?;
        // Both ends of the 64 bits are out of bounds too.
        if seconds.is_nan() || seconds.abs() >= i64::MAX as f64 {
            let seconds = if seconds.is_finite() { format!("{seconds:.6}") } else { format_number(seconds) };
            let message = format!("timestamp out of bounds for @ modifier: {seconds}");
            return Err(self.error(whole, message));
        }
        Ok(At::Timestamp((seconds * 1000.0).round() as i64))
    }

    /// Parses `offset duration` behind a selector or subquery.
    pub(super) fn offset(&mut self, mut node: Node) -> Result<Node, ParseError> {
        self.next()?;
        let whole = node.expr.position();
        let (offset, height) = self.offset_extent()?;
        let end = self.end;
        let Some(modified) = modified(&mut node.expr) else {
            let message = "offset modifier must be preceded by an instant vector selector or range vector selector or \
                           a subquery";
            return Err(self.error(whole, message));
        };
        if modified.offset.is_some() {
            return Err(self.error(whole, "offset may not be set multiple times"));
        }
        *modified.offset = Some(offset).filter(|offset| *offset != Extent::Literal(0));
        modified.position.end = end;
        self.node(node.expr, max(node.height - 1, height))
    }

    /// Parses `anchored` or `smoothed` behind a selector.
    pub(super) fn range_mode(&mut self, mut node: Node) -> Result<Node, ParseError> {
        let token = self.next()?;
        let whole = node.expr.position();
        let (mode, name) = match token.kind {
            TokenKind::Keyword(Keyword::Anchored) => (RangeMode::Anchored, "anchored"),
            _ => (RangeMode::Smoothed, "smoothed"),
        };
        let selector = match &mut node.expr {
            Expr::Vector(selector) => selector.as_mut(),
            Expr::Matrix(matrix) => &mut matrix.selector,
            Expr::Subquery(_) => {
                return Err(self.error(whole, format!("{name} modifier is not supported for subqueries")));
            }
            _ => return Err(self.error(whole, format!("{name} modifier not implemented"))),
        };
        if selector.range_mode != RangeMode::Plain && selector.range_mode != mode {
            return Err(self.error(whole, "anchored and smoothed modifiers cannot be used together"));
        }
        selector.range_mode = mode;
        Ok(node)
    }
}

/// What `@` and `offset` behind the expression change, if they may stand there.
fn modified(expr: &mut Expr) -> Option<Modified<'_>> {
    match expr {
        Expr::Vector(selector) => {
            let VectorSelector { at, offset, position, .. } = selector.as_mut();
            Some(Modified { at, offset, position })
        }
        Expr::Matrix(matrix) => {
            let MatrixSelector { selector: VectorSelector { at, offset, .. }, position, .. } = matrix.as_mut();
            Some(Modified { at, offset, position })
        }
        Expr::Subquery(subquery) => {
            let Subquery { at, offset, position, .. } = subquery.as_mut();
            Some(Modified { at, offset, position })
        }
        _ => None,
    }
}

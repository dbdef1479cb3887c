//! Makes a tree out of tokens: by precedence climbing, with one token of look-ahead.
//!
//! This file has the entry points, expressions and calls; `selector` what stands in braces and brackets and behind
//! them, `duration` the arithmetic in there, `matching` the modifiers of operators and aggregations. What the grammar
//! lets through but the types don't is `check`'s.
//!
//! The text's length, the tree's height and the number of regular expressions are bounded, so that no text can exhaust
//! the stack or the memory, here or in the functions that walk the tree after us.
//!
//! Where we differ from Prometheus, on purpose: labels and matchers must be UTF-8, as stored ones are (there, `{a="\xff"}`
//! parses and matches nothing); a duration is never NaN; `0xee` and `a[step():1m]` are understood (there, the lexer
//! stumbles over them); `info(a, {})` and `6s831ms` are printed so (there, as `info(a, )` and `6s830ms`).

mod duration;
mod matching;
mod selector;

use std::cmp::max;
use std::mem::replace;

use model::{Labels, Matcher};

use crate::ast::{
    Aggregate, AggregateOp, Binary, BinaryOp, Call, Expr, NumberLiteral, Paren, PositionRange, StringLiteral, Unary,
};
use crate::check::check;
use crate::duration::parse_duration;
use crate::error::ParseError;
use crate::function::Function;
use crate::lexer::{Keyword, Lexer, Token, TokenKind};
use crate::literal::{parse_number, quote, unquote};

/// The longest text that is parsed. Dashboards stay below some ten kilobytes; this leaves room for generated ones.
pub const TEXT_BYTES_MAX: usize = 1 << 20;

/// The height of the highest tree: each operator of a chain such as `a + b + c` adds one, as each parenthesis does.
/// Whoever walks a tree recursively pays for it in stack; a thread has 2 MiB as a rule.
pub const HEIGHT_MAX: u32 = 256;

/// How deep parentheses, calls, signs and right operands may lie in one another. Fewer than [`HEIGHT_MAX`], as here the
/// parser itself recurses: without optimization it was seen to take 9 KiB a level, and a walk of the tree 2.5 KiB.
const NESTING_MAX: u32 = 128;

/// The most matchers with a regular expression in one text: compiled, each may take some megabytes.
const REGEXES_MAX: usize = 512;

/// Parses an expression and checks its types.
///
/// The language is Prometheus 3.14's with everything experimental on: functions, duration expressions, `anchored` and
/// `smoothed`, `fill`. Linear in the text's length.
///
/// Errors: the first thing that is wrong, with its place.
pub fn parse(text: &str) -> Result<Expr, ParseError> {
    let mut parser = Parser::new(text)?;
    if parser.peek()?.kind == TokenKind::End {
        return Err(ParseError::new(text, PositionRange::default(), "no expression found in input"));
    }
    let mut expr = parser.expr(0)?.expr;
    parser.expect_end()?;
    check(&mut expr, text)?;
    Ok(expr)
}

/// Parses what `match[]` takes: one instant vector selector without modifiers; returns its matchers.
///
/// Whether they may all be satisfied by an empty value is left to the caller.
///
/// Errors: anything else.
pub fn parse_matchers(text: &str) -> Result<Vec<Matcher>, ParseError> {
    let mut parser = Parser::new(text)?;
    let token = parser.next()?;
    let selector = match token.kind {
        TokenKind::LeftBrace => parser.selector_in_braces(token, None)?,
        _ if is_metric_name(token.kind) => parser.selector(token)?,
        _ => return Err(parser.unexpected(token)),
    };
    parser.expect_end()?;
    Ok(selector.matchers)
}

/// Parses the label set that `text` starts with, such as `up{job="a"}`, `{"my.metric", job="a"}` or nothing at all;
/// returns it and the text behind it.
///
/// A brace belongs to it only directly behind the name, as series in test scripts may have values that start with one.
///
/// Errors: a matcher other than `=`, a label given twice, and what is no label set.
pub fn parse_labels(text: &str) -> Result<(Labels, &str), ParseError> {
    let mut parser = Parser::new(text)?;
    let labels = parser.labels()?;
    Ok((labels, parser.lexer.rest()))
}

/// An expression and the height of its tree, with the trees of its durations.
struct Node {
    expr: Expr,
    height: u32,
}

/// See the module.
struct Parser<'a> {
    text: &'a str,
    lexer: Lexer<'a>,
    peeked: Option<Token>,
    /// The end of the last token that was taken.
    end: u32,
    /// How many expressions are being parsed, each in the one before it.
    depth: u32,
    /// What the errors about an unexpected token say they are in, and what was expected; both may be empty.
    context: (&'static str, &'static str),
    regexes: usize,
}

impl<'a> Parser<'a> {
    fn new(text: &'a str) -> Result<Parser<'a>, ParseError> {
        if text.len() > TEXT_BYTES_MAX {
            let message = format!("the text has {} bytes, more than the {TEXT_BYTES_MAX} that are allowed", text.len());
            return Err(ParseError::new(text, PositionRange::default(), message));
        }
        Ok(Parser { text, lexer: Lexer::new(text), peeked: None, end: 0, depth: 0, context: ("", ""), regexes: 0 })
    }

    fn peek(&mut self) -> Result<Token, ParseError> {
        match self.peeked {
            Some(token) => Ok(token),
            None => Ok(*self.peeked.insert(self.lexer.next()?)),
        }
    }

    fn next(&mut self) -> Result<Token, ParseError> {
        let token = self.peek()?;
        self.peeked = None;
        self.end = token.position.end;
        Ok(token)
    }

    /// Takes the next token if it is of this kind.
    fn take(&mut self, kind: TokenKind) -> Result<Option<Token>, ParseError> {
        Ok(if self.peek()?.kind == kind { Some(self.next()?) } else { None })
    }

    fn expect(&mut self, kind: TokenKind) -> Result<Token, ParseError> {
        let (context, expected) = self.context;
        self.expect_in(kind, context, expected)
    }

    fn expect_in(&mut self, kind: TokenKind, context: &str, expected: &str) -> Result<Token, ParseError> {
        let token = self.next()?;
        if token.kind == kind { Ok(token) } else { Err(self.unexpected_in(token, context, expected)) }
    }

    fn expect_end(&mut self) -> Result<(), ParseError> {
        self.expect(TokenKind::End).map(|_| ())
    }

    fn text_of(&self, token: Token) -> &'a str {
        &self.text[token.position.start as usize..token.position.end as usize]
    }

    /// From `start` to the end of the last token that was taken.
    fn since(&self, start: u32) -> PositionRange {
        PositionRange { start, end: self.end }
    }

    fn error(&self, position: PositionRange, message: impl Into<String>) -> ParseError {
        ParseError::new(self.text, position, message)
    }

    /// An error about a token that has no place where the parser is.
    fn unexpected(&self, token: Token) -> ParseError {
        let (context, expected) = self.context;
        self.unexpected_in(token, context, expected)
    }

    /// An error in Prometheus's words: `unexpected <op:*> in CONTEXT, expected EXPECTED`.
    fn unexpected_in(&self, token: Token, context: &str, expected: &str) -> ParseError {
        let mut message = format!("unexpected {}", self.describe(token));
        if !context.is_empty() {
            message.push_str(" in ");
            message.push_str(context);
        }
        if !expected.is_empty() {
            message.push_str(", expected ");
            message.push_str(expected);
        }
        self.error(token.position, message)
    }

    fn describe(&self, token: Token) -> String {
        let text = self.text_of(token);
        let quoted = match text.char_indices().nth(10) {
            Some((i, _)) => format!("{}...", quote(&text.as_bytes()[..i])),
            None => quote(text.as_bytes()),
        };
        match token.kind {
            TokenKind::End => "end of input".to_owned(),
            TokenKind::Identifier => format!("identifier {}", quote(text.as_bytes())),
            TokenKind::MetricIdentifier => format!("metric identifier {}", quote(text.as_bytes())),
            TokenKind::Number => format!("number {quoted}"),
            TokenKind::Duration => format!("duration {quoted}"),
            TokenKind::String => format!("string {quoted}"),
            TokenKind::Operator(_) | TokenKind::At | TokenKind::Regex | TokenKind::NotRegex => format!("<op:{text}>"),
            TokenKind::Aggregate(_) => format!("<aggr:{text}>"),
            TokenKind::Keyword(keyword) if function_name(keyword).is_none() => format!("<{text}>"),
            _ => quoted,
        }
    }

    /// Wraps an expression over trees of which the highest has the height `below`.
    fn node(&self, expr: Expr, below: u32) -> Result<Node, ParseError> {
        let height = self.height_over(below, expr.position())?;
        Ok(Node { expr, height })
    }

    /// The height of a tree over others of which the highest has the height `below`.
    fn height_over(&self, below: u32, position: PositionRange) -> Result<u32, ParseError> {
        if below >= HEIGHT_MAX {
            let message = format!("more than {HEIGHT_MAX} operators or parentheses lie in one another");
            return Err(self.error(position, message));
        }
        Ok(below + 1)
    }

    /// Counts one more level of the parser's own recursion, while `parse` runs.
    fn deeper<T>(&mut self, parse: impl FnOnce(&mut Self) -> Result<T, ParseError>) -> Result<T, ParseError> {
        if self.depth >= NESTING_MAX {
            let position = self.peek()?.position;
            return Err(self.error(position, format!("nested more than {NESTING_MAX} levels deep")));
        }
        self.depth += 1;
        let parsed = parse(self);
        self.depth -= 1;
        parsed
    }

    /// Parses an expression whose operators bind at least as tightly as `power_min`; see [`binding_power`].
    fn expr(&mut self, power_min: u8) -> Result<Node, ParseError> {
        self.deeper(|parser| {
            let mut node = parser.operand()?;
            loop {
                node = match parser.peek()?.kind {
                    // Modifiers and brackets bind more tightly than any operator.
                    TokenKind::LeftBracket => parser.window(node)?,
                    TokenKind::At => parser.at(node)?,
                    TokenKind::Keyword(Keyword::Offset) => parser.offset(node)?,
                    TokenKind::Keyword(Keyword::Anchored | Keyword::Smoothed) => parser.range_mode(node)?,
                    TokenKind::Operator(op) if binding_power(op) >= power_min => parser.binary(op, node)?,
                    _ => return Ok(node),
                };
            }
        })
    }

    /// Parses an expression up to its first operator or modifier.
    fn operand(&mut self) -> Result<Node, ParseError> {
        let token = self.next()?;
        match token.kind {
            TokenKind::Number | TokenKind::Duration => {
                let literal = self.number(token)?;
                self.node(Expr::Number(literal), 0)
            }
            TokenKind::String => {
                let literal = self.string(token)?;
                self.node(Expr::String(literal), 0)
            }
            TokenKind::LeftParen => self.paren(token),
            TokenKind::LeftBrace => {
                let selector = self.selector_in_braces(token, None)?;
                self.node(Expr::Vector(Box::new(selector)), 0)
            }
            TokenKind::Operator(BinaryOp::Add | BinaryOp::Sub) => self.unary(token),
            TokenKind::Aggregate(op) if self.aggregation_follows()? => self.aggregate(op, token),
            TokenKind::Identifier if self.peek()?.kind == TokenKind::LeftParen => self.call(token),
            TokenKind::Keyword(keyword)
                if function_name(keyword).is_some() && self.peek()?.kind == TokenKind::LeftParen =>
            {
                self.call(token)
            }
            kind if is_metric_name(kind) => {
                let selector = self.selector(token)?;
                self.node(Expr::Vector(Box::new(selector)), 0)
            }
            _ => Err(self.unexpected(token)),
        }
    }

    fn number(&mut self, token: Token) -> Result<NumberLiteral, ParseError> {
        let text = self.text_of(token);
        let is_duration = token.kind == TokenKind::Duration;
        let value = if is_duration { parse_duration(text).map(seconds) } else { parse_number(text) };
        let value = value.map_err(|message| self.error(token.position, message))?;
        Ok(NumberLiteral { value, is_duration, position: token.position })
    }

    /// Parses a number or duration, perhaps with a sign, outside of expressions.
    fn signed_number(&mut self, context: &str, expected: &str) -> Result<f64, ParseError> {
        let mut token = self.next()?;
        let negate = token.kind == TokenKind::Operator(BinaryOp::Sub);
        if negate || token.kind == TokenKind::Operator(BinaryOp::Add) {
            token = self.next()?;
        }
        if !matches!(token.kind, TokenKind::Number | TokenKind::Duration) {
            return Err(self.unexpected_in(token, context, expected));
        }
        let value = self.number(token)?.value;
        Ok(if negate { -value } else { value })
    }

    fn string(&mut self, token: Token) -> Result<StringLiteral, ParseError> {
        let bytes = unquote(self.text_of(token)).map_err(|message| self.error(token.position, message))?;
        let position = token.position;
        Ok(match String::from_utf8(bytes) {
            Ok(value) => StringLiteral { value, raw: None, position },
            Err(error) => StringLiteral {
                value: String::from_utf8_lossy(error.as_bytes()).into_owned(),
                raw: Some(error.into_bytes().into()),
                position,
            },
        })
    }

    /// A text that becomes part of a label or matcher, which only know UTF-8.
    fn utf8(&mut self, token: Token) -> Result<String, ParseError> {
        let literal = self.string(token)?;
        match literal.raw {
            None => Ok(literal.value),
            Some(_) => Err(self.error(token.position, "a label's name or value is not UTF-8")),
        }
    }

    fn paren(&mut self, open: Token) -> Result<Node, ParseError> {
        let Node { expr, height } = self.expr(0)?;
        self.expect(TokenKind::RightParen)?;
        let position = self.since(open.position.start);
        self.node(Expr::Paren(Box::new(Paren { expr, position })), height)
    }

    fn unary(&mut self, sign: Token) -> Result<Node, ParseError> {
        let negate = sign.kind == TokenKind::Operator(BinaryOp::Sub);
        let start = sign.position.start;
        // As in mathematics, -a^b is -(a^b), but -a*b is (-a)*b.
        let Node { expr, height } = self.expr(binding_power(BinaryOp::Pow))?;
        match expr {
            Expr::Number(literal) => {
                let number = signed(literal, negate, start);
                Ok(Node { expr: Expr::Number(number), height })
            }
            expr => {
                let position = PositionRange { start, end: expr.position().end };
                self.node(Expr::Unary(Box::new(Unary { negate, expr, position })), height)
            }
        }
    }

    fn binary(&mut self, op: BinaryOp, left: Node) -> Result<Node, ParseError> {
        self.next()?;
        let (return_bool, matching) = self.matching()?;
        // To the right of an operator that binds to the left, its equals end the operand.
        let right = self.expr(binding_power(op) + u8::from(op != BinaryOp::Pow))?;
        let (lhs, rhs) = (left.expr, right.expr);
        let position = PositionRange { start: lhs.position().start, end: rhs.position().end };
        let binary = Binary { op, lhs, rhs, return_bool, matching: Some(matching), position };
        self.node(Expr::Binary(Box::new(binary)), max(left.height, right.height))
    }

    fn call(&mut self, name: Token) -> Result<Node, ParseError> {
        let (args, height) = self.args()?;
        let Some(function) = Function::from_name(self.text_of(name)) else {
            let message = format!("unknown function with name {}", quote(self.text_of(name).as_bytes()));
            return Err(self.error(name.position, message));
        };
        let position = self.since(name.position.start);
        self.node(Expr::Call(Box::new(Call { function, args, position })), height)
    }

    /// Parses arguments in parentheses; returns the height of the highest with them.
    fn args(&mut self) -> Result<(Vec<Expr>, u32), ParseError> {
        self.expect(TokenKind::LeftParen)?;
        let mut args = Vec::new();
        let mut height = 0;
        if self.take(TokenKind::RightParen)?.is_some() {
            return Ok((args, height));
        }
        loop {
            let node = self.expr(0)?;
            args.push(node.expr);
            height = max(height, node.height);
            let Some(comma) = self.take(TokenKind::Comma)? else { break };
            if self.peek()?.kind == TokenKind::RightParen {
                return Err(self.error(comma.position, "trailing commas not allowed in function call args"));
            }
        }
        self.expect(TokenKind::RightParen)?;
        Ok((args, height))
    }

    /// Whether the aggregation's name that was just taken is one, and not a metric's name.
    fn aggregation_follows(&mut self) -> Result<bool, ParseError> {
        let kind = self.peek()?.kind;
        Ok(matches!(kind, TokenKind::LeftParen | TokenKind::Keyword(Keyword::By | Keyword::Without)))
    }

    fn aggregate(&mut self, op: AggregateOp, name: Token) -> Result<Node, ParseError> {
        let before = self.grouping()?;
        let outer = replace(&mut self.context, ("aggregation", ""));
        let (mut args, height) = self.args()?;
        self.context = outer;
        let grouping = if before.is_some() { before } else { self.grouping()? };
        let (without, grouping) = grouping.unwrap_or_default();
        let position = self.since(name.position.start);

        let expected = 1 + usize::from(op.param_type().is_some());
        if args.len() != expected {
            return Err(self.wrong_aggregate_args(args.len(), expected, position));
        }
        let param = if expected == 2 { Some(args.swap_remove(0)) } else { None };
        let Some(expr) = args.pop() else { return Err(self.wrong_aggregate_args(0, expected, position)) };
        let aggregate = Aggregate { op, param, expr, without, grouping, position };
        self.node(Expr::Aggregate(Box::new(aggregate)), height)
    }

    fn wrong_aggregate_args(&self, count: usize, expected: usize, position: PositionRange) -> ParseError {
        let message = match count {
            0 => "no arguments for aggregate expression provided".to_owned(),
            _ => {
                format!("wrong number of arguments for aggregate expression provided, expected {expected}, got {count}")
            }
        };
        self.error(position, message)
    }
}

/// A duration's seconds, to the last bit as Go works them out.
fn seconds(ms: i64) -> f64 {
    (ms / 1000) as f64 + (ms % 1000 * 1_000_000) as f64 / 1e9
}

/// Which operators bind more tightly: the higher. All but `^` bind to the left.
fn binding_power(op: BinaryOp) -> u8 {
    match op {
        BinaryOp::Or => 1,
        BinaryOp::And | BinaryOp::Unless => 2,
        BinaryOp::Add | BinaryOp::Sub => 4,
        BinaryOp::Mul | BinaryOp::Div | BinaryOp::Mod | BinaryOp::Atan2 => 5,
        BinaryOp::Pow => 6,
        _ => 3,
    }
}

/// The literal with a sign before it.
fn signed(literal: NumberLiteral, negate: bool, start: u32) -> NumberLiteral {
    let value = if negate { -literal.value } else { literal.value };
    NumberLiteral { value, position: PositionRange { start, ..literal.position }, ..literal }
}

/// The function that a keyword names where a parenthesis follows.
fn function_name(keyword: Keyword) -> Option<Function> {
    match keyword {
        Keyword::Start => Some(Function::Start),
        Keyword::End => Some(Function::End),
        Keyword::Step => Some(Function::Step),
        Keyword::Range => Some(Function::Range),
        Keyword::MaxOf => Some(Function::MaxOf),
        Keyword::MinOf => Some(Function::MinOf),
        _ => None,
    }
}

/// Whether a token may be a metric's name, where no other meaning of it fits.
fn is_metric_name(kind: TokenKind) -> bool {
    match kind {
        TokenKind::Identifier | TokenKind::MetricIdentifier | TokenKind::Aggregate(_) => true,
        TokenKind::Operator(op) => op.is_set(),
        TokenKind::Keyword(keyword) => !matches!(
            keyword,
            Keyword::Bool | Keyword::On | Keyword::Ignoring | Keyword::GroupLeft | Keyword::GroupRight
        ),
        _ => false,
    }
}

#[cfg(test)]
mod tests;

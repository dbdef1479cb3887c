//! Lengths of time in selectors: literals, and arithmetic with them.

use std::cmp::max;

use super::{Parser, binding_power, signed};
use crate::ast::{BinaryOp, DurationBinary, DurationExpr, DurationOp, Extent, NumberLiteral, PositionRange};
use crate::error::ParseError;
use crate::lexer::{Keyword, Token, TokenKind};

/// The most seconds that a literal may have either way: what Prometheus's 64 bits of nanoseconds hold.
const SECONDS_MAX: f64 = (1_u64 << 63) as f64 / 1e9;

/// A duration expression and the height of its tree.
struct Node {
    expr: DurationExpr,
    height: u32,
}

impl Parser<'_> {
    /// Parses a range or step; returns the height of its tree with it.
    ///
    /// Errors: `expected` names what should have come if it starts with something else; a literal that is not positive.
    pub(super) fn extent(&mut self, context: &str, expected: &str) -> Result<(Extent, u32), ParseError> {
        self.see_duration(context, expected)?;
        let Node { expr, height } = self.duration(0)?;
        match &expr {
            DurationExpr::Number(literal) if literal.value <= 0.0 => {
                Err(self.error(literal.position, "duration must be greater than 0"))
            }
            _ => Ok((to_extent(expr), height)),
        }
    }

    /// Parses what follows `offset`: one operand, so that `a offset 5m + b` adds `b` to the selector.
    pub(super) fn offset_extent(&mut self, expected: &str) -> Result<(Extent, u32), ParseError> {
        self.see_duration("offset", expected)?;
        let Node { expr, height } = self.offset_operand()?;
        Ok((to_extent(expr), height))
    }

    fn see_duration(&mut self, context: &str, expected: &str) -> Result<(), ParseError> {
        let token = self.peek()?;
        let starts_duration = match token.kind {
            TokenKind::Number | TokenKind::Duration | TokenKind::LeftParen => true,
            TokenKind::Operator(BinaryOp::Add | BinaryOp::Sub) => true,
            TokenKind::Keyword(Keyword::Step | Keyword::Range | Keyword::MinOf | Keyword::MaxOf) => true,
            _ => false,
        };
        if starts_duration { Ok(()) } else { Err(self.unexpected(token, context, expected)) }
    }

    fn offset_operand(&mut self) -> Result<Node, ParseError> {
        let token = self.peek()?;
        match token.kind {
            // Here a sign binds more tightly than `^`: a offset -2^2 is (a offset -2)^2.
            TokenKind::Operator(BinaryOp::Add | BinaryOp::Sub) => {
                self.next()?;
                let operand = self.deeper(Self::offset_operand)?;
                self.with_sign(token, operand)
            }
            _ => self.duration_operand(),
        }
    }

    /// Parses a duration expression whose operators bind at least as tightly as `power_min`.
    fn duration(&mut self, power_min: u8) -> Result<Node, ParseError> {
        self.deeper(|parser| {
            let mut node = parser.duration_operand()?;
            loop {
                let token = parser.peek()?;
                let Some((binary_op, op)) = duration_op(token.kind) else { return Ok(node) };
                let power = binding_power(binary_op);
                if power < power_min {
                    return Ok(node);
                }
                parser.next()?;
                let right = parser.duration(power + u8::from(op != DurationOp::Pow))?;
                parser.refuse_zero_divisor(op, token, &right.expr)?;
                let position = PositionRange { start: node.expr.position().start, end: right.expr.position().end };
                node = parser.duration_binary(op, node, right, position)?;
            }
        })
    }

    fn duration_operand(&mut self) -> Result<Node, ParseError> {
        let token = self.next()?;
        let start = token.position.start;
        match token.kind {
            TokenKind::Number | TokenKind::Duration => {
                let literal = self.number(token)?;
                let literal = self.in_range(literal, token)?;
                Ok(Node { expr: DurationExpr::Number(literal), height: 1 })
            }
            TokenKind::Operator(BinaryOp::Add | BinaryOp::Sub) => {
                let operand = self.duration(binding_power(BinaryOp::Pow))?;
                self.with_sign(token, operand)
            }
            TokenKind::LeftParen => {
                let inner = self.duration(0)?;
                self.expect(TokenKind::RightParen, "", "")?;
                self.in_parens(inner, start)
            }
            TokenKind::Keyword(Keyword::Step | Keyword::Range) => {
                self.expect(TokenKind::LeftParen, "", "")?;
                self.expect(TokenKind::RightParen, "", "")?;
                let position = self.since(start);
                let is_step = token.kind == TokenKind::Keyword(Keyword::Step);
                let expr = if is_step { DurationExpr::Step(position) } else { DurationExpr::Range(position) };
                Ok(Node { expr, height: 1 })
            }
            TokenKind::Keyword(Keyword::MinOf) => self.least_or_most(DurationOp::Min, start),
            TokenKind::Keyword(Keyword::MaxOf) => self.least_or_most(DurationOp::Max, start),
            _ => Err(self.unexpected(token, "", "")),
        }
    }

    /// The function's name has been taken.
    fn least_or_most(&mut self, op: DurationOp, start: u32) -> Result<Node, ParseError> {
        self.expect(TokenKind::LeftParen, "", "")?;
        let left = self.duration(0)?;
        self.expect(TokenKind::Comma, "", "")?;
        let right = self.duration(0)?;
        self.expect(TokenKind::RightParen, "", "")?;
        let position = self.since(start);
        self.duration_binary(op, left, right, position)
    }

    fn duration_binary(
        &self,
        op: DurationOp,
        left: Node,
        right: Node,
        position: PositionRange,
    ) -> Result<Node, ParseError> {
        let binary = DurationBinary { op, lhs: left.expr, rhs: right.expr, position };
        self.duration_node(DurationExpr::Binary(Box::new(binary)), max(left.height, right.height))
    }

    fn with_sign(&self, sign: Token, operand: Node) -> Result<Node, ParseError> {
        let negate = sign.kind == TokenKind::Operator(BinaryOp::Sub);
        let start = sign.position.start;
        match operand.expr {
            DurationExpr::Number(literal) => {
                let expr = DurationExpr::Number(signed(literal, negate, start));
                Ok(Node { expr, height: operand.height })
            }
            expr if negate => {
                let position = PositionRange { start, end: expr.position().end };
                self.duration_node(DurationExpr::Negate(Box::new(expr), position), operand.height)
            }
            expr => Ok(Node { expr, height: operand.height }),
        }
    }

    /// Twice the parentheses say no more than once, as Prometheus's canonical form has it.
    fn in_parens(&self, inner: Node, start: u32) -> Result<Node, ParseError> {
        let position = self.since(start);
        match inner.expr {
            DurationExpr::Paren(expr, _) => {
                Ok(Node { expr: DurationExpr::Paren(expr, position), height: inner.height })
            }
            expr => self.duration_node(DurationExpr::Paren(Box::new(expr), position), inner.height),
        }
    }

    fn duration_node(&self, expr: DurationExpr, below: u32) -> Result<Node, ParseError> {
        if below >= super::HEIGHT_MAX {
            return Err(self.too_deep(expr.position()));
        }
        Ok(Node { expr, height: below + 1 })
    }

    fn in_range(&self, literal: NumberLiteral, token: Token) -> Result<NumberLiteral, ParseError> {
        if literal.value.abs() > SECONDS_MAX {
            return Err(self.error(token.position, "duration out of range"));
        }
        Ok(literal)
    }

    fn refuse_zero_divisor(&self, op: DurationOp, token: Token, divisor: &DurationExpr) -> Result<(), ParseError> {
        let message = match op {
            DurationOp::Div => "division by zero",
            DurationOp::Mod => "modulo by zero",
            _ => return Ok(()),
        };
        match divisor {
            DurationExpr::Number(literal) if literal.value == 0.0 => Err(self.error(token.position, message)),
            _ => Ok(()),
        }
    }
}

/// The operators that durations know.
fn duration_op(kind: TokenKind) -> Option<(BinaryOp, DurationOp)> {
    let TokenKind::Operator(op) = kind else { return None };
    let duration_op = match op {
        BinaryOp::Add => DurationOp::Add,
        BinaryOp::Sub => DurationOp::Sub,
        BinaryOp::Mul => DurationOp::Mul,
        BinaryOp::Div => DurationOp::Div,
        BinaryOp::Mod => DurationOp::Mod,
        BinaryOp::Pow => DurationOp::Pow,
        _ => return None,
    };
    Some((op, duration_op))
}

fn to_extent(expr: DurationExpr) -> Extent {
    match expr {
        // Prometheus rounds to nanoseconds first, and drops those later.
        DurationExpr::Number(literal) => Extent::Literal((literal.value * 1e9).round() as i64 / 1_000_000),
        expr => Extent::Expr(Box::new(expr)),
    }
}

//! Lengths of time in selectors: literals, and arithmetic with them.

use std::cmp::max;
use std::mem::replace;

use super::{Parser, binding_power, signed};
use crate::ast::{BinaryOp, DurationBinary, DurationExpr, DurationOp, Extent, NumberLiteral, PositionRange};
use crate::error::ParseError;
use crate::lexer::{Keyword, Token, TokenKind};

/// The most seconds that a literal may have either way: what Prometheus's 64 bits of nanoseconds hold.
const SECONDS_MAX: f64 = (1_u64 << 63) as f64 / 1e9;

/// What messages say where no duration starts.
pub(super) const A_DURATION: &str = "number, duration, step(), or range()";

/// A duration expression and the height of its tree.
struct Node {
    expr: DurationExpr,
    height: u32,
}

impl Parser<'_> {
    /// Parses a range or step; returns the height of its tree with it.
    ///
    /// Errors: a literal that is not positive; anything else than a duration, in the words of `context`.
    pub(super) fn extent(&mut self, context: (&'static str, &'static str)) -> Result<(Extent, u32), ParseError> {
        let outer = replace(&mut self.context, context);
        let Node { expr, height } = self.duration(0)?;
        self.context = outer;
        match &expr {
            DurationExpr::Number(literal) if literal.value <= 0.0 => {
                Err(self.error(literal.position, "duration must be greater than 0"))
            }
            _ => Ok((to_extent(expr), height)),
        }
    }

    /// Parses what follows `offset`; returns the height of its tree with it.
    pub(super) fn offset_extent(&mut self) -> Result<(Extent, u32), ParseError> {
        let outer = replace(&mut self.context, ("offset", A_DURATION));
        let Node { expr, height } = self.offset_operand()?;
        self.context = outer;
        Ok((to_extent(expr), height))
    }

    /// Where an offset ends is a quirk of Prometheus's grammar: a literal, a function or a signed parenthesis is all of it,
    /// so that `a offset -2 ^ 2` is `(a offset -2) ^ 2`; but what starts with a parenthesis, or with two signs, goes on
    /// as far as it can, and `a offset (5m) + 3` looks back by five minutes and three seconds.
    fn offset_operand(&mut self) -> Result<Node, ParseError> {
        let first = self.peek()?;
        if first.kind == TokenKind::LeftParen {
            return self.duration(0);
        }
        if !is_sign(first) {
            return self.duration_operand();
        }
        self.next()?;
        if is_sign(self.peek()?) {
            let operand = self.duration(binding_power(BinaryOp::Pow))?;
            let signed = self.with_sign(first, operand)?;
            return self.duration_operators(signed, 0);
        }
        let operand = self.duration_operand()?;
        self.with_sign(first, operand)
    }

    /// Parses a duration expression whose operators bind at least as tightly as `power_min`.
    fn duration(&mut self, power_min: u8) -> Result<Node, ParseError> {
        self.deeper(|parser| {
            let first = parser.duration_operand()?;
            parser.duration_operators(first, power_min)
        })
    }

    /// Parses the operators behind `left`, and their right operands.
    fn duration_operators(&mut self, left: Node, power_min: u8) -> Result<Node, ParseError> {
        let mut node = left;
        loop {
            let token = self.peek()?;
            let Some((binary_op, op)) = duration_op(token.kind) else { return Ok(node) };
            let power = binding_power(binary_op);
            if power < power_min {
                return Ok(node);
            }
            self.next()?;
            let right = self.duration(power + u8::from(op != DurationOp::Pow))?;
            self.refuse_zero_divisor(op, token, &right.expr)?;
            let position = PositionRange { start: node.expr.position().start, end: right.expr.position().end };
            node = self.duration_binary(op, node, right, position)?;
        }
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
                self.expect(TokenKind::RightParen)?;
                self.in_parens(inner, start)
            }
            TokenKind::Keyword(Keyword::Step | Keyword::Range) => {
                self.expect(TokenKind::LeftParen)?;
                self.expect(TokenKind::RightParen)?;
                let position = self.since(start);
                let is_step = token.kind == TokenKind::Keyword(Keyword::Step);
                let expr = if is_step { DurationExpr::Step(position) } else { DurationExpr::Range(position) };
                Ok(Node { expr, height: 1 })
            }
            TokenKind::Keyword(Keyword::MinOf) => self.least_or_most(DurationOp::Min, start),
            TokenKind::Keyword(Keyword::MaxOf) => self.least_or_most(DurationOp::Max, start),
            _ => Err(self.unexpected(token)),
        }
    }

    /// The function's name has been taken.
    fn least_or_most(&mut self, op: DurationOp, start: u32) -> Result<Node, ParseError> {
        self.expect(TokenKind::LeftParen)?;
        let left = self.duration(0)?;
        self.expect(TokenKind::Comma)?;
        let right = self.duration(0)?;
        self.expect(TokenKind::RightParen)?;
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
        let height = self.height_over(below, expr.position())?;
        Ok(Node { expr, height })
    }

    fn in_range(&self, literal: NumberLiteral, token: Token) -> Result<NumberLiteral, ParseError> {
        if literal.value.is_nan() || literal.value.abs() > SECONDS_MAX {
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

fn is_sign(token: Token) -> bool {
    matches!(token.kind, TokenKind::Operator(BinaryOp::Add | BinaryOp::Sub))
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

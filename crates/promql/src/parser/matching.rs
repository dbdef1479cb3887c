//! What stands between an operator and its right operand, and beside an aggregation: `bool`, `on`, `group_left`,
//! `fill`, `by` and their kin.

use super::Parser;
use crate::ast::{BinaryOp, Cardinality, VectorMatching};
use crate::error::ParseError;
use crate::lexer::{Keyword, TokenKind};
use crate::literal::quote;

const IN_GROUPING: &str = "grouping opts";

impl Parser<'_> {
    /// Parses an operator's modifiers; returns whether `bool` is one with the others.
    pub(super) fn matching(&mut self) -> Result<(bool, VectorMatching), ParseError> {
        let return_bool = self.take_keyword(Keyword::Bool)?;
        let mut matching = VectorMatching {
            cardinality: Cardinality::OneToOne,
            on: false,
            labels: Vec::new(),
            include: Vec::new(),
            fill_left: None,
            fill_right: None,
        };
        matching.on = self.take_keyword(Keyword::On)?;
        if matching.on || self.take_keyword(Keyword::Ignoring)? {
            matching.labels = self.grouping_labels()?;
            self.group_side(&mut matching)?;
        }
        self.fills(&mut matching)?;
        Ok((return_bool, matching))
    }

    fn group_side(&mut self, matching: &mut VectorMatching) -> Result<(), ParseError> {
        matching.cardinality = if self.take_keyword(Keyword::GroupLeft)? {
            Cardinality::ManyToOne
        } else if self.take_keyword(Keyword::GroupRight)? {
            Cardinality::OneToMany
        } else {
            return Ok(());
        };
        if self.peek()?.kind == TokenKind::LeftParen {
            matching.include = self.grouping_labels()?;
        }
        Ok(())
    }

    /// Parses `fill`, or `fill_left` and `fill_right` in either order.
    fn fills(&mut self, matching: &mut VectorMatching) -> Result<(), ParseError> {
        if self.take_keyword(Keyword::Fill)? {
            let value = self.fill_value()?;
            (matching.fill_left, matching.fill_right) = (Some(value), Some(value));
            return Ok(());
        }
        for _ in 0..2 {
            if matching.fill_left.is_none() && self.take_keyword(Keyword::FillLeft)? {
                matching.fill_left = Some(self.fill_value()?);
            } else if matching.fill_right.is_none() && self.take_keyword(Keyword::FillRight)? {
                matching.fill_right = Some(self.fill_value()?);
            }
        }
        Ok(())
    }

    fn fill_value(&mut self) -> Result<f64, ParseError> {
        self.expect(TokenKind::LeftParen)?;
        let (context, expected) = self.context;
        let value = self.signed_number(context, expected)?;
        self.expect(TokenKind::RightParen)?;
        Ok(value)
    }

    /// Parses an aggregation's `by (…)` or `without (…)` if one comes next; returns whether it is `without`, and the labels.
    pub(super) fn grouping(&mut self) -> Result<Option<(bool, Vec<String>)>, ParseError> {
        let without = self.take_keyword(Keyword::Without)?;
        if !without && !self.take_keyword(Keyword::By)? {
            return Ok(None);
        }
        Ok(Some((without, self.grouping_labels()?)))
    }

    fn grouping_labels(&mut self) -> Result<Vec<String>, ParseError> {
        self.expect_in(TokenKind::LeftParen, IN_GROUPING, r#""(""#)?;
        let mut labels = Vec::new();
        while self.take(TokenKind::RightParen)?.is_none() {
            labels.push(self.grouping_label()?);
            let token = self.peek()?;
            match token.kind {
                TokenKind::Comma => drop(self.next()?),
                TokenKind::RightParen => {}
                _ => return Err(self.unexpected_in(token, IN_GROUPING, r#""," or ")""#)),
            }
        }
        Ok(labels)
    }

    fn grouping_label(&mut self) -> Result<String, ParseError> {
        let token = self.next()?;
        match token.kind {
            TokenKind::String => {
                let name = self.utf8(token)?;
                match name.as_str() {
                    "" => {
                        let message = format!("invalid label name for grouping: {}", quote(b""));
                        Err(self.error(token.position, message))
                    }
                    _ => Ok(name),
                }
            }
            kind if is_label_name(kind) => Ok(self.text_of(token).to_owned()),
            _ => Err(self.unexpected_in(token, IN_GROUPING, "label")),
        }
    }

    fn take_keyword(&mut self, keyword: Keyword) -> Result<bool, ParseError> {
        Ok(self.take(TokenKind::Keyword(keyword))?.is_some())
    }
}

/// Whether a word may name a label in a list of them: all but `without` may.
fn is_label_name(kind: TokenKind) -> bool {
    match kind {
        TokenKind::Identifier | TokenKind::MetricIdentifier | TokenKind::Aggregate(_) => true,
        TokenKind::Operator(op) => op.is_set() || op == BinaryOp::Atan2,
        TokenKind::Keyword(keyword) => keyword != Keyword::Without,
        _ => false,
    }
}

//! Checks that the parts of an expression fit together, as Prometheus does after parsing.
//!
//! It also settles what the grammar leaves open: set operators pair many with many, and an operation without two
//! instant vectors pairs nothing.

use std::collections::HashSet;

use model::{METRIC_NAME, Matcher};

use crate::ast::{
    Aggregate, Binary, Call, Cardinality, Expr, PositionRange, Subquery, Unary, ValueType, VectorMatching,
    VectorSelector,
};
use crate::error::ParseError;
use crate::function::{Arity, Function};
use crate::literal::quote;

/// Checks `expr`, which was parsed from `text`.
pub(crate) fn check(expr: &mut Expr, text: &str) -> Result<(), ParseError> {
    Checker { text }.expr(expr).map(|_| ())
}

struct Checker<'a> {
    text: &'a str,
}

impl Checker<'_> {
    fn error(&self, position: PositionRange, message: impl Into<String>) -> ParseError {
        ParseError::new(self.text, position, message)
    }

    /// Checks an expression and all in it; returns its type.
    fn expr(&self, expr: &mut Expr) -> Result<ValueType, ParseError> {
        match expr {
            Expr::Number(_) => Ok(ValueType::Scalar),
            Expr::String(_) => Ok(ValueType::String),
            Expr::Vector(selector) => self.selector(selector).map(|()| ValueType::Vector),
            Expr::Matrix(matrix) => self.selector(&matrix.selector).map(|()| ValueType::Matrix),
            Expr::Subquery(subquery) => self.subquery(subquery).map(|()| ValueType::Matrix),
            Expr::Unary(unary) => self.unary(unary),
            Expr::Paren(paren) => self.expr(&mut paren.expr),
            Expr::Binary(binary) => self.binary(binary),
            Expr::Aggregate(aggregate) => self.aggregate(aggregate).map(|()| ValueType::Vector),
            Expr::Call(call) => self.call(call).map(|()| call.function.signature().returns),
        }
    }

    fn expect(&self, expr: &mut Expr, expected: ValueType, context: &str) -> Result<(), ParseError> {
        let found = self.expr(expr)?;
        if found == expected {
            return Ok(());
        }
        let (expected, found) = (expected.documented(), found.documented());
        Err(self.error(expr.position(), format!("expected type {expected} in {context}, got {found}")))
    }

    fn selector(&self, selector: &VectorSelector) -> Result<(), ParseError> {
        let Some((name, (_, in_braces))) = selector.name.as_ref().zip(selector.matchers.split_last()) else {
            if selector.matchers.iter().all(Matcher::matches_empty) {
                let message = "vector selector must contain at least one non-empty matcher";
                return Err(self.error(selector.position, message));
            }
            return Ok(());
        };
        match in_braces.iter().find(|matcher| matcher.name() == METRIC_NAME) {
            Some(matcher) => {
                let (first, second) = (quote(name.as_bytes()), quote(matcher.value().as_bytes()));
                let message = format!("metric name must not be set twice: {first} or {second}");
                Err(self.error(selector.position, message))
            }
            None => Ok(()),
        }
    }

    fn subquery(&self, subquery: &mut Subquery) -> Result<(), ParseError> {
        match self.expr(&mut subquery.expr)? {
            ValueType::Vector => Ok(()),
            other => {
                let message = format!("subquery is only allowed on instant vector, got {} instead", other.as_str());
                Err(self.error(subquery.position, message))
            }
        }
    }

    fn unary(&self, unary: &mut Unary) -> Result<ValueType, ParseError> {
        match self.expr(&mut unary.expr)? {
            found @ (ValueType::Scalar | ValueType::Vector) => Ok(found),
            other => {
                let message = format!(
                    "unary expression only allowed on expressions of type scalar or instant vector, got {:?}",
                    other.documented()
                );
                Err(self.error(unary.position, message))
            }
        }
    }

    fn aggregate(&self, aggregate: &mut Aggregate) -> Result<(), ParseError> {
        self.expect(&mut aggregate.expr, ValueType::Vector, "aggregation expression")?;
        match aggregate.param.as_mut().zip(aggregate.op.param_type()) {
            Some((param, expected)) => self.expect(param, expected, "aggregation parameter"),
            None => Ok(()),
        }
    }

    fn binary(&self, binary: &mut Binary) -> Result<ValueType, ParseError> {
        let left = self.expr(&mut binary.lhs)?;
        let right = self.expr(&mut binary.rhs)?;
        let scalars = left == ValueType::Scalar && right == ValueType::Scalar;
        if binary.return_bool && !binary.op.is_comparison() {
            let message = "bool modifier can only be used on comparison operators";
            return Err(self.error(self.operator_position(binary), message));
        }
        if scalars && binary.op.is_comparison() && !binary.return_bool {
            let message = "comparisons between scalars must use BOOL modifier";
            return Err(self.error(self.operator_position(binary), message));
        }
        if let Some(label) = binary.matching.as_ref().and_then(label_matched_and_included) {
            let message = format!("label {} must not occur in ON and GROUP clause at once", quote(label.as_bytes()));
            return Err(self.error(self.operator_position(binary), message));
        }
        for (operand, found) in [(&binary.lhs, left), (&binary.rhs, right)] {
            if !matches!(found, ValueType::Scalar | ValueType::Vector) {
                let message = "binary expression must contain only scalar and instant vector types";
                return Err(self.error(operand.position(), message));
            }
        }
        if left == ValueType::Vector && right == ValueType::Vector {
            self.vector_matching(binary)?;
        } else {
            self.no_vector_matching(binary)?;
        }
        Ok(if scalars { ValueType::Scalar } else { ValueType::Vector })
    }

    /// The bytes between the operands, without the blanks around them.
    fn operator_position(&self, binary: &Binary) -> PositionRange {
        let (start, end) = (binary.lhs.position().end, binary.rhs.position().start);
        let between = self.text.get(start as usize..end as usize).unwrap_or_default();
        let blanks = between.len() - between.trim_start().len();
        let start = start + blanks as u32;
        PositionRange { start, end: start + between.trim().len() as u32 }
    }

    /// Checks an operation on two instant vectors.
    fn vector_matching(&self, binary: &mut Binary) -> Result<(), ParseError> {
        let Some(matching) = binary.matching.as_mut().filter(|_| binary.op.is_set()) else { return Ok(()) };
        if matching.cardinality != Cardinality::OneToOne {
            let message = format!("no grouping allowed for {:?} operation", binary.op.as_str());
            return Err(self.error(binary.position, message));
        }
        matching.cardinality = Cardinality::ManyToMany;
        if has_fill(matching) {
            return Err(self.error(binary.position, "filling in missing series not allowed for set operators"));
        }
        Ok(())
    }

    /// Checks an operation with a scalar.
    fn no_vector_matching(&self, binary: &mut Binary) -> Result<(), ParseError> {
        if let Some(matching) = binary.matching.take() {
            if !matching.labels.is_empty() {
                return Err(self.error(binary.position, "vector matching only allowed between instant vectors"));
            }
            if has_fill(&matching) {
                let message = "filling in missing series only allowed between instant vectors";
                return Err(self.error(binary.position, message));
            }
        }
        if binary.op.is_set() {
            let message = format!("set operator {:?} not allowed in binary scalar expression", binary.op.as_str());
            return Err(self.error(binary.position, message));
        }
        Ok(())
    }

    fn call(&self, call: &mut Call) -> Result<(), ParseError> {
        self.arg_count(call)?;
        let signature = call.function.signature();
        let context = format!("call to function {:?}", signature.name);
        for (i, arg) in call.args.iter_mut().enumerate() {
            if call.function == Function::Info && i == 1 {
                self.info_labels(arg)?;
                continue;
            }
            // Arguments beyond the list are of the last one's type.
            if let Some(&expected) = signature.args.get(i).or(signature.args.last()) {
                self.expect(arg, expected, &context)?;
            }
        }
        Ok(())
    }

    fn arg_count(&self, call: &Call) -> Result<(), ParseError> {
        let signature = call.function.signature();
        let (listed, found) = (signature.args.len(), call.args.len());
        let (at_least, at_most) = match signature.arity {
            Arity::Exact => (listed, listed),
            Arity::UpTo(more) => (listed - 1, listed - 1 + more),
            Arity::Any => (listed - 1, usize::MAX),
        };
        if (at_least..=at_most).contains(&found) {
            return Ok(());
        }
        let expected = match signature.arity {
            Arity::Exact => listed.to_string(),
            _ if found < at_least => format!("at least {at_least}"),
            _ => format!("at most {at_most}"),
        };
        let name = signature.name;
        let message = format!("expected {expected} argument(s) in call to {name:?}, got {found}");
        Err(self.error(call.position, message))
    }

    /// The second argument of `info` says which labels to add: a selector without a name, which may match anything.
    fn info_labels(&self, arg: &mut Expr) -> Result<(), ParseError> {
        match arg {
            Expr::Vector(selector) if selector.name.is_none() => Ok(()),
            Expr::Vector(selector) => {
                let message = "expected label selectors only, got vector selector instead";
                Err(self.error(selector.position, message))
            }
            other => {
                self.expect(other, ValueType::Vector, r#"call to function "info""#)?;
                Err(self.error(other.position(), "expected label selectors only"))
            }
        }
    }
}

fn label_matched_and_included(matching: &VectorMatching) -> Option<&String> {
    // A set, as both lists may be as long as a text.
    let include: HashSet<_> = matching.include.iter().collect();
    matching.labels.iter().find(|label| matching.on && include.contains(label))
}

fn has_fill(matching: &VectorMatching) -> bool {
    matching.fill_left.is_some() || matching.fill_right.is_some()
}

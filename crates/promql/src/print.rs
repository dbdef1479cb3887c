//! Writes expressions in Prometheus's canonical form, which parses to the same tree again. (But for the order of a
//! selector's matchers, which it sorts, and `Inf ^ x`, which gets one more sign with no effect each time.)

use std::fmt::{self, Display, Formatter};

use model::{METRIC_NAME, MatchOp, Matcher};

use crate::ast::{
    Aggregate, At, Binary, Call, Cardinality, DurationExpr, DurationOp, Expr, Extent, MatrixSelector, NumberLiteral,
    RangeMode, StringLiteral, Subquery, Unary, VectorMatching, VectorSelector,
};
use crate::duration::format_duration;
use crate::literal::{format_number, format_number_short, is_plain_label_name, quote};

impl Display for Expr {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Expr::Number(literal) => literal.fmt(f),
            Expr::String(literal) => literal.fmt(f),
            Expr::Vector(selector) => selector.fmt(f),
            Expr::Matrix(selector) => selector.fmt(f),
            Expr::Subquery(subquery) => subquery.fmt(f),
            Expr::Unary(unary) => write!(f, "{}{}", sign(unary), unary.expr),
            Expr::Paren(paren) => write!(f, "({})", paren.expr),
            Expr::Binary(binary) => write!(f, "{} {} {}", binary.lhs, Operator(binary), binary.rhs),
            Expr::Aggregate(aggregate) => aggregate.fmt(f),
            Expr::Call(call) => call.fmt(f),
        }
    }
}

impl Display for NumberLiteral {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.is_duration {
            true => f.write_str(&format_duration((self.value * 1000.0).round() as i64)),
            false => f.write_str(&format_number(self.value)),
        }
    }
}

impl Display for StringLiteral {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&quote(self.raw.as_deref().unwrap_or(self.value.as_bytes())))
    }
}

impl Display for VectorSelector {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}{}{}", Series(self), AtModifier(self.at), self.range_mode, OffsetModifier(&self.offset))
    }
}

impl Display for MatrixSelector {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let VectorSelector { at, offset, range_mode, .. } = &self.selector;
        let (at, offset) = (AtModifier(*at), OffsetModifier(offset));
        write!(f, "{}[{}]{range_mode}{at}{offset}", Series(&self.selector), self.range)
    }
}

impl Display for Subquery {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.expr, Window(self))
    }
}

/// A subquery without its expression: `[1h:5m] @ 0.000 offset 1m`.
pub(crate) struct Window<'a>(pub(crate) &'a Subquery);

impl Display for Window<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Window(subquery) = self;
        write!(f, "[{}:", subquery.range)?;
        if let Some(step) = &subquery.step {
            step.fmt(f)?;
        }
        write!(f, "]{}{}", AtModifier(subquery.at), OffsetModifier(&subquery.offset))
    }
}

/// A selector without its modifiers.
struct Series<'a>(&'a VectorSelector);

impl Display for Series<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Series(selector) = self;
        let name = selector.name.as_deref().unwrap_or_default();
        let mut matchers: Vec<_> =
            selector.matchers.iter().filter(|matcher| !is_name(matcher, name)).map(format_matcher).collect();
        matchers.sort_unstable();
        f.write_str(name)?;
        if matchers.is_empty() && !name.is_empty() {
            return Ok(());
        }
        write!(f, "{{{}}}", matchers.join(","))
    }
}

/// Whether the matcher says what the name before the braces says already.
fn is_name(matcher: &Matcher, name: &str) -> bool {
    !name.is_empty() && (matcher.name(), matcher.op(), matcher.value()) == (METRIC_NAME, MatchOp::Equal, name)
}

fn format_matcher(matcher: &Matcher) -> String {
    format!("{}{}{}", LabelName(matcher.name()), matcher.op().as_str(), quote(matcher.value().as_bytes()))
}

struct AtModifier(Option<At>);

impl Display for AtModifier {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => Ok(()),
            Some(At::Timestamp(t)) => write!(f, " @ {:.3}", t as f64 / 1000.0),
            Some(At::Start) => f.write_str(" @ start()"),
            Some(At::End) => f.write_str(" @ end()"),
        }
    }
}

struct OffsetModifier<'a>(&'a Option<Extent>);

impl Display for OffsetModifier<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => Ok(()),
            Some(offset) => write!(f, " offset {offset}"),
        }
    }
}

impl Display for RangeMode {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            RangeMode::Plain => "",
            RangeMode::Anchored => " anchored",
            RangeMode::Smoothed => " smoothed",
        })
    }
}

impl Display for Extent {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Extent::Literal(ms) => f.write_str(&format_duration(*ms)),
            Extent::Expr(expr) => expr.fmt(f),
        }
    }
}

impl Display for DurationExpr {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            DurationExpr::Number(literal) => literal.fmt(f),
            DurationExpr::Step(_) => f.write_str("step()"),
            DurationExpr::Range(_) => f.write_str("range()"),
            DurationExpr::Negate(expr, _) => write!(f, "-{expr}"),
            DurationExpr::Paren(expr, _) => write!(f, "({expr})"),
            DurationExpr::Binary(binary) => {
                let (op, lhs, rhs) = (binary.op.as_str(), &binary.lhs, &binary.rhs);
                match binary.op {
                    DurationOp::Min | DurationOp::Max => write!(f, "{op}({lhs}, {rhs})"),
                    _ => write!(f, "{lhs} {op} {rhs}"),
                }
            }
        }
    }
}

pub(crate) fn sign(unary: &Unary) -> char {
    if unary.negate { '-' } else { '+' }
}

/// An operator with its modifiers: `== bool on (job)`.
pub(crate) struct Operator<'a>(pub(crate) &'a Binary);

impl Display for Operator<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Operator(binary) = self;
        let return_bool = if binary.return_bool { " bool" } else { "" };
        write!(f, "{}{return_bool}", binary.op.as_str())?;
        binary.matching.as_ref().map_or(Ok(()), |matching| write_matching(matching, f))
    }
}

fn write_matching(matching: &VectorMatching, f: &mut Formatter<'_>) -> fmt::Result {
    let group = match matching.cardinality {
        Cardinality::ManyToOne => Some("group_left"),
        Cardinality::OneToMany => Some("group_right"),
        Cardinality::OneToOne | Cardinality::ManyToMany => None,
    };
    if matching.on || !matching.labels.is_empty() || group.is_some() {
        write!(f, " {} ({})", if matching.on { "on" } else { "ignoring" }, LabelNames(&matching.labels))?;
    }
    if let Some(group) = group {
        write!(f, " {group} ({})", LabelNames(&matching.include))?;
    }
    match (matching.fill_left, matching.fill_right) {
        (Some(left), Some(right)) if left == right => write!(f, " fill ({})", format_number_short(left)),
        (left, right) => {
            for (side, value) in [("left", left), ("right", right)] {
                if let Some(value) = value {
                    write!(f, " fill_{side} ({})", format_number_short(value))?;
                }
            }
            Ok(())
        }
    }
}

impl Display for Aggregate {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}(", Grouping(self))?;
        if let Some(param) = &self.param {
            write!(f, "{param}, ")?;
        }
        write!(f, "{})", self.expr)
    }
}

/// An aggregation without its operands: `sum by (job) `.
pub(crate) struct Grouping<'a>(pub(crate) &'a Aggregate);

impl Display for Grouping<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Grouping(aggregate) = self;
        f.write_str(aggregate.op.as_str())?;
        match aggregate.without {
            true => write!(f, " without ({}) ", LabelNames(&aggregate.grouping)),
            false if aggregate.grouping.is_empty() => Ok(()),
            false => write!(f, " by ({}) ", LabelNames(&aggregate.grouping)),
        }
    }
}

impl Display for Call {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}(", self.function.name())?;
        for (i, arg) in self.args.iter().enumerate() {
            let comma = if i > 0 { ", " } else { "" };
            write!(f, "{comma}{arg}")?;
        }
        f.write_str(")")
    }
}

struct LabelNames<'a>(&'a [String]);

impl Display for LabelNames<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for (i, name) in self.0.iter().enumerate() {
            let comma = if i > 0 { ", " } else { "" };
            write!(f, "{comma}{}", LabelName(name))?;
        }
        Ok(())
    }
}

struct LabelName<'a>(&'a str);

impl Display for LabelName<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match is_plain_label_name(self.0) {
            true => f.write_str(self.0),
            false => f.write_str(&quote(self.0.as_bytes())),
        }
    }
}

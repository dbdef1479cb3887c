//! Writes expressions over several lines, as Prometheus's `format_query` does.
//!
//! An expression that fits into a line stays on it. One that doesn't is broken up: a call's arguments, an operator and
//! its operands each get a line of their own, operands and arguments two blanks further in. Selectors are never broken.

use crate::ast::{Aggregate, Binary, Call, Expr};
use crate::print::{Grouping, Operator, Window, sign};

/// The longest line that is not broken up, as Prometheus has it.
const LINE_BYTES_MAX: usize = 100;

impl Expr {
    /// The expression over as many lines as it takes; comments are gone.
    pub fn pretty(&self) -> String {
        self.pretty_within(LINE_BYTES_MAX)
    }

    /// As [`Expr::pretty`], for lines of another length.
    pub fn pretty_within(&self, line_bytes_max: usize) -> String {
        Pretty { line_bytes_max }.expr(self, 0)
    }
}

struct Pretty {
    line_bytes_max: usize,
}

impl Pretty {
    /// Writes `expr`, indented by `level`.
    fn expr(&self, expr: &Expr, level: usize) -> String {
        let line = expr.to_string();
        let is_short = line.len() <= self.line_bytes_max;
        let indent = indent(level);
        match expr {
            // Prometheus doesn't indent a subquery that fits into its line; its answers are compared, so neither do we.
            Expr::Subquery(_) if is_short => line,
            _ if is_short => format!("{indent}{line}"),
            _ => {
                drop(line); // Or each level would hold on to its text while those below are written.
                self.long(expr, level, &indent)
            }
        }
    }

    /// Writes an expression that is longer than a line.
    fn long(&self, expr: &Expr, level: usize, indent: &str) -> String {
        match expr {
            Expr::Unary(unary) => format!("{indent}{}{}", sign(unary), self.expr(&unary.expr, level).trim()),
            Expr::Subquery(subquery) => format!("{}{}", self.expr(&subquery.expr, level), Window(subquery)),
            Expr::Paren(paren) => format!("{indent}(\n{}\n{indent})", self.expr(&paren.expr, level + 1)),
            Expr::Binary(binary) => self.binary(binary, level),
            Expr::Aggregate(aggregate) => self.aggregate(aggregate, level),
            Expr::Call(call) => self.call(call, level),
            Expr::Number(_) | Expr::String(_) | Expr::Vector(_) | Expr::Matrix(_) => format!("{indent}{expr}"),
        }
    }

    fn binary(&self, binary: &Binary, level: usize) -> String {
        let (lhs, rhs) = (self.expr(&binary.lhs, level + 1), self.expr(&binary.rhs, level + 1));
        format!("{lhs}\n{}{}\n{rhs}", indent(level), Operator(binary))
    }

    fn aggregate(&self, aggregate: &Aggregate, level: usize) -> String {
        let operands: Vec<_> =
            aggregate.param.iter().chain([&aggregate.expr]).map(|expr| self.expr(expr, level + 1)).collect();
        let indent = indent(level);
        format!("{indent}{}(\n{}\n{indent})", Grouping(aggregate), operands.join(",\n"))
    }

    fn call(&self, call: &Call, level: usize) -> String {
        let args: Vec<_> = call.args.iter().map(|arg| self.expr(arg, level + 1)).collect();
        let indent = indent(level);
        format!("{indent}{}(\n{}\n{indent})", call.function.name(), args.join(",\n"))
    }
}

fn indent(level: usize) -> String {
    "  ".repeat(level)
}

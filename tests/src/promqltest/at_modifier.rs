//! Fixes every selector of a query to one time with `@`: then it must answer the same whenever it is asked.

use model::TimestampMs;
use promql::ast::{At, Expr, VectorSelector};
use promql::{Function, parse};

/// Functions whose answer depends on when they are evaluated, whatever their arguments are fixed to.
const UNSAFE: [Function; 14] = [
    Function::DaysInMonth,
    Function::DayOfMonth,
    Function::DayOfWeek,
    Function::DayOfYear,
    Function::End,
    Function::Hour,
    Function::Minute,
    Function::Month,
    Function::Year,
    Function::PredictLinear,
    Function::Range,
    Function::Start,
    Function::Step,
    Function::Time,
];

/// The query with `@ at` on every selector and subquery that has none; `None` if it can't be fixed so.
pub(super) fn fixed_at(text: &str, at: TimestampMs) -> Option<String> {
    let mut expr = parse(text).ok()?;
    fix(&mut expr, At::Timestamp(at)).then(|| expr.to_string())
}

/// The times to ask a query at that was fixed to `at`.
pub(super) fn times_around(at: TimestampMs) -> Vec<TimestampMs> {
    if at == 0 { vec![-1_000, 0, 1_000] } else { vec![-10 * at, 0, at / 5, at, 10 * at] }
}

/// False if some part depends on the evaluation time.
fn fix(expr: &mut Expr, at: At) -> bool {
    match expr {
        Expr::Number(_) | Expr::String(_) => true,
        Expr::Vector(selector) => fix_selector(selector, at),
        Expr::Matrix(matrix) => fix_selector(&mut matrix.selector, at),
        // What is inside a fixed subquery is evaluated at fixed times.
        Expr::Subquery(subquery) => {
            subquery.at.get_or_insert(at);
            true
        }
        Expr::Unary(unary) => fix(&mut unary.expr, at),
        Expr::Paren(paren) => fix(&mut paren.expr, at),
        Expr::Binary(binary) => fix(&mut binary.lhs, at) && fix(&mut binary.rhs, at),
        Expr::Aggregate(aggregate) => {
            aggregate.param.as_mut().is_none_or(|param| fix(param, at)) && fix(&mut aggregate.expr, at)
        }
        Expr::Call(call) => {
            let is_safe = !UNSAFE.contains(&call.function) && call.function != Function::Timestamp;
            is_safe && call.args.iter_mut().all(|arg| fix(arg, at))
        }
    }
}

fn fix_selector(selector: &mut VectorSelector, at: At) -> bool {
    selector.at.get_or_insert(at);
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_and_subqueries_are_fixed() {
        for (text, expected) in [
            ("foo", Some("foo @ 5.000")),
            ("foo @ 7", Some("foo @ 7.000")),
            ("sum(rate(foo[1m])) + bar offset 1m", Some("sum(rate(foo[1m] @ 5.000)) + bar @ 5.000 offset 1m")),
            ("max_over_time(rate(foo[1m])[5m:1m])", Some("max_over_time(rate(foo[1m])[5m:1m] @ 5.000)")),
            ("time()", None),
            ("foo + vector(time())", None),
            ("1", Some("1")),
        ] {
            assert_eq!(fixed_at(text, 5_000).as_deref(), expected, "{text}");
        }
        assert_eq!(times_around(0), [-1_000, 0, 1_000]);
        assert_eq!(times_around(50), [-500, 0, 10, 50, 500]);
    }
}

//! How a term is spelled as a key of the dictionary, so that the keys' order is that of (tenant, name, value).
//!
//! ```text
//! tenant 00 name' 00 value      series of the tenant that have the label name="value"
//! tenant 00 name' 00            … that have the label at all (no label has an empty value)
//! tenant 00 00                  … all of them (no label has an empty name)
//! ```
//! name' is the name with 00 written as 01 01 and 01 as 01 02: the order stays, and 00 only ends. A tenant has no
//! such bytes by its rule. The value comes last and stays as it is, so that automata run over its own bytes.

#[cfg(test)]
/// The key of a label; see the module for empty names and values.
pub(crate) fn key(tenant: &str, name: &str, value: &str) -> Vec<u8> {
    let mut out = prefix(tenant, name);
    out.extend_from_slice(value.as_bytes());
    out
}

/// What the keys of all values of a label start with.
pub(crate) fn prefix(tenant: &str, name: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(tenant.len() + name.len() + 24);
    out.extend_from_slice(tenant.as_bytes());
    out.push(0);
    put_name(&mut out, name.as_bytes());
    out
}

/// Appends the escaped name and its end.
pub(crate) fn put_name(out: &mut Vec<u8>, name: &[u8]) {
    for &byte in name {
        match byte {
            0 => out.extend_from_slice(&[1, 1]),
            1 => out.extend_from_slice(&[1, 2]),
            _ => out.push(byte),
        }
    }
    out.push(0);
}

/// The first key after all that start with `prefix`, which ends in 00.
pub(crate) fn after(prefix: &[u8]) -> Vec<u8> {
    let mut out = prefix.to_vec();
    if let Some(last) = out.last_mut() {
        *last = 1;
    }
    out
}

/// Splits what follows the tenant's 00 into name and value; `None` if no label is spelled so.
pub(crate) fn split(rest: &[u8]) -> Option<(String, &str)> {
    let end = rest.iter().position(|&byte| byte == 0)?;
    let mut name = Vec::with_capacity(end);
    let mut bytes = rest[..end].iter();
    while let Some(&byte) = bytes.next() {
        match byte {
            1 => name.push(match bytes.next()? {
                1 => 0,
                2 => 1,
                _ => return None,
            }),
            _ => name.push(byte),
        }
    }
    Some((String::from_utf8(name).ok()?, std::str::from_utf8(&rest[end + 1..]).ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text() -> impl Strategy<Value = String> {
        prop::collection::vec(prop::sample::select(vec!['\0', '\u{1}', '\u{2}', 'a', 'b', 'é']), 0..4)
            .prop_map(String::from_iter)
    }

    proptest! {
        #[test]
        fn keys_sort_as_labels_and_split_back(a in (text(), text()), b in (text(), text())) {
            let (x, y) = (key("t", &a.0, &a.1), key("t", &b.0, &b.1));
            prop_assert_eq!(x.cmp(&y), a.cmp(&b));
            prop_assert_eq!(split(&x[2..]), Some((a.0.clone(), a.1.as_str())));
            prop_assert_eq!(y >= prefix("t", &a.0) && y < after(&prefix("t", &a.0)), a.0 == b.0);
        }
    }
}

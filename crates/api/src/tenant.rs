//! Whose request it is.

use axum::http::HeaderMap;
use model::TenantId;

/// The header that names the tenant.
pub(crate) const TENANT_HEADER: &str = "x-scope-orgid";

/// The tenant that the header names, `anonymous` if it is not there or empty; or why it names none (400).
pub(crate) fn tenant_of(headers: &HeaderMap) -> Result<TenantId, String> {
    let mut names = headers.get_all(TENANT_HEADER).iter();
    let (Some(name), more) = (names.next(), names.next()) else { return Ok(TenantId::anonymous()) };
    if more.is_some() {
        return Err("X-Scope-OrgID is given twice (bad-tenant)".to_owned());
    }
    if name.is_empty() {
        return Ok(TenantId::anonymous());
    }
    let text = String::from_utf8_lossy(name.as_bytes());
    TenantId::new(&text).map_err(|error| format!("X-Scope-OrgID: {error} (bad-tenant)"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    #[test]
    fn the_header_names_the_tenant() {
        let check = |name: &'static [u8]| {
            let mut headers = HeaderMap::new();
            headers.insert(TENANT_HEADER, HeaderValue::from_bytes(name).unwrap());
            tenant_of(&headers).map(|tenant| tenant.to_string())
        };
        assert_eq!(tenant_of(&HeaderMap::new()).unwrap(), TenantId::anonymous());
        assert_eq!(check(b"").unwrap(), "anonymous");
        assert_eq!(check(b"team-a").unwrap(), "team-a");
        assert!(check(b"a/b").unwrap_err().contains("bad-tenant"));
        assert!(check(b"\xff").is_err());
        let mut twice = HeaderMap::new();
        twice.append(TENANT_HEADER, HeaderValue::from_static("a"));
        twice.append(TENANT_HEADER, HeaderValue::from_static("b"));
        assert!(tenant_of(&twice).is_err());
    }
}

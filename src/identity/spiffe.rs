//! The form of a SPIFFE id (SPIFFE-ID standard, section 2). Strict: nothing is repaired, since two
//! spellings of one id would be two principals.

/// The longest id that the standard demands to be supported, in bytes.
const ID_BYTES_MAX: usize = 2048;
/// The longest trust domain, in bytes.
const TRUST_DOMAIN_BYTES_MAX: usize = 255;

/// Whether `id` is the SPIFFE id of a workload: `spiffe://`, a trust domain in lower case, and a
/// path that is not empty, as the X509-SVID standard asks of a leaf.
pub(super) fn is_workload_id(id: &str) -> bool {
    let Some((domain, path)) = (id.strip_prefix("spiffe://")).and_then(|rest| rest.split_once('/'))
    else {
        return false;
    };
    let in_domain =
        |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'_');
    let in_path = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    id.len() <= ID_BYTES_MAX
        && (1..=TRUST_DOMAIN_BYTES_MAX).contains(&domain.len())
        && domain.bytes().all(in_domain)
        && path
            .split('/')
            .all(|part| !matches!(part, "" | "." | "..") && part.bytes().all(in_path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_workloads_pass() {
        for id in [
            "spiffe://prod/a",
            "spiffe://prod.example-1_x/ns/shop/sa/Orders.v1_2-3",
            "spiffe://10.0.0.1/...",
        ] {
            assert!(is_workload_id(id), "{id}");
        }
        let longest = format!("spiffe://{}/a", "d".repeat(255));
        assert!(is_workload_id(&longest));
    }

    #[test]
    fn anything_else_is_none() {
        for id in [
            "",
            "spiffe:",
            "spiffe://",
            "spiffe:///a",
            "spiffe://prod",
            "spiffe://prod/",
            "spiffe://prod/a/",
            "spiffe://prod//a",
            "spiffe://prod/./a",
            "spiffe://prod/../a",
            "spiffe://Prod/a",
            "SPIFFE://prod/a",
            "https://prod/a",
            " spiffe://prod/a",
            "spiffe://user@prod/a",
            "spiffe://prod:443/a",
            "spiffe://prod/a?b",
            "spiffe://prod/a#b",
            "spiffe://prod/%61",
            "spiffe://prod/ä",
            "spiffe://prod/*",
            "spiffe://prod/a b",
        ] {
            assert!(!is_workload_id(id), "{id}");
        }
        assert!(!is_workload_id(&format!("spiffe://{}/a", "d".repeat(256))));
        assert!(!is_workload_id(&format!("spiffe://d/{}", "a".repeat(2048))));
    }
}

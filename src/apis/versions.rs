//! ApiVersions: a client is told what both the broker at hand and this proxy can do. The
//! broker's list is data: keys and features that are not known here are dropped, not an error.

use super::errors::{INVALID_REQUEST, UNSUPPORTED_VERSION};
use super::lens::Answered;
use super::{API_VERSIONS, Api, PRODUCE, SASL_AUTHENTICATE, SASL_HANDSHAKE, lookup};
use crate::wire::tree::StructNode;

/// Leaves in the answer what the table has too, each in the versions that both have.
pub(super) fn intersect(a: &mut Answered) {
    intersect_for(a.response, a.version);
}

/// As above, for an answer in `version` of ApiVersions.
pub fn intersect_for(response: &mut StructNode, version: i16) {
    response.structs_mut("ApiKeys").retain_mut(|entry| {
        let Some(api) = i16::try_from(entry.int("ApiKey")).ok().and_then(lookup) else {
            return false;
        };
        if is_own(api.key) {
            return false;
        }
        let min = entry.int("MinVersion").max(advertised_min(api).into());
        let max = entry.int("MaxVersion").min(api.versions.max.into());
        entry.set_int("MinVersion", min).set_int("MaxVersion", max);
        api.is_for_clients() && min <= max
    });
    if response.int("ErrorCode") == 0 {
        offer_own(response);
    }
    // Before version 4 a feature's range cannot start at 0 (KIP-1022).
    if version < 4 {
        let features = response.structs_mut("SupportedFeatures");
        features.retain(|feature| feature.int("MinVersion") > 0);
    }
}

/// SASL is spoken with this proxy, whatever the broker has. Clients that do not find
/// SaslAuthenticate here fall back to bare tokens, without sessions and reasons (KIP-152).
fn is_own(key: i16) -> bool {
    key == SASL_HANDSHAKE || key == SASL_AUTHENTICATE
}

fn offer_own(response: &mut StructNode) {
    for api in [SASL_HANDSHAKE, SASL_AUTHENTICATE]
        .into_iter()
        .filter_map(lookup)
    {
        let mut entry = response.element("ApiKeys");
        entry
            .set_int("ApiKey", api.key.into())
            .set_int("MinVersion", api.versions.min.into())
            .set_int("MaxVersion", api.versions.max.into());
        let entries = response.structs_mut("ApiKeys");
        let at = entries.partition_point(|e| e.int("ApiKey") < i64::from(api.key));
        entries.insert(at, entry);
    }
}

/// Produce is advertised from 0, as brokers do, though 0 to 2 are refused: librdkafka takes a
/// broker without version 0 for one that cannot compress.
fn advertised_min(api: &Api) -> i16 {
    if api.key == PRODUCE {
        0
    } else {
        api.versions.min
    }
}

/// The answer to a version that is not known here: version 0 of the body, and only the versions
/// of ApiVersions itself (KIP-511).
pub fn unsupported(response: &mut StructNode, versions: (i16, i16)) {
    response.set_int("ErrorCode", UNSUPPORTED_VERSION.into());
    let mut entry = response.element("ApiKeys");
    entry.set_int("ApiKey", API_VERSIONS.into());
    entry
        .set_int("MinVersion", versions.0.into())
        .set_int("MaxVersion", versions.1.into());
    response.structs_mut("ApiKeys").push(entry);
}

/// Whether name and version of the client's software are well formed (KIP-511); a broker
/// answers INVALID_REQUEST otherwise.
pub fn software_is_valid(request: &StructNode, version: i16) -> bool {
    version < 3
        || ["ClientSoftwareName", "ClientSoftwareVersion"]
            .iter()
            .all(|field| is_software(request.text(field).unwrap_or_default()))
}

fn is_software(text: &str) -> bool {
    let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    ends(text.chars().next())
        && ends(text.chars().next_back())
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '.')
}

/// The error answer to malformed software names.
pub fn invalid_software(response: &mut StructNode) {
    response.set_int("ErrorCode", INVALID_REQUEST.into());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn software_names_are_judged_as_kafka_does() {
        for good in ["a", "apache-kafka-java", "2.1.0-rc.1", "A9"] {
            assert!(is_software(good), "{good}");
        }
        for bad in ["", "a-", "-a", "a b", "a_b", "ä", "a\n"] {
            assert!(!is_software(bad), "{bad:?}");
        }
    }
}

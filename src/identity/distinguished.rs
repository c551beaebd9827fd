//! A subject in the form on which Kafka's mapping rules work: RFC 2253 as Java writes it
//! (`X500Principal.getName()`), the last part first, nine attributes by keyword and all others as
//! `OID=#hex`.

use x509_parser::asn1_rs::{Any, Tag};
use x509_parser::x509::{AttributeTypeAndValue, X509Name};

use crate::identity::certificate::CertificateError;
use crate::identity::name::NameFault;
use crate::identity::settings::CertificateName;

/// Object identifiers that have a keyword in RFC 2253; Java writes no other by name.
const KEYWORDS: [(&str, &str); 9] = [
    ("2.5.4.3", "CN"),
    ("2.5.4.6", "C"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.9", "STREET"),
    ("2.5.4.10", "O"),
    ("2.5.4.11", "OU"),
    ("0.9.2342.19200300.100.1.1", "UID"),
    ("0.9.2342.19200300.100.1.25", "DC"),
];

/// What is escaped by a backslash wherever it stands.
const ESCAPED: &str = ",=+<>#;\"\\";

/// A value that is not the text its type says.
const UNREADABLE: CertificateError = CertificateError::Text(CertificateName::DistinguishedName);

/// The whole subject. A value that would hide a control character behind an escape is refused.
pub(super) fn printed(name: &X509Name<'_>) -> Result<String, CertificateError> {
    let parts = name.iter_rdn().map(|part| {
        let attributes: Result<Vec<_>, _> = part.iter().map(attribute).collect();
        Ok(attributes?.join("+"))
    });
    let mut parts: Vec<String> = parts.collect::<Result<_, CertificateError>>()?;
    parts.reverse();
    Ok(parts.join(","))
}

fn attribute(attribute: &AttributeTypeAndValue<'_>) -> Result<String, CertificateError> {
    let oid = attribute.attr_type().to_id_string();
    let value = attribute.attr_value();
    let Some((_, keyword)) = KEYWORDS.iter().find(|(id, _)| *id == oid) else {
        return Ok(format!("{oid}=#{}", hexadecimal(value)?));
    };
    let text = text(value)?;
    if text.chars().any(char::is_control) {
        return Err(CertificateError::Name(NameFault::Control));
    }
    Ok(format!("{keyword}={}", escaped(text)))
}

/// The text of a value whose type is a string of UTF-8 or of a part of ASCII. Java reads the
/// bytes of the other string types as if they were UTF-8, which they are not.
fn text<'a>(value: &'a Any<'_>) -> Result<&'a str, CertificateError> {
    let text = std::str::from_utf8(value.data).map_err(|_| UNREADABLE)?;
    match value.tag() {
        Tag::Utf8String => Ok(text),
        Tag::PrintableString | Tag::Ia5String | Tag::T61String if text.is_ascii() => Ok(text),
        _ => Err(UNREADABLE),
    }
}

fn escaped(text: &str) -> String {
    // An escape in the middle is one character longer, so the ends are found before.
    let inner = text.trim_matches(' ');
    let lead = text.len() - text.trim_start_matches(' ').len();
    let mut written = "\\ ".repeat(lead);
    for c in inner.chars() {
        if ESCAPED.contains(c) {
            written.push('\\');
        }
        written.push(c);
    }
    written + &"\\ ".repeat(text.len() - lead - inner.len())
}

/// The whole value in DER, tag and length included.
fn hexadecimal(value: &Any<'_>) -> Result<String, CertificateError> {
    use x509_parser::asn1_rs::ToDer as _;
    let der = value
        .to_der_vec()
        .map_err(|_| CertificateError::Malformed)?;
    Ok(der.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use x509_parser::prelude::FromDer as _;

    use super::*;

    fn read(der: &str) -> Result<String, CertificateError> {
        let digits = |at| u8::from_str_radix(&der[at..at + 2], 16).unwrap();
        let der: Vec<u8> = (0..der.len()).step_by(2).map(digits).collect();
        printed(&X509Name::from_der(&der).unwrap().1)
    }

    /// Subjects and what `javax.security.auth.x500.X500Principal#getName()` of OpenJDK 17 makes
    /// of them, which `DefaultKafkaPrincipalBuilder` hands to the mapping rules.
    #[test]
    fn a_subject_is_written_as_java_writes_it() {
        for (der, java) in [
            (
                "306c310b3009060355040613024445310f300d06035504080c064265726c696e310e300c06035504\
                 070c054d69747465310e300c06035504090c055765672031310d300b060355040a0c0453686f70\
                 310c300a060355040b0c03506179310f300d06035504030c066f7264657273",
                "CN=orders,OU=Pay,O=Shop,STREET=Weg 1,L=Mitte,ST=Berlin,C=DE",
            ),
            (
                "304e31173015060a0992268993f22c64011916076578616d706c6531133011060a0992268993f22c\
                 6401191603636f6d31123010060a0992268993f22c6401010c027531310a300806035504030c0161",
                "CN=a,UID=u1,DC=com,DC=example",
            ),
            (
                "30223114301206092a864886f70d01090116056140622e63310a300806035504030c0161",
                "CN=a,1.2.840.113549.1.9.1=#16056140622e63",
            ),
            (
                "3032310b3009060355040513023737310b3009060355040c0c024472310a300806035504040c0158\
                 310a300806035504030c0161",
                "CN=a,2.5.4.4=#0c0158,2.5.4.12=#0c024472,2.5.4.5=#13023737",
            ),
            (
                "301e311c301a06035504030c13612c623d632b643c653e6623673b6822695c6a",
                r#"CN=a\,b\=c\+d\<e\>f\#g\;h\"i\\j"#,
            ),
            ("300d310b300906035504030c022361", r"CN=\#a"),
            ("30123110300e06035504030c0720206120206220", r"CN=\ \ a  b\ "),
            ("30143112301006035504030c09c39c6e616c20e282ac", "CN=Ünal €"),
            ("300b3109300706035504030c00", "CN="),
            (
                "30223114300806035504030c01613008060355040b0c0162310a3008060355040a0c0163",
                "O=c,CN=a+OU=b",
            ),
            (
                "302f310a3008060355040b0c0178310a3008060355040b0c0179311530130603550403130c612f62\
                 3a633f642765286629",
                "CN=a/b:c?d'e(f),OU=y,OU=x",
            ),
            ("300f310d300b0603550403140474656c65", "CN=tele"),
            ("300e310c300a06035504031603696135", "CN=ia5"),
            (
                "30143112301006035504030c09612a6240635f642165",
                "CN=a*b@c_d!e",
            ),
            ("300c310a300806035504030c0120", r"CN=\ "),
            (
                "3018310a300806035504030c0161310a300806035504030c0162",
                "CN=b,CN=a",
            ),
            ("3000", ""),
        ] {
            assert_eq!(read(der).as_deref(), Ok(java), "{der}");
        }
    }

    #[test]
    fn what_java_would_garble_or_hide_is_refused() {
        // A zero byte, which Java writes as `\00`.
        let hidden = read("300e310c300a06035504030c03610062");
        assert_eq!(hidden, Err(CertificateError::Name(NameFault::Control)));
        // A BMPString, whose UTF-16 Java reads as UTF-8; bytes that are not UTF-8.
        for der in [
            "300f310d300b06035504031e0400610062",
            "300c310a300806035504030c01ff",
            "300d310b300906035504031302c3a4",
        ] {
            assert_eq!(read(der), Err(UNREADABLE), "{der}");
        }
    }
}

//! The status page: one HTML document without scripts or anything to load. Whatever comes from
//! outside is escaped; the policy that the server sends along forbids the rest.

use std::fmt::{self, Display, Write};

use super::status::Status;
use crate::telemetry::audit::rfc3339_ms;

/// What the page may do: show itself, with its own style.
pub(super) const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; \
    style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const HEAD: &str = "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
    <meta name=\"viewport\" content=\"width=device-width\"><title>Kordon</title><style>\
    :root{color-scheme:light dark}body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;\
    max-width:60rem;padding:0 1rem}h1{font-size:1.4rem}h2{font-size:1.1rem;margin-top:2rem}\
    table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:.25rem .75rem \
    .25rem 0;border-bottom:1px solid #8884;vertical-align:top}code{word-break:break-all}\
    .no{color:#c22;font-weight:bold}</style></head><body>\n";

const FOOT: &str = "<p><a href=\"/metrics\">metrics</a> · <a href=\"/api/status\">this as JSON</a> \
    · <a href=\"/policies\">policies</a> · <a href=\"/readyz\">readiness</a></p>\n</body></html>\n";

/// How many names of an identity stand on the page; `/api/status` has all.
const NAMES_SHOWN: usize = 10;

/// The page.
pub(super) fn render(status: &Status) -> String {
    let mut out = String::from(HEAD);
    // Writing to a `String` cannot fail.
    let _ = body(status, &mut out);
    out.push_str(FOOT);
    out
}

fn body(status: &Status, out: &mut String) -> fmt::Result {
    writeln!(out, "<h1>Kordon {}</h1>", Text(status.version))?;
    match &status.reason {
        None => writeln!(out, "<p>Ready.")?,
        Some(reason) => writeln!(out, "<p class=\"no\">Not ready: {}.", Text(reason))?,
    }
    writeln!(out, " Running since {}.</p>", rfc3339_ms(status.started))?;
    for (subject, text) in &status.notes {
        writeln!(out, "<p class=\"no\">{}: {}</p>", Text(subject), Text(text))?;
    }

    out.push_str("<h2>Listeners</h2>\n<table><tr><th>name<th>address<th>TLS<th>identity");
    out.push_str("<th>brokers, as clients are told</tr>\n");
    for listener in &status.listeners {
        let tls = if listener.tls { "yes" } else { "no" };
        let (name, identity) = (Text(&listener.name), Text(listener.identity));
        write!(
            out,
            "<tr><td>{name}<td>{}<td>{tls}<td>{identity}<td>",
            listener.bind
        )?;
        if listener.brokers.is_empty() {
            out.push_str("none seen yet");
        }
        for broker in &listener.brokers {
            write!(
                out,
                "{} → <code>{}</code><br>",
                broker.id,
                Text(&broker.advertised)
            )?;
        }
        out.push_str("</tr>\n");
    }

    out.push_str("</table>\n");
    upstream(status, out)?;
    if !status.expiries.is_empty() {
        out.push_str("<h2>Certificates</h2>\n<table><tr><th>of<th>listener<th>ends</tr>\n");
        for one in &status.expiries {
            let (what, listener) = (Text(one.what), Text(&one.listener));
            let ends = rfc3339_ms(one.ends);
            writeln!(out, "<tr><td>{what}<td>{listener}<td>{ends}</tr>")?;
        }
        out.push_str("</table>\n");
    }
    issuers(status, out)?;
    out.push_str("<h2>Connections</h2>\n");
    if status.connections.is_empty() {
        out.push_str("<p>None open.</p>\n");
    } else {
        out.push_str("<table><tr><th>tenant<th>listener<th>open</tr>\n");
        for (tenant, listeners) in &status.connections {
            let tenant = if tenant.is_empty() { "(none)" } else { tenant };
            for (listener, open) in listeners {
                let (tenant, listener) = (Text(tenant), Text(listener));
                writeln!(out, "<tr><td>{tenant}<td>{listener}<td>{open}</tr>")?;
            }
        }
        out.push_str("</table>\n");
    }

    let policy = &status.policy;
    out.push_str("<h2>Policies</h2>\n");
    if !policy.authorization {
        out.push_str("<p class=\"no\">Authorization is off.</p>\n");
    }
    if policy.digest.is_empty() {
        out.push_str("<p>No policy files.</p>\n");
        return Ok(());
    }
    let (generation, loaded) = (policy.generation, rfc3339_ms(policy.loaded));
    let age = status.policy_age_seconds;
    write!(
        out,
        "<p>Generation {generation}, loaded {loaded}, {age} s ago. "
    )?;
    writeln!(
        out,
        "{} files, digest <code>{}</code></p>",
        policy.files.len(),
        Text(&policy.digest)
    )?;
    for shadow in &policy.shadows {
        let (set, files) = (shadow.set, shadow.files.len());
        let digest = Text(&shadow.digest);
        writeln!(
            out,
            "<p>Decided beside them, without effect: {set}, {files} files, digest \
             <code>{digest}</code></p>"
        )?;
    }
    Ok(())
}

/// As whom broker connections are opened.
fn upstream(status: &Status, out: &mut String) -> fmt::Result {
    out.push_str("<h2>To the brokers</h2>\n<table><tr><th>connections of<th>SASL<th>as");
    out.push_str("<th>certificate</tr>\n");
    for one in &status.upstream {
        write!(out, "<tr><td>{}", Text(one.whose))?;
        for name in one.names.iter().take(NAMES_SHOWN) {
            write!(out, "<br><code>{}</code>", Text(name))?;
        }
        match one.names.len().saturating_sub(NAMES_SHOWN) {
            0 => {}
            more => write!(out, "<br>and {more} more")?,
        }
        let none = "none";
        let mechanism = Text(one.mechanism.unwrap_or(none));
        let name = Text(one.name.as_deref().unwrap_or_default());
        let certificate = Text(one.certificate.as_deref().unwrap_or(none));
        writeln!(out, "<td>{mechanism}<td>{name}<td>{certificate}</tr>")?;
    }
    out.push_str("</table>\n");
    Ok(())
}

/// Whose tokens are believed, where there are any.
fn issuers(status: &Status, out: &mut String) -> fmt::Result {
    if status.listeners.iter().all(|one| one.issuers.is_empty()) {
        return Ok(());
    }
    out.push_str("<h2>Issuers</h2>\n<table><tr><th>issuer<th>listener<th>tokens<th>keys");
    out.push_str("<th>confirmed</tr>\n");
    for listener in &status.listeners {
        for one in &listener.issuers {
            let (issuer, name) = (Text(&one.issuer), Text(&listener.name));
            let (tokens, keys) = (Text(one.tokens), one.keys);
            write!(out, "<tr><td>{issuer}<td>{name}<td>{tokens}<td>{keys}<td>")?;
            if let Some(age) = one.keys_age_seconds {
                write!(out, "{age} s ago")?;
            }
            out.push_str("</tr>\n");
        }
    }
    out.push_str("</table>\n");
    Ok(())
}

/// Text inside an element or a quoted attribute.
struct Text<'a>(&'a str);

impl Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

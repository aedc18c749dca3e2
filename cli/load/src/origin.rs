//! Where the load goes: the base URL, resolved once, and the guard that keeps it on this machine.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use hyper::Uri;

/// The server under load.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Origin {
    /// Its addresses, in the resolver's order.
    pub(crate) addresses: Vec<SocketAddr>,
    /// What the `Host` header says.
    pub(crate) host: String,
    /// What stands before each path; no slash at its end.
    pub(crate) prefix: String,
}

/// A base URL that no load is sent to.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OriginError {
    #[error("that is not a URL such as http://127.0.0.1:8080")]
    Form,
    #[error(
        "this engine speaks plain http only, not `{0}`: point it at the http address behind the TLS front"
    )]
    Scheme(String),
    #[error("`{0}` could not be resolved: {1}")]
    Resolve(String, std::io::Error),
    #[error(
        "`{0}` is not on this machine, and load is sent elsewhere only when the host is allowed by name: --allow-host {0}"
    )]
    Elsewhere(String),
}

/// A base URL taken apart.
#[derive(Debug, PartialEq, Eq)]
struct Parts {
    host: String,
    port: u16,
    authority: String,
    prefix: String,
}

fn parse(base: &str) -> Result<Parts, OriginError> {
    let uri: Uri = base.parse().map_err(|_| OriginError::Form)?;
    match uri.scheme_str() {
        Some("http") => {}
        Some(other) => return Err(OriginError::Scheme(other.to_owned())),
        None => return Err(OriginError::Form),
    }
    let authority = uri.authority().ok_or(OriginError::Form)?;
    // A user name in a URL would be sent to nobody: say so instead of dropping it.
    if authority.as_str().contains('@') || uri.query().is_some() || authority.host().is_empty() {
        return Err(OriginError::Form);
    }
    Ok(Parts {
        host: authority.host().trim_matches(['[', ']']).to_owned(),
        port: authority.port_u16().unwrap_or(80),
        authority: authority.to_string(),
        prefix: uri.path().trim_end_matches('/').to_owned(),
    })
}

impl Origin {
    /// Resolves a base URL, and refuses one that leaves this machine unless its host is allowed by name.
    pub(crate) async fn resolve(base: &str, allowed: &BTreeSet<String>) -> Result<Self, OriginError> {
        let parts = parse(base)?;
        let found = tokio::net::lookup_host((parts.host.as_str(), parts.port))
            .await
            .map_err(|error| OriginError::Resolve(parts.host.clone(), error))?;
        let addresses: Vec<SocketAddr> = found.collect();
        // A name may resolve to several addresses: all of them have to be ours, not just the first.
        if !allowed.contains(&parts.host) && !addresses.iter().all(|address| address.ip().is_loopback()) {
            return Err(OriginError::Elsewhere(parts.host));
        }
        Ok(Self { addresses, host: parts.authority, prefix: parts.prefix })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_url_is_taken_apart() {
        let parts = parse("http://127.0.0.1:8080/shop/").unwrap();
        assert_eq!((parts.host.as_str(), parts.port, parts.prefix.as_str()), ("127.0.0.1", 8080, "/shop"));
        let parts = parse("http://[::1]").unwrap();
        assert_eq!((parts.host.as_str(), parts.port, parts.authority.as_str()), ("::1", 80, "[::1]"));
        for bad in
            ["", "127.0.0.1:8080", "http://", "http://user:secret@127.0.0.1", "http://127.0.0.1/?a=b", "/x"]
        {
            assert!(matches!(parse(bad), Err(OriginError::Form)), "{bad}");
        }
        assert!(matches!(parse("https://127.0.0.1"), Err(OriginError::Scheme(_))));
    }

    #[tokio::test]
    async fn only_this_machine_is_loaded_unless_a_host_is_allowed() {
        let none = BTreeSet::new();
        assert!(Origin::resolve("http://127.0.0.1:1", &none).await.is_ok());
        assert!(Origin::resolve("http://[::1]:1", &none).await.is_ok());
        let error = Origin::resolve("http://192.0.2.7:80", &none).await.unwrap_err();
        assert!(error.to_string().ends_with("--allow-host 192.0.2.7"), "{error}");
        assert!(Origin::resolve("http://192.0.2.7:80", &["192.0.2.8".to_owned()].into()).await.is_err());
        assert!(Origin::resolve("http://192.0.2.7:80", &["192.0.2.7".to_owned()].into()).await.is_ok());
    }
}

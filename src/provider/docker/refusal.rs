//! What a registry's refusals mean, and what mends them.
//!
//! An engine passes on what it was told, or what became of its connection, as words alone.

use super::registry::registry;

/// Why a registry takes no image, or gives none.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    #[error(
        "the registry {registry} wants a login to take {image}: {why}; give `registry.username` and `registry.password` in the spec, or log in with `docker login {registry}`"
    )]
    NoLogin { image: String, registry: String, why: String },
    #[error(
        "the registry {registry} does not take {image} with the login of `{user}`: {why}; mend `registry.username` and `registry.password` in the spec, or log in with `docker login {registry}` as one who may push there"
    )]
    Denied { image: String, registry: String, user: String, why: String },
    #[error(
        "the Docker engine cannot reach the registry {registry}: {why}; see that it runs, and that its host and port in the spec are right"
    )]
    Unreachable { registry: String, why: String },
    #[error(
        "the registry {registry} speaks plain HTTP, which a Docker engine takes only where it is told to: add \"{registry}\" to `insecure-registries` in the engine's daemon.json, usually in /etc/docker, and restart it"
    )]
    Plain { registry: String },
    #[error(
        "the Docker engine does not trust the certificate of the registry {registry}: {why}; put the certificate of its authority at /etc/docker/certs.d/{registry}/ca.crt"
    )]
    Untrusted { registry: String, why: String },
    #[error(
        "the push of {image} broke off: {why}; see that the registry {registry} runs, then push again: the layers that it has are not sent twice"
    )]
    BrokenOff { image: String, registry: String, why: String },
    #[error(
        "`{image}` is no name for an image: {why}; `registry.url` in the spec is a host, perhaps with a port and a path, in small letters"
    )]
    Name { image: String, why: String },
    #[error(
        "the registry {registry} has no repository for {image} and makes none by itself: {why}; make it there, or name another place with `registry.url` in the spec"
    )]
    NoRepository { image: String, registry: String, why: String },
    #[error(
        "the registry {registry} has no space left for {image}: {why}; delete images there or give it more"
    )]
    Full { image: String, registry: String, why: String },
    #[error(
        "the registry {registry} failed while it was sent {image}: {why}; its own log says why, often its disk is full or its storage cannot be reached"
    )]
    Failing { image: String, registry: String, why: String },
    #[error("the registry {registry} did not take {image}: {why}; its own log may say more")]
    Refused { image: String, registry: String, why: String },
}

/// What keeps the engine from talking to a registry at all, if its words are about that.
pub(super) fn unreached(registry: &str, why: &str) -> Option<RegistryError> {
    let (registry, why, says) = (registry.to_owned(), why.to_owned(), words_in(why));
    if says(&["http response to https client"]) {
        Some(RegistryError::Plain { registry })
    } else if says(&["x509:", "certificate"]) {
        Some(RegistryError::Untrusted { registry, why })
    } else if says(&["dial tcp", "no such host", "timeout", "deadline", "eof", "connection", "broken pipe"]) {
        Some(RegistryError::Unreachable { registry, why })
    } else {
        None
    }
}

/// What the engine's words for a push that failed mean. `begun`: the registry had answered before.
pub(super) fn not_pushed(image: &str, user: Option<&str>, begun: bool, why: String) -> RegistryError {
    let says = words_in(&why);
    let (image, registry) = (image.to_owned(), registry(image).to_owned());
    if says(&["no space left", "quota", "insufficient storage"]) {
        RegistryError::Full { image, registry, why }
    } else if says(&["no basic auth", "unauthorized", "denied", "forbidden", "authoriz", "authentic"]) {
        match user {
            Some(user) => RegistryError::Denied { image, registry, user: user.to_owned(), why },
            None => RegistryError::NoLogin { image, registry, why },
        }
    } else if says(&["name unknown", "name_unknown"]) {
        RegistryError::NoRepository { image, registry, why }
    } else if says(&["invalid reference", "name invalid", "name_invalid"]) {
        RegistryError::Name { image, why }
    } else if says(&["http status: 5"]) {
        RegistryError::Failing { image, registry, why }
    } else {
        match unreached(&registry, &why) {
            Some(RegistryError::Unreachable { .. }) if begun => {
                RegistryError::BrokenOff { image, registry, why }
            }
            Some(error) => error,
            None => RegistryError::Refused { image, registry, why },
        }
    }
}

/// Whether one of some words, in small letters, is in a text.
fn words_in(text: &str) -> impl Fn(&[&str]) -> bool + use<> {
    let text = text.to_lowercase();
    move |words| words.iter().any(|word| text.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mend(user: Option<&str>, begun: bool, why: &str) -> String {
        let error = not_pushed("registry.example.com/shop/web:1", user, begun, why.to_owned()).to_string();
        assert!(error.contains("registry.example.com"), "{error}");
        error.rsplit_once("; ").map_or(error.clone(), |(_, mend)| mend.to_owned())
    }

    /// What registries say that no test has here: those with tokens, quotas, repositories to be made.
    #[test]
    fn what_a_registry_says_comes_with_what_mends_it() {
        let denied = "denied: requested access to the resource is denied";
        assert!(mend(None, true, denied).contains("give `registry.username`"));
        assert!(mend(Some("ada"), true, denied).contains("as one who may push there"));
        let scope = "unauthorized: project shop not found: project shop not found";
        assert!(mend(Some("ada"), true, scope).contains("as one who may push there"));
        let unknown = "name unknown: The repository with name 'shop/web' does not exist in the registry";
        assert!(mend(Some("ada"), true, unknown).starts_with("make it there"));
        let quota = "denied: adding 3 MiB of storage resource, which when updated exceeds the quota";
        assert!(mend(Some("ada"), true, quota).starts_with("delete images there"));
        let trust = "Get \"https://registry.example.com/v2/\": tls: failed to verify certificate: x509: certificate signed by unknown authority";
        assert!(mend(None, false, trust).ends_with("certs.d/registry.example.com/ca.crt"));
        let silent = "Get \"https://registry.example.com/v2/\": net/http: request canceled while waiting for connection (Client.Timeout exceeded while awaiting headers)";
        assert!(mend(None, false, silent).starts_with("see that it runs, and that its host"));
        assert!(mend(None, true, "unexpected EOF").contains("not sent twice"));
        assert_eq!(mend(None, true, "manifest invalid: manifest invalid"), "its own log may say more");
    }
}

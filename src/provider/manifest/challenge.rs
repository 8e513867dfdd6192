//! What a registry wants before it shows anything: the header `WWW-Authenticate`.

use reqwest::header::{HeaderMap, WWW_AUTHENTICATE};

/// A way to prove who asks.
#[derive(Debug, PartialEq, Eq)]
pub enum Challenge {
    /// A login.
    Basic,
    /// A token, which the server at `realm` gives.
    Bearer { realm: String, service: Option<String>, scope: Option<String> },
}

/// The way that answers to these headers. A token is preferred, as what is sent is worth less.
pub fn challenge(headers: &HeaderMap) -> Option<Challenge> {
    let values = headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
    let known: Vec<Challenge> = values.filter_map(read).collect();
    let bearer = known.iter().position(|one| matches!(one, Challenge::Bearer { .. }));
    known.into_iter().nth(bearer.unwrap_or(0))
}

fn read(value: &str) -> Option<Challenge> {
    let (scheme, mut rest) = value.trim().split_once(' ').unwrap_or((value.trim(), ""));
    if scheme.eq_ignore_ascii_case("basic") {
        return Some(Challenge::Basic);
    }
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let (mut realm, mut service, mut scope) = (None, None, None);
    while let Some((name, after)) = rest.split_once('=') {
        let (text, left) = text(after.trim_start());
        match name.trim_matches([' ', ',']).to_ascii_lowercase().as_str() {
            "realm" => realm = Some(text),
            "service" => service = Some(text),
            "scope" => scope = Some(text),
            _ => {}
        }
        rest = left;
    }
    Some(Challenge::Bearer { realm: realm?, service, scope })
}

/// A value, in quotes or bare, and what comes after it.
fn text(from: &str) -> (String, &str) {
    let Some(quoted) = from.strip_prefix('"') else {
        let end = from.find(',').unwrap_or(from.len());
        return (from[..end].trim_end().to_owned(), &from[end..]);
    };
    let mut text = String::new();
    let mut letters = quoted.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return (text, &quoted[at + 1..]),
            '\\' => text.extend(letters.next().map(|(_, letter)| letter)),
            _ => text.push(letter),
        }
    }
    (text, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[&'static str]) -> Option<Challenge> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(WWW_AUTHENTICATE, value.parse().expect("a header"));
        }
        challenge(&headers)
    }

    #[test]
    fn what_is_wanted_is_read_as_registries_write_it() {
        assert_eq!(of(&["Basic realm=\"tests\""]), Some(Challenge::Basic));
        let bearer = |realm: &str, service: Option<&str>, scope: Option<&str>| {
            let [service, scope] = [service, scope].map(|text| text.map(str::to_owned));
            Some(Challenge::Bearer { realm: realm.to_owned(), service, scope })
        };
        let hub = "Bearer realm=\"https://auth.docker.io/token\",service=\"registry.docker.io\",scope=\"repository:library/nginx:pull,push\"";
        let scope = Some("repository:library/nginx:pull,push");
        let expected = bearer("https://auth.docker.io/token", Some("registry.docker.io"), scope);
        assert_eq!(of(&[hub]), expected);
        assert_eq!(of(&["Basic realm=\"x\"", hub]), expected);
        let loose =
            "bearer realm=https://a.example.com/t , service = \"a \\\"b\\\"\", error=\"insufficient_scope\"";
        assert_eq!(of(&[loose]), bearer("https://a.example.com/t", Some("a \"b\""), None));
        assert_eq!(of(&["Bearer service=\"without a realm\""]), None);
        assert_eq!(of(&["Negotiate"]), None);
        assert_eq!(of(&[]), None);
    }
}

//! Challenges and credentials: pure.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Uri};
use http_body_util::Full;

/// How to introduce oneself to a registry (CRI's AuthConfig).
#[derive(Clone, Default, PartialEq, Eq)]
pub enum Auth {
    #[default]
    Anonymous,
    Basic {
        username: String,
        password: String,
    },
    /// A refresh token, exchanged for access tokens.
    Identity(String),
    /// A bearer token, sent as it is.
    Registry(String),
}

impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Auth::Anonymous => "Anonymous",
            Auth::Basic { .. } => "Basic(…)",
            Auth::Identity(_) => "Identity(…)",
            Auth::Registry(_) => "Registry(…)",
        })
    }
}

impl Auth {
    /// The `auth` field: base64 of `user:password`.
    pub fn from_encoded(encoded: &str) -> Option<Auth> {
        let plain = String::from_utf8(BASE64_STANDARD.decode(encoded.trim()).ok()?).ok()?;
        let (username, password) = plain.split_once(':')?;
        // Some tools pad the decoded text with NULs.
        Some(Auth::Basic { username: username.to_owned(), password: password.trim_matches('\0').to_owned() })
    }
}

/// What a registry asks for (RFC 9110, 11.6.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Challenge {
    Basic,
    Bearer { realm: String, service: Option<String>, scope: Option<String> },
}

/// One challenge of a `WWW-Authenticate` header; unknown schemes are none.
pub fn parse_challenge(header: &str) -> Option<Challenge> {
    let (scheme, rest) = header.trim().split_once(' ').unwrap_or((header.trim(), ""));
    if scheme.eq_ignore_ascii_case("basic") {
        return Some(Challenge::Basic);
    }
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let (mut realm, mut service, mut scope) = (None, None, None);
    let mut rest = rest.trim_start();
    while !rest.is_empty() {
        let (key, after) = rest.split_once('=')?;
        let (value, after) = parameter_value(after)?;
        match key.trim().to_ascii_lowercase().as_str() {
            "realm" => realm = Some(value),
            "service" => service = Some(value),
            "scope" => scope = Some(value),
            _ => {}
        }
        rest = after.trim_start().trim_start_matches(',').trim_start();
    }
    Some(Challenge::Bearer { realm: realm?, service, scope })
}

/// A token or a quoted string, and what follows it.
fn parameter_value(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ']).unwrap_or(text.len());
        return Some((text[..end].to_owned(), &text[end..]));
    };
    let (mut value, mut escaped) = (String::new(), false);
    for (at, c) in quoted.char_indices() {
        match c {
            _ if escaped => {
                value.push(c);
                escaped = false;
            }
            '\\' => escaped = true,
            '"' => return Some((value, &quoted[at + 1..])),
            _ => value.push(c),
        }
    }
    None
}

pub(super) fn basic(username: &str, password: &str) -> Option<HeaderValue> {
    secret(format!("Basic {}", BASE64_STANDARD.encode(format!("{username}:{password}"))))
}

pub(super) fn bearer(token: &str) -> Option<HeaderValue> {
    secret(format!("Bearer {token}"))
}

fn secret(text: String) -> Option<HeaderValue> {
    let mut value = HeaderValue::try_from(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// The request for a token: GET with the credentials as Basic, or POST of a refresh token.
pub fn token_request(realm: &str, service: Option<&str>, scope: &str, auth: &Auth) -> Option<Request<Full<Bytes>>> {
    let mut fields = Vec::new();
    if let Some(service) = service {
        fields.push(format!("service={}", escape(service)));
    }
    fields.push(format!("scope={}", escape(scope)));
    if let Auth::Identity(token) = auth {
        fields.push("grant_type=refresh_token".to_owned());
        fields.push("client_id=gantry".to_owned());
        fields.push(format!("refresh_token={}", escape(token)));
        let uri = checked(realm)?;
        return Request::builder()
            .method(Method::POST)
            .uri(uri)
            .header("content-type", "application/x-www-form-urlencoded")
            .body(Full::from(fields.join("&")))
            .ok();
    }
    if let Auth::Basic { username, .. } = auth {
        fields.push(format!("account={}", escape(username)));
    }
    let separator = if realm.contains('?') { '&' } else { '?' };
    let mut request =
        Request::builder().method(Method::GET).uri(checked(&format!("{realm}{separator}{}", fields.join("&")))?);
    if let Auth::Basic { username, password } = auth {
        request = request.header("authorization", basic(username, password)?);
    }
    request.body(Full::default()).ok()
}

fn checked(url: &str) -> Option<Uri> {
    let uri: Uri = url.parse().ok()?;
    let known = matches!(uri.scheme_str(), Some("http" | "https")) && uri.authority().is_some();
    known.then_some(uri)
}

pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b':' | b'/' => {
                escaped.push(char::from(byte));
            }
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

/// The token in a token server's answer.
pub fn parse_token(body: &[u8]) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Answer {
        token: Option<String>,
        access_token: Option<String>,
    }
    let answer: Answer = serde_json::from_slice(body).ok()?;
    answer.token.or(answer.access_token).filter(|token| !token.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_challenges() {
        let hub = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/busybox:pull,push""#;
        assert_eq!(
            parse_challenge(hub),
            Some(Challenge::Bearer {
                realm: "https://auth.docker.io/token".into(),
                service: Some("registry.docker.io".into()),
                scope: Some("repository:library/busybox:pull,push".into()),
            })
        );
        assert_eq!(parse_challenge("Basic realm=\"x\""), Some(Challenge::Basic));
        assert_eq!(parse_challenge("Negotiate"), None);
        assert_eq!(parse_challenge("Bearer service=\"x\""), None);
        assert_eq!(parse_challenge("Bearer realm=\"unfinished"), None);
    }

    #[test]
    fn asks_for_tokens() {
        let user = Auth::Basic { username: "me".into(), password: "a:b".into() };
        let request = token_request("https://a/token", Some("s s"), "repository:x:pull", &user).unwrap();
        assert_eq!(request.uri(), "https://a/token?service=s%20s&scope=repository:x:pull&account=me");
        assert_eq!(request.headers()["authorization"], "Basic bWU6YTpi");
        let refresh = token_request("https://a/token", None, "x", &Auth::Identity("t+".into())).unwrap();
        assert_eq!(refresh.method(), Method::POST);
        assert!(token_request("file:///etc/passwd", None, "x", &user).is_none());
        assert_eq!(Auth::from_encoded("bWU6YTpi"), Some(user.clone()));
        assert!(!format!("{user:?}").contains("a:b"));
    }

    proptest::proptest! {
        #[test]
        fn no_header_makes_it_panic(header in "\\PC{0,60}") {
            let _ = parse_challenge(&header);
            let _ = parse_challenge(&format!("Bearer {header}"));
        }
    }
}

//! What a request is about, read from its method, path and query: the verb and the resource that authorisation and the
//! registry speak of. The rules are those of the Kubernetes API conventions ("Resources", "Verbs on Resources").

use http::Method;

use super::query::Query;

/// What the request is about. For a path that names no resource, `resource` is empty and `path` is what is authorised.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestInfo {
    pub verb: &'static str,
    pub path: String,
    pub is_resource: bool,
    pub group: String,
    pub version: String,
    pub namespace: String,
    pub resource: String,
    pub subresource: String,
    pub name: String,
    /// The field selector of a list, a watch or a deletecollection.
    pub fields: String,
    /// The label selector of the same.
    pub labels: String,
    /// Segments behind the subresource (`proxy/a/b`).
    pub rest: Vec<String>,
}

impl RequestInfo {
    pub fn parse(method: &Method, path: &str, query: &Query) -> RequestInfo {
        let mut info = RequestInfo { path: path.to_owned(), verb: plain_verb(method), ..RequestInfo::default() };
        let mut parts: Vec<String> = path.trim_matches('/').split('/').map(super::query::decode_path_segment).collect();
        // No segment is empty but in what is passed on as it is.
        if parts.iter().take(fixed(&parts)).any(String::is_empty) {
            return info;
        }
        match parts.first().map(String::as_str) {
            Some("api") if parts.len() >= 3 => {
                info.version = parts[1].clone();
                parts.drain(..2);
            }
            Some("apis") if parts.len() >= 4 => {
                info.group = parts[1].clone();
                info.version = parts[2].clone();
                parts.drain(..3);
            }
            _ => return info,
        }
        info.is_resource = true;
        info.take_resource(parts);
        info.verb = info.resource_verb(method, query);
        if info.name.is_empty() && matches!(info.verb, "list" | "watch" | "deletecollection") {
            info.fields = query.get("fieldSelector").unwrap_or("").to_owned();
            info.labels = query.get("labelSelector").unwrap_or("").to_owned();
            info.name = exact_name(&info.fields).unwrap_or_default();
        }
        info
    }

    fn take_resource(&mut self, mut parts: Vec<String>) {
        if parts[0] == "namespaces" && parts.len() >= 2 {
            self.namespace = parts[1].clone();
            // `/namespaces/a`, `/namespaces/a/status` and `/finalize` are about the namespace itself.
            let own = parts.len() == 2 || (parts.len() == 3 && matches!(parts[2].as_str(), "status" | "finalize"));
            if !own {
                parts.drain(..2);
            }
        }
        let mut parts = parts.into_iter();
        self.resource = parts.next().unwrap_or_default();
        self.name = parts.next().unwrap_or_default();
        self.subresource = parts.next().unwrap_or_default();
        self.rest = parts.collect();
    }

    fn resource_verb(&self, method: &Method, query: &Query) -> &'static str {
        let named = !self.name.is_empty();
        match *method {
            Method::GET | Method::HEAD if named => "get",
            Method::GET | Method::HEAD => {
                if query.flag("watch") {
                    "watch"
                } else {
                    "list"
                }
            }
            Method::POST => "create",
            Method::PUT => "update",
            Method::PATCH => "patch",
            Method::DELETE if named => "delete",
            Method::DELETE => "deletecollection",
            _ => "",
        }
    }
}

/// How many segments a path may have up to its subresource and with it.
fn fixed(parts: &[String]) -> usize {
    let resource = if parts.first().is_some_and(|first| first == "api") { 2 } else { 3 };
    let inside = parts.get(resource).is_some_and(|first| first == "namespaces") && parts.len() > resource + 3;
    resource + if inside { 5 } else { 3 }
}

fn plain_verb(method: &Method) -> &'static str {
    match *method {
        Method::GET => "get",
        Method::HEAD => "head",
        Method::POST => "post",
        Method::PUT => "put",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        Method::OPTIONS => "options",
        _ => "",
    }
}

/// The name in a field selector that asks for exactly one: such a list is authorised as if the name stood in the path.
fn exact_name(selector: &str) -> Option<String> {
    selector
        .split(',')
        .find_map(|term| term.strip_prefix("metadata.name="))
        .map(|name| name.trim_start_matches('=').to_owned())
        .filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(method: Method, uri: &str) -> RequestInfo {
        let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
        RequestInfo::parse(&method, path, &Query::parse(query))
    }

    #[test]
    fn resources_and_their_verbs() {
        let info = parse(Method::GET, "/api/v1/namespaces/a/pods/b/log?follow=true");
        assert_eq!(
            (&*info.namespace, &*info.resource, &*info.name, &*info.subresource, info.verb),
            ("a", "pods", "b", "log", "get")
        );
        assert_eq!(parse(Method::GET, "/apis/apps/v1/deployments").verb, "list");
        assert_eq!(parse(Method::GET, "/api/v1/pods?watch=1").verb, "watch");
        assert_eq!(parse(Method::GET, "/api/v1/pods?watch=false").verb, "list");
        assert_eq!(parse(Method::DELETE, "/api/v1/namespaces/a/pods").verb, "deletecollection");
        assert_eq!(parse(Method::GET, "/api/v1/pods?fieldSelector=metadata.name%3Dx").name, "x");
        let proxied = parse(Method::GET, "/api/v1/namespaces/a/services/b/proxy//c/");
        assert_eq!((&*proxied.name, &*proxied.subresource, &*proxied.rest.join("/")), ("b", "proxy", "/c"));
    }

    #[test]
    fn a_namespace_is_a_resource_in_itself() {
        let info = parse(Method::PUT, "/api/v1/namespaces/a/finalize");
        assert_eq!((&*info.resource, &*info.name, &*info.subresource), ("namespaces", "a", "finalize"));
        assert_eq!(info.namespace, "a");
        let all = parse(Method::GET, "/api/v1/namespaces");
        assert_eq!((&*all.resource, all.verb), ("namespaces", "list"));
    }

    #[test]
    fn other_paths_are_no_resources() {
        let empty = [
            "//api/v1//pods",
            "/api//v1/pods",
            "/api/v1/namespaces//pods",
            "/apis//v1/namespaces/a/pods",
            "/api/v1/proxy//a",
        ];
        let plain = ["/", "/version", "/api", "/api/v1", "/api/v1/", "/apis/apps/v1", "/healthz/ping"];
        for path in plain.into_iter().chain(empty) {
            assert!(!parse(Method::GET, path).is_resource, "{path}");
        }
    }
}

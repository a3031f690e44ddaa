//! ComponentStatus: what clients asked for before components had health endpoints of their own. It says of this process what
//! an answer from it shows by itself: store, scheduler and controllers live in the same one.

use std::sync::Arc;

use gantry_kube::{Object, Ref, Status, resource};
use http::Response;
use serde_json::json;

use super::body::Body;
use super::media::{self, Offer};
use super::resources::no_such_path;
use super::router::{Call, Server};
use super::shape::{self, Rows};
use super::{discovery, respond};
use crate::registry::{Answer, ListOptions, Listed};
use crate::store::{Stored, encode, kinds};

const COMPONENTS: [&str; 3] = ["controller-manager", "etcd-0", "scheduler"];
const DEPRECATED: &str = "v1 ComponentStatus is deprecated in v1.19+";

fn component(name: &str) -> Object {
    let conditions = json!([{"type": "Healthy", "status": "True", "message": "ok"}]);
    let whole =
        json!({"apiVersion": "v1", "kind": "ComponentStatus", "metadata": {"name": name}, "conditions": conditions});
    Object::from_value(whole).unwrap_or_default()
}

pub fn serve(server: &Server, call: &Call) -> Result<Response<Body>, Status> {
    let kind = &resource::COMPONENT_STATUS;
    if !call.info.subresource.is_empty() {
        return Err(no_such_path());
    }
    if !discovery::verbs(kind).contains(&call.info.verb) {
        return Err(Status::method_not_allowed());
    }
    let headers = &call.parts.headers;
    let wanted = media::negotiate(headers, Offer::MEASURED)?;
    let (rows, now) = (Rows::read(&call.query, None)?, server.registry.env().clock.now());
    let content = if call.info.verb == "get" {
        let name = COMPONENTS.iter().find(|name| **name == call.info.name);
        let name = name.ok_or_else(|| Status::not_found(kind, &call.info.name))?;
        shape::object(kind, &Answer::Made(component(name)), wanted, &rows, now)?
    } else {
        let options = ListOptions::read(&call.query, kind, None, false)?;
        shape::list(kind, &listed(&options)?, wanted, &rows, now)?
    };
    let mut response = respond::maybe_gzip(content, wanted.content_type(), respond::takes_gzip(headers));
    respond::add_warnings(response.headers_mut(), &[DEPRECATED.to_owned()]);
    Ok(response)
}

/// Those that are asked for. They are in no store, so they are of its revision 0.
fn listed(options: &ListOptions) -> Result<Listed, Status> {
    let chosen = COMPONENTS.iter().map(|name| component(name)).filter(|one| options.selection.matches(one));
    let stored = |one: Object| {
        let key = kinds::key(&resource::COMPONENT_STATUS, &Ref::cluster(one.name()));
        encode(&one).map(|encoded| Arc::new(Stored::new(key, 0, &encoded))).map_err(Status::internal)
    };
    let items = chosen.map(stored).collect::<Result<Vec<_>, _>>()?;
    Ok(Listed { items, revision: 0, continue_token: None, remaining: None })
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_kube::{canonical, schema};

    #[test]
    fn components_are_of_their_kind() {
        let definition = schema::for_kind("", "v1", "ComponentStatus").unwrap();
        for name in COMPONENTS {
            let mut one = component(name);
            assert_eq!(canonical::normalize(definition, &mut one), canonical::Findings::default());
            assert_eq!(one, component(name));
        }
    }
}

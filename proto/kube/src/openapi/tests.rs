use super::*;

fn parsed(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap()
}

/// Every `$ref` of a document.
fn references(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            if let Some(Value::String(to)) = map.get("$ref") {
                found.push(to.clone());
            }
            map.values().for_each(|v| references(v, found));
        }
        Value::Array(items) => items.iter().for_each(|v| references(v, found)),
        _ => {}
    }
}

fn assert_closed(document: &Value) {
    let mut found = vec![];
    references(document, &mut found);
    assert!(!found.is_empty());
    for to in found {
        let pointer = to.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{to} leads nowhere");
    }
}

#[test]
fn no_reference_leads_nowhere() {
    assert_closed(&parsed(v2()));
    for resource in resource::served() {
        assert_closed(&parsed(v3(resource.group, resource.version).unwrap()));
    }
    assert!(v3("apps", "v2").is_none());
}

#[test]
fn operations_have_ids_of_their_own() {
    let document = parsed(v2());
    let mut seen = std::collections::BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap().iter().filter(|(m, _)| *m != "parameters") {
            let id = operation["operationId"].as_str().unwrap();
            assert!(seen.insert(id.to_owned()), "{id} twice, at {method} {path}");
        }
    }
    assert!(seen.contains("patchAppsV1NamespacedDeployment"), "{seen:?}");
}

#[test]
fn definitions_tell_how_lists_merge() {
    let document = parsed(v2());
    let definition = |name: &str| document["definitions"][name].clone();
    let containers = &definition("io.k8s.api.core.v1.PodSpec")["properties"]["containers"];
    assert_eq!(
        containers,
        &json!({"type": "array", "items": {"$ref": "#/definitions/io.k8s.api.core.v1.Container"},
            "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
            "x-kubernetes-patch-strategy": "merge", "x-kubernetes-patch-merge-key": "name"})
    );
    assert_eq!(
        definition("io.k8s.api.apps.v1.DeploymentSpec")["properties"]["strategy"]["x-kubernetes-patch-strategy"],
        "retainKeys"
    );
    assert_eq!(
        definition("io.k8s.api.core.v1.Pod")["x-kubernetes-group-version-kind"],
        json!([{"group": "", "version": "v1", "kind": "Pod"}])
    );
    assert_eq!(definition("io.k8s.apimachinery.pkg.api.resource.Quantity"), json!({"type": "string"}));
    assert!(!String::from_utf8_lossy(v2()).contains("\"description\":\"P"));
}

/// What `kubectl apply` and `create` look for before they trust the server with validation and dry runs.
#[test]
fn every_stored_kind_has_a_patch_that_names_its_parameters() {
    for resource in resource::served().filter(|r| !r.virtual_only) {
        let kind = json!({"group": resource.group, "version": resource.version, "kind": resource.kind});
        for document in [parsed(v2()), parsed(v3(resource.group, resource.version).unwrap())] {
            let paths = document["paths"].as_object().unwrap().clone();
            let patches: Vec<&Value> = paths
                .values()
                .filter_map(|item| item.get("patch"))
                .filter(|patch| patch["x-kubernetes-group-version-kind"] == kind)
                .collect();
            assert!(!patches.is_empty(), "{} has no patch", resource.kind);
            for patch in patches {
                for name in ["fieldValidation", "dryRun", "fieldManager"] {
                    let parameters = patch["parameters"].as_array().unwrap();
                    assert!(parameters.iter().any(|p| p["name"] == name), "{} lacks {name}", resource.kind);
                }
                let strategic = "application/strategic-merge-patch+json";
                let v2 = patch["consumes"].as_array().is_some_and(|c| c.iter().any(|c| c == strategic));
                assert!(v2 || patch["requestBody"]["content"].get(strategic).is_some());
            }
        }
    }
}

#[test]
fn the_v3_root_names_every_document_by_its_hash() {
    let root = parsed(v3_root());
    let paths = root["paths"].as_object().unwrap();
    assert_eq!(
        paths["apis/apps/v1"]["serverRelativeURL"],
        format!("/openapi/v3/apis/apps/v1?hash={}", v3_hash("apps", "v1").unwrap())
    );
    assert!(paths["api/v1"]["serverRelativeURL"].as_str().unwrap().starts_with("/openapi/v3/api/v1?hash="));
    assert_ne!(v3_hash("apps", "v1"), v3_hash("", "v1"));
    assert_eq!(etag(v2()), etag(v2()));
}

/// Reads the bytes back by the numbers of gnostic's published proto.
#[test]
fn the_protobuf_says_what_the_json_says() {
    let field = |message: &[u8], number: u32| -> Vec<Vec<u8>> {
        let (mut at, mut found) = (0, vec![]);
        let varint = |at: &mut usize| {
            let (mut value, mut shift) = (0u64, 0);
            loop {
                let byte = message[*at];
                *at += 1;
                value |= u64::from(byte & 0x7f) << shift;
                shift += 7;
                if byte & 0x80 == 0 {
                    return value;
                }
            }
        };
        while at < message.len() {
            let key = varint(&mut at);
            let length = varint(&mut at) as usize;
            if key & 7 == 2 {
                if (key >> 3) as u32 == number {
                    found.push(message[at..at + length].to_vec());
                }
                at += length;
            }
        }
        found
    };
    let text = |message: &[u8], number| field(message, number).first().map(|b| String::from_utf8(b.clone()).unwrap());
    let value = |list: Vec<Vec<u8>>, name: &str| {
        let entry = list.into_iter().find(|e| text(e, 1).as_deref() == Some(name)).unwrap();
        field(&entry, 2).remove(0)
    };
    let json = parsed(v2());
    let document = v2_protobuf();
    assert_eq!(text(document, 1).as_deref(), Some("2.0"));
    let definitions = field(&field(document, 9)[0], 1);
    assert_eq!(definitions.len(), json["definitions"].as_object().unwrap().len());
    let paths = field(&field(document, 8)[0], 2);
    assert_eq!(paths.len(), json["paths"].as_object().unwrap().len());

    let spec = value(definitions, "io.k8s.api.core.v1.PodSpec");
    let containers = value(field(&field(&spec, 25)[0], 1), "containers");
    assert_eq!(text(&field(&containers, 22)[0], 1).as_deref(), Some("array"));
    let strategy = value(field(&containers, 31), "x-kubernetes-patch-strategy");
    assert_eq!(text(&strategy, 2).as_deref(), Some("\"merge\"\n"));
    let items = &field(&field(&containers, 23)[0], 1)[0];
    assert_eq!(text(items, 1).as_deref(), Some("#/definitions/io.k8s.api.core.v1.Container"));

    let patch = &field(&value(paths, "/api/v1/namespaces/{namespace}/pods/{name}"), 8)[0];
    let kind = value(field(patch, 13), "x-kubernetes-group-version-kind");
    assert_eq!(parsed(text(&kind, 2).unwrap().as_bytes()), json!({"group": "", "version": "v1", "kind": "Pod"}));
    let queries: Vec<String> = field(patch, 8)
        .iter()
        .filter_map(|item| field(&field(item, 1)[0], 2).first().cloned())
        .filter_map(|other| field(&other, 3).first().cloned())
        .filter_map(|query| text(&query, 4))
        .collect();
    assert!(queries.iter().any(|q| q == "dryRun"), "{queries:?}");
}

fn widgets() -> CustomVersion {
    let mut schema = crate::custom::tests::example_schema();
    schema["description"] = json!("A widget.");
    schema["required"] = json!(["spec", "note"]);
    schema["properties"]["note"] = json!({"type": "string", "nullable": true});
    CustomVersion {
        group: "stable.example.com".into(),
        version: "v1".into(),
        kind: "Widget".into(),
        list_kind: "WidgetList".into(),
        plural: "widgets".into(),
        namespaced: true,
        schema: std::sync::Arc::new(schema),
        status: true,
        scale: true,
        selectable: vec![".spec.mode".into()],
    }
}

#[test]
fn custom_kinds_are_in_the_documents() {
    let documents = Documents::with(vec![widgets()]);
    let tagged = documents.v3("stable.example.com", "v1").unwrap();
    let document = parsed(&tagged.bytes);
    assert_closed(&document);
    let widget = &document["components"]["schemas"]["com.example.stable.v1.Widget"];
    assert_eq!(
        widget["x-kubernetes-group-version-kind"],
        json!([{"group": "stable.example.com", "version": "v1", "kind": "Widget"}])
    );
    assert_eq!(
        widget["properties"]["metadata"]["$ref"],
        "#/components/schemas/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
    );
    assert_eq!(widget["x-kubernetes-selectable-fields"], json!([{"fieldPath": "spec.mode"}]));
    assert_eq!(widget["description"], "A widget.");
    let spec = &widget["properties"]["spec"]["properties"];
    assert_eq!(spec["parts"]["x-kubernetes-list-map-keys"], json!(["name", "port"]));
    assert_eq!(spec["port"]["anyOf"], json!([{"type": "integer"}, {"type": "string"}]));
    assert_eq!(spec["inner"]["required"], json!(["kind", "apiVersion"]));
    let paths = document["paths"].as_object().unwrap();
    let one = "/apis/stable.example.com/v1/namespaces/{namespace}/widgets/{name}";
    for path in [
        "/apis/stable.example.com/v1/widgets".to_owned(),
        one.to_owned(),
        format!("{one}/status"),
        format!("{one}/scale"),
    ] {
        assert!(paths.contains_key(&path), "{path}");
    }
    assert_eq!(paths[one]["get"]["operationId"], "readStableExampleComV1NamespacedWidget");
    let patches = paths[one]["patch"]["requestBody"]["content"].as_object().unwrap();
    assert!(patches.keys().all(|kind| !kind.contains("strategic")), "{patches:?}");
    let root = parsed(&documents.v3_root().bytes);
    let url = root["paths"]["apis/stable.example.com/v1"]["serverRelativeURL"].as_str().unwrap();
    assert_eq!(url, format!("/openapi/v3/apis/stable.example.com/v1?hash={}", tagged.tag));
    assert_eq!(documents.v3("apps", "v1").unwrap().bytes, v3("apps", "v1").unwrap());
    assert!(documents.v3("example.com", "v1").is_none());
}

#[test]
fn v2_says_of_custom_kinds_what_it_can() {
    let documents = Documents::with(vec![widgets()]);
    let document = parsed(&documents.v2().bytes);
    assert_closed(&document);
    let widget = &document["definitions"]["com.example.stable.v1.Widget"];
    let spec = &widget["properties"]["spec"]["properties"];
    assert_eq!(spec["port"], json!({"x-kubernetes-int-or-string": true}));
    assert_eq!(spec["note"], json!({}));
    assert_eq!(spec["open"], json!({"x-kubernetes-preserve-unknown-fields": true}));
    assert_eq!(widget["required"], json!(["spec"]), "what may be null need not be there");
    assert!(document["definitions"]["com.example.stable.v1.WidgetList"]["properties"]["items"].is_object());
    // The built-in kinds are all there still.
    let built_in = parsed(v2());
    for name in built_in["definitions"].as_object().unwrap().keys() {
        assert!(document["definitions"].get(name).is_some(), "{name}");
    }
    let protobuf = &documents.v2_protobuf().bytes;
    let holds = |text: &str| protobuf.windows(text.len()).any(|window| window == text.as_bytes());
    assert!(holds("com.example.stable.v1.Widget") && holds("A widget."));
    // A kind that keeps every field names none.
    let mut open = widgets();
    open.schema = std::sync::Arc::new(json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true}));
    let document = parsed(&Documents::with(vec![open]).v2().bytes);
    let widget = document["definitions"]["com.example.stable.v1.Widget"].as_object().unwrap();
    assert_eq!(widget["type"], "object");
    assert!(!widget.contains_key("properties"));
    assert_eq!(parsed(&Documents::default().v2().bytes), built_in);
}

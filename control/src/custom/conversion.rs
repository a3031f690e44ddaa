//! A custom object from one version of its kind to another. Source: the Kubernetes documentation "Versions in
//! CustomResourceDefinitions".

use std::time::Duration;

use gantry_env::Env;
use gantry_kube::{Object, Status};
use serde_json::{Value, json};

use super::Custom;
use crate::store::Cache;
use crate::webhook::{Webhook, WebhookError, Webhooks, told};

const WEBHOOK_TIMEOUT: Duration = Duration::from_secs(30);
const REVIEW_GROUP: &str = "apiextensions.k8s.io";
/// The versions of ConversionReview that are spoken.
const REVIEW_VERSIONS: [&str; 2] = ["v1", "v1beta1"];

/// What turns the objects of a kind from one version into another.
#[derive(Debug)]
pub enum Conversion {
    /// Only apiVersion changes.
    None,
    Webhook {
        webhook: Result<Webhook, WebhookError>,
        /// The first of the versions of ConversionReview that it names and that are spoken here.
        review: Option<&'static str>,
    },
}

impl Conversion {
    pub(super) fn read(definition: &Object) -> Conversion {
        if definition.str_at("/spec/conversion/strategy") != "Webhook" {
            return Conversion::None;
        }
        let null = Value::Null;
        let webhook = Webhook::read(definition.get("/spec/conversion/webhook/clientConfig").unwrap_or(&null));
        let named = definition.array_at("/spec/conversion/webhook/conversionReviewVersions");
        let spoken = |name: &Value| REVIEW_VERSIONS.into_iter().find(|version| name == version);
        Conversion::Webhook { webhook, review: named.iter().find_map(spoken) }
    }
}

/// Why objects could not be converted.
#[derive(Debug, thiserror::Error)]
enum ConversionError {
    #[error("{}", told(.0))]
    Call(#[from] WebhookError),
    #[error("it speaks no version of ConversionReview that is known here")]
    Review,
    #[error("expected response.uid={sent:?}, got {got:?}")]
    Uid { sent: String, got: String },
    #[error("{0}")]
    Failed(String),
    #[error("expected {sent} converted objects, got {got}")]
    Count { sent: usize, got: usize },
    #[error("converted object {index}: {why}")]
    Object { index: usize, why: String },
}

/// Converts custom objects. Cheap to clone.
#[derive(Clone)]
pub struct Converter {
    webhooks: Webhooks,
    env: Env,
}

impl Converter {
    pub fn new(cache: Cache, env: Env) -> Converter {
        Converter { webhooks: Webhooks::new(cache, env.clone()), env }
    }

    /// Stored objects, of whichever version each was stored in, as this one has them: without what its schema does not know,
    /// and with its defaults.
    pub async fn read(&self, custom: &Custom, mut objects: Vec<Object>) -> Result<Vec<Object>, Status> {
        let wanted = custom.resource.api_version();
        for object in objects.iter_mut().filter(|object| object.api_version() != wanted) {
            if let Some(own) = custom.version_of(object.api_version()) {
                own.complete(object)?;
            }
        }
        let mut objects = self.convert(custom, objects, &wanted).await?;
        objects.iter_mut().try_for_each(|object| custom.complete(object))?;
        Ok(objects)
    }

    /// An object of this version as the one that is stored has it.
    pub async fn write(&self, custom: &Custom, object: Object) -> Result<Object, Status> {
        let stored = custom.definition.stored_version().resource.api_version();
        let mut converted = self.convert(custom, vec![object], &stored).await?;
        converted.pop().ok_or_else(|| Status::internal("a conversion lost its object"))
    }

    async fn convert(&self, custom: &Custom, mut objects: Vec<Object>, to: &str) -> Result<Vec<Object>, Status> {
        let others: Vec<usize> = (0..objects.len()).filter(|at| objects[*at].api_version() != to).collect();
        if others.is_empty() {
            return Ok(objects);
        }
        let (webhook, review) = match &custom.definition.conversion {
            Conversion::None => {
                for at in others {
                    objects[at].0.insert("apiVersion".to_owned(), json!(to));
                }
                return Ok(objects);
            }
            Conversion::Webhook { webhook, review } => (webhook, review),
        };
        let failed = |error: ConversionError| {
            let resource = custom.resource;
            let what = format!("{}, Kind={}", resource.api_version(), resource.kind);
            Status::internal(format!("conversion webhook for {what} failed: {error}"))
        };
        let sent: Vec<&Object> = others.iter().map(|at| &objects[*at]).collect();
        let converted = match (webhook, review) {
            (Ok(webhook), Some(review)) => self.by_webhook(webhook, review, &sent, to).await.map_err(failed)?,
            (Err(error), _) => return Err(failed(ConversionError::Failed(told(error)))),
            (_, None) => return Err(failed(ConversionError::Review)),
        };
        for (at, object) in others.into_iter().zip(converted) {
            objects[at] = object;
        }
        Ok(objects)
    }

    async fn by_webhook(
        &self,
        webhook: &Webhook,
        review: &str,
        sent: &[&Object],
        to: &str,
    ) -> Result<Vec<Object>, ConversionError> {
        let uid = self.env.rng.uuid();
        let objects: Vec<&serde_json::Map<String, Value>> = sent.iter().map(|object| &object.0).collect();
        let request = json!({
            "kind": "ConversionReview", "apiVersion": format!("{REVIEW_GROUP}/{review}"),
            "request": {"uid": uid, "desiredAPIVersion": to, "objects": objects},
        });
        let mut answer = self.webhooks.call(webhook, &request, WEBHOOK_TIMEOUT).await?;
        let response = answer["response"].take();
        converted(response, &uid, sent, to)
    }
}

/// The objects of an answer, each checked against the one that was sent.
fn converted(mut response: Value, uid: &str, sent: &[&Object], to: &str) -> Result<Vec<Object>, ConversionError> {
    let got = response["uid"].as_str().unwrap_or("");
    if got != uid {
        return Err(ConversionError::Uid { sent: uid.to_owned(), got: got.to_owned() });
    }
    if response["result"]["status"] != "Success" {
        let message = response["result"]["message"].as_str().filter(|message| !message.is_empty());
        let why = message.unwrap_or("response.result.status was not set to \"Success\"");
        return Err(ConversionError::Failed(why.to_owned()));
    }
    let Value::Array(objects) = response["convertedObjects"].take() else {
        return Err(ConversionError::Count { sent: sent.len(), got: 0 });
    };
    if objects.len() != sent.len() {
        return Err(ConversionError::Count { sent: sent.len(), got: objects.len() });
    }
    let each = objects.into_iter().zip(sent).enumerate();
    each.map(|(index, (object, sent))| one(object, sent, to).map_err(|why| ConversionError::Object { index, why }))
        .collect()
}

/// Of the metadata a webhook may change labels and annotations alone.
fn one(object: Value, sent: &Object, to: &str) -> Result<Object, String> {
    let mut object = Object::from_value(object).map_err(|error| error.to_string())?;
    if object.api_version() != to {
        return Err(format!("invalid groupVersion: expected {to}, got {}", object.api_version()));
    }
    if object.kind() != sent.kind() {
        return Err(format!("invalid kind: expected {}, got {}", sent.kind(), object.kind()));
    }
    if !object.0.get("metadata").is_some_and(Value::is_object) {
        return Err("invalid metadata: it is no map".to_owned());
    }
    for field in ["name", "namespace", "uid"] {
        let at = format!("/metadata/{field}");
        if object.str_at(&at) != sent.str_at(&at) {
            let (wanted, got) = (sent.str_at(&at), object.str_at(&at));
            return Err(format!("must have the same {field}: {wanted:?} != {got:?}"));
        }
    }
    let mut metadata = sent.0.get("metadata").and_then(Value::as_object).cloned().unwrap_or_default();
    for field in ["labels", "annotations"] {
        match object.metadata_mut().remove(field).filter(|value| !value.is_null()) {
            Some(value) => metadata.insert(field.to_owned(), value),
            None => metadata.remove(field),
        };
    }
    object.0.insert("metadata".to_owned(), Value::Object(metadata));
    Ok(object)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(value: Value) -> Object {
        Object::from_value(value).unwrap()
    }

    fn answer(objects: Value) -> Value {
        json!({"uid": "u", "result": {"status": "Success"}, "convertedObjects": objects})
    }

    #[test]
    fn an_answer_may_change_all_but_who_the_object_is() {
        let sent = object(json!({"apiVersion": "g/v1", "kind": "K",
            "metadata": {"name": "a", "uid": "x", "labels": {"l": "1"}, "generation": 3}, "spec": {"old": 1}}));
        let good = json!([{"apiVersion": "g/v2", "kind": "K",
            "metadata": {"name": "a", "uid": "x", "annotations": {"n": "2"}, "generation": 9}, "spec": {"new": 1}}]);
        let got = converted(answer(good), "u", &[&sent], "g/v2").unwrap();
        let wanted = json!({"apiVersion": "g/v2", "kind": "K",
            "metadata": {"name": "a", "uid": "x", "annotations": {"n": "2"}, "generation": 3}, "spec": {"new": 1}});
        assert_eq!(got, [object(wanted)]);
    }

    #[test]
    fn answers_that_are_refused() {
        let sent = object(json!({"apiVersion": "g/v1", "kind": "K", "metadata": {"name": "a"}}));
        let of = |api_version: &str, kind: &str, name: &str| {
            answer(json!([{"apiVersion": api_version, "kind": kind, "metadata": {"name": name}}]))
        };
        let failure = json!({"uid": "u", "result": {"status": "Failure", "message": "no way"}});
        for (response, word) in [
            (of("g/v1", "K", "a"), "groupVersion"),
            (of("g/v2", "L", "a"), "kind"),
            (of("g/v2", "K", "b"), "same name"),
            (answer(json!([])), "expected 1"),
            (answer(json!([{"apiVersion": "g/v2", "kind": "K"}])), "metadata"),
            (answer(json!(["x"])), "object 0"),
            (failure, "no way"),
            (json!({"uid": "other"}), "uid"),
            (Value::Null, "uid"),
        ] {
            let error = converted(response.clone(), "u", &[&sent], "g/v2").unwrap_err().to_string();
            assert!(error.contains(word), "{response}: {error}");
        }
    }
}

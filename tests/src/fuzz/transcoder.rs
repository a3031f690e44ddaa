//! From JSON to protobuf and back, and the other way round.
//!
//! What protobuf cannot say (a list that is empty and not absent, a field without a number) is lost on the first way.
//! After that nothing is: what was read is written as the same bytes.

use gantry_kube::protobuf::encode::{encode, raw};
use gantry_kube::protobuf::{ProtobufError, decode, decode_as};
use gantry_kube::{Object, Resource, canonical, schema};

use super::input::Input;
use super::object;

pub(super) fn transcoder(data: &[u8]) {
    let mut input = Input(data);
    let way = input.byte() % 3;
    let resource = input.resource();
    let read = match way {
        0 => decode(&object::frame(resource, input.0)).ok(),
        1 => decode_as(input.0, &resource.api_version(), resource.kind).ok(),
        _ => canonical::parse_json(input.0).ok().map(|(object, _)| object),
    };
    if let Some(mut read) = read {
        read.0.insert("apiVersion".to_owned(), resource.api_version().into());
        read.0.insert("kind".to_owned(), resource.kind.into());
        settles(resource, read);
    }
}

fn settles(resource: &Resource, read: Object) {
    let object = normal(resource, read);
    let body = encode(&object).unwrap_or_else(|error| panic!("{error}: {object:?}"));
    assert!(raw(&body).is_some(), "a list could not take it");
    let again = match decode(&body) {
        Ok(again) => normal(resource, again),
        // What JSON leaves out counts on the wire, and JSON may be deeper.
        Err(ProtobufError::TooMany | ProtobufError::Depth) => return,
        Err(error) => panic!("{error}: {object:?}"),
    };
    assert_eq!(encode(&again).expect("it was written before"), body, "{again:?} of {object:?}");
    let third = normal(resource, decode(&body).expect("it was read before"));
    assert_eq!(third, again);
}

fn normal(resource: &Resource, mut object: Object) -> Object {
    let ty = schema::for_kind(resource.group, resource.version, resource.kind).expect("every served kind has one");
    canonical::normalize(ty, &mut object);
    object
}

/// Those of the two encodings.
pub(super) fn seeds() -> Vec<Vec<u8>> {
    let json = object::json_seeds().into_iter().map(|seed| [&[2], &seed[..]].concat());
    json.chain(object::protobuf_seeds()).collect()
}

//! ServiceCIDR (networking.k8s.io/v1).
//!
//! - `spec.cidrs` has one range in canonical form, or one of each family.
//! - A range never changes; a second one, of the other family, may be added to the first.

use ipnet::IpNet;

use super::at::{At, Errors};
use super::format::canonical_cidr;
use crate::{FieldError, Object};

pub fn create(object: &Object, errors: &mut Errors) {
    ranges(object, errors);
}

fn ranges(object: &Object, errors: &mut Errors) {
    let spec = At::of(object, "spec");
    let cidrs = spec.field("cidrs");
    match cidrs.count() {
        0 => return cidrs.required(errors, "at least one CIDR required"),
        1 | 2 => {}
        _ => {
            let why = "may only hold up to 2 values";
            return errors.push(FieldError::invalid(cidrs.path.as_str(), spec.value.clone(), why));
        }
    }
    for cidr in cidrs.items() {
        if let Some(why) = canonical_cidr(cidr.text()) {
            cidr.invalid(errors, why);
        }
    }
    let families: Vec<bool> = cidrs
        .items()
        .filter_map(|cidr| cidr.text().parse::<IpNet>().ok())
        .map(|net| matches!(net, IpNet::V4(_)))
        .collect();
    if families.len() == 2 && families[0] == families[1] {
        let why = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64";
        cidrs.invalid(errors, why);
    }
}

pub fn update(new: &Object, old: &Object, errors: &mut Errors) {
    let cidrs = |object| At::of(object, "spec").field("cidrs");
    let (now, was) = (cidrs(new), cidrs(old));
    let grows = was.count() == 1 && now.count() == 2;
    if now.count() != was.count() && !grows {
        now.immutable(errors, &was);
        return;
    }
    for (now, was) in now.items().zip(was.items()) {
        now.immutable(errors, &was);
    }
    if grows {
        ranges(new, errors);
    }
}

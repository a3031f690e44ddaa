//! CronJobs.

use super::at::{At, Errors};
use super::job;
use crate::cron::{self, Schedule};
use crate::{FieldError, Object};

/// A Job's name is at most 63 characters, eleven of them the minute that it is of and the dash before it.
const NAME_MAX_CHARS: usize = 52;
const ZONE_PART_MAX_CHARS: usize = 14;

pub fn create(object: &Object, errors: &mut Errors) {
    if object.name().len() > NAME_MAX_CHARS {
        let why = format!("must be no more than {NAME_MAX_CHARS} characters");
        errors.push(FieldError::invalid("metadata.name", object.name(), why));
    }
    cron_job(object, errors);
}

pub fn cron_job(object: &Object, errors: &mut Errors) {
    let spec = At::of(object, "spec");
    schedule(&spec.field("schedule"), errors);
    time_zone(&spec.field("timeZone"), errors);
    spec.field("startingDeadlineSeconds").at_least_zero(errors);
    spec.field("concurrencyPolicy").one_of(errors, &["Allow", "Forbid", "Replace"]);
    let template = spec.field("jobTemplate").field("spec");
    if template.field("selector").is_set() {
        template.field("selector").invalid(errors, "`selector` will be auto-generated");
    }
    let by_hand = template.field("manualSelector");
    if by_hand.value == true {
        by_hand.not_supported(errors, &["nil", "false"]);
    }
    job::job_spec(&template, errors);
    for limit in ["successfulJobsHistoryLimit", "failedJobsHistoryLimit"] {
        spec.field(limit).at_least_zero(errors);
    }
}

fn schedule(at: &At<'_>, errors: &mut Errors) {
    if !at.present(errors) {
        return;
    }
    if at.text().contains("TZ") {
        at.invalid(errors, "cannot use TZ or CRON_TZ in schedule, use timeZone field instead");
    } else if let Err(error) = Schedule::parse(at.text()) {
        at.invalid(errors, error.to_string());
    }
}

fn time_zone(at: &At<'_>, errors: &mut Errors) {
    if !at.is_set() {
        return;
    }
    let name = at.text();
    let of_a_zone = |byte: u8| byte.is_ascii_alphanumeric() || b"+-_".contains(&byte);
    let spelled =
        name.split('/').all(|part| (1..=ZONE_PART_MAX_CHARS).contains(&part.len()) && part.bytes().all(of_a_zone));
    if name.is_empty() {
        at.invalid(errors, "must be nil or non-empty string");
    } else if name.eq_ignore_ascii_case("Local") {
        at.invalid(errors, "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones");
    } else if !spelled || cron::zone(name).is_none() {
        at.invalid(errors, format!("unknown time zone {name}"));
    }
}

use super::*;

fn base() -> Value {
    json!({"metadata": {"name": "Any thing"}, "spec": {"request": "YQ==", "signerName": "example.com/a",
        "usages": ["client auth", "digital signature"]}})
}

const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start \
    and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is \
    '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";

#[test]
fn requests() {
    let few = "should be a domain with at least two segments separated by dots";
    let form = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
    refuses(
        &CERTIFICATE_SIGNING_REQUEST,
        &base(),
        &[
            ("/spec/usages", json!([]), &["spec.usages: Required value"]),
            ("/spec/usages/1", json!("client auth"), &["spec.usages[1]: Duplicate value: \"client auth\""]),
            ("/spec/signerName", json!(""), &["spec.signerName: Required value"]),
            ("/spec/signerName", json!("a"), &[&format!("spec.signerName: Invalid value: \"a\": {form}")]),
            ("/spec/signerName", json!("a.b/c/d"), &[&format!("spec.signerName: Invalid value: \"a.b/c/d\": {form}")]),
            ("/spec/signerName", json!("a/b"), &[&format!("spec.signerName: Invalid value: \"a\": {few}")]),
            (
                "/spec/signerName",
                json!("a._/b"),
                &[&format!("spec.signerName: Invalid value: \"a._\": validating label \"_\": {LABEL}")],
            ),
            (
                "/spec/signerName",
                json!("kubernetes.io/legacy-unknown"),
                &[
                    "spec.signerName: Invalid value: \"kubernetes.io/legacy-unknown\": the legacy signerName is not allowed \
                   via this API version",
                ],
            ),
            (
                "/spec/expirationSeconds",
                json!(599),
                &["spec.expirationSeconds: Invalid value: 599: may not specify a duration less than 600 seconds (10 \
                   minutes)"],
            ),
            (
                "/status/conditions",
                json!([{"type": "", "status": "True"}]),
                &["status.conditions[0].type: Required value"],
            ),
            (
                "/status/conditions",
                json!([{"type": "Approved", "status": "False"}]),
                &["status.conditions[0].status: Unsupported value: \"False\": supported values: \"True\""],
            ),
            (
                "/status/conditions",
                json!([{"type": "a", "status": "Perhaps"}]),
                &[
                    "status.conditions[0].status: Unsupported value: \"Perhaps\": supported values: \"False\", \"True\", \
                   \"Unknown\"",
                ],
            ),
            ("/status/conditions", json!([{"type": "a"}]), &["status.conditions[0].status: Required value"]),
            (
                "/status/conditions",
                json!([{"type": "Approved", "status": "True"}, {"type": "Denied", "status": "True"}]),
                &[
                    "status.conditions: Invalid value: \"Denied\": Approved and Denied conditions are mutually exclusive",
                ],
            ),
            (
                "/status/conditions",
                json!([{"type": "a", "status": "True"}, {"type": "a", "status": "True"}]),
                &["status.conditions[1].type: Duplicate value: \"a\""],
            ),
        ],
    );
    let unknown = prepared(&CERTIFICATE_SIGNING_REQUEST, &with(&base(), "/spec/usages/0", json!("fun")));
    let found = words(create(&CERTIFICATE_SIGNING_REQUEST, &unknown));
    let head = "spec.usages[0]: Unsupported value: \"fun\": supported values: \"any\", \"cert sign\", \"client auth\"";
    assert!(found.len() == 1 && found[0].starts_with(head), "{found:?}");
    accepts(
        &CERTIFICATE_SIGNING_REQUEST,
        &base(),
        &[("/spec/expirationSeconds", json!(600)), ("/spec/signerName", json!("a.b/c.d"))],
    );
    let named = prepared(&CERTIFICATE_SIGNING_REQUEST, &base());
    assert_eq!(meta::create(&CERTIFICATE_SIGNING_REQUEST, &named), []);
}

#[test]
fn decisions_and_certificates() {
    let conditions = "status.conditions: Forbidden: updates may not";
    let approved = json!([{"type": "Approved", "status": "True"}]);
    let decided = with(&base(), "/status/conditions", approved.clone());
    let failed = with(&base(), "/status/conditions", json!([{"type": "Failed", "status": "True"}]));
    statuses(&CERTIFICATE_SIGNING_REQUEST, "approval", &base(), &[("/status/conditions", approved.clone(), &[])]);
    statuses(
        &CERTIFICATE_SIGNING_REQUEST,
        "status",
        &base(),
        &[
            ("/status/conditions", approved, &[&format!("{conditions} add a condition of type \"Approved\"")]),
            ("/status/conditions", json!([{"type": "Failed", "status": "True"}]), &[]),
            ("/status/certificate", json!("YQ=="), &[]),
        ],
    );
    statuses(
        &CERTIFICATE_SIGNING_REQUEST,
        "status",
        &decided,
        &[
            (
                "/status/conditions/0/reason",
                json!("other"),
                &[&format!("{conditions} modify a condition of type \"Approved\"")],
            ),
            ("/status/conditions", json!([]), &[&format!("{conditions} remove a condition of type \"Approved\"")]),
        ],
    );
    statuses(
        &CERTIFICATE_SIGNING_REQUEST,
        "approval",
        &failed,
        &[("/status/conditions", json!([]), &[&format!("{conditions} remove a condition of type \"Failed\"")])],
    );
    let issued = with(&base(), "/status/certificate", json!("YQ=="));
    let content = "updates may not modify existing certificate content";
    statuses(
        &CERTIFICATE_SIGNING_REQUEST,
        "status",
        &issued,
        &[("/status/certificate", json!("Yg=="), &[&format!("status.certificate: Forbidden: {content}")])],
    );
    statuses(
        &CERTIFICATE_SIGNING_REQUEST,
        "approval",
        &base(),
        &[(
            "/status/certificate",
            json!("Yg=="),
            &["status.certificate: Forbidden: updates may not set certificate content"],
        )],
    );
}

/// What was stored before there was a rule does not keep an object from being changed.
#[test]
fn what_was_wrong_before_may_stay() {
    let mut old = base();
    old["spec"]["usages"] = json!(["fun", "fun"]);
    old["spec"]["signerName"] = json!("kubernetes.io/legacy-unknown");
    let condition = |kind: &str| json!({"type": kind, "status": "True"});
    old["status"] = json!({"conditions": [condition(""), condition(""), condition("Approved"), condition("Denied")]});
    changes(&CERTIFICATE_SIGNING_REQUEST, &old, &[("/metadata/labels", json!({"a": "b"}), &[])]);
}

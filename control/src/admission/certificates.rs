//! CertificateApproval, CertificateSigning and CertificateSubjectRestriction: whoever decides on a request must hold `approve`
//! on its signer, whoever signs it `sign`, and nobody gets a client certificate of the group that may do everything.

use gantry_kube::resource::CERTIFICATE_SIGNING_REQUEST;
use gantry_kube::{Object, Status};

use super::{AdmissionContext, Operation};
use crate::auth::identity::MASTERS_GROUP;
use crate::auth::policy::Policy;
use crate::auth::{Action, Identity, Lookup};
use crate::registry::certificates;

/// Signs client certificates that the API server takes.
const CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client";

pub fn check(context: &AdmissionContext<'_>, object: &Object, old: Option<&Object>) -> Result<(), Status> {
    let is = |subresource: &str| context.is(&CERTIFICATE_SIGNING_REQUEST, subresource);
    match (context.operation, old) {
        (Operation::Create, _) if is("") => restrict_subject(context, object),
        (Operation::Update, Some(old)) if is("approval") => permit(context, old, "approve"),
        (Operation::Update, Some(old)) if is("status") && answers(object, old) => permit(context, old, "sign"),
        _ => Ok(()),
    }
}

fn answers(new: &Object, old: &Object) -> bool {
    ["/status/certificate", "/status/conditions"].iter().any(|part| new.get(part) != old.get(part))
}

fn restrict_subject(context: &AdmissionContext<'_>, object: &Object) -> Result<(), Status> {
    if object.str_at("/spec/signerName") != CLIENT_SIGNER {
        return Ok(());
    }
    // What cannot be read is validation's to refuse.
    match certificates::request(object) {
        Ok(request) if request.organizations.iter().any(|group| group == MASTERS_GROUP) => {
            let why = format!("use of {CLIENT_SIGNER} signer with {MASTERS_GROUP} group is not allowed");
            Err(context.forbidden(object, &why))
        }
        _ => Ok(()),
    }
}

fn permit(context: &AdmissionContext<'_>, old: &Object, verb: &str) -> Result<(), Status> {
    let signer = old.str_at("/spec/signerName");
    if may(context.lookup, context.identity, verb, signer) {
        return Ok(());
    }
    let why = format!("user not permitted to {verb} requests with signerName {signer:?}");
    Err(context.forbidden(old, &why))
}

/// Signers are granted one by one, or all of a domain.
fn may(lookup: &dyn Lookup, identity: &Identity, verb: &str, signer: &str) -> bool {
    let policy = Policy::compile(lookup);
    let domain = format!("{}/*", signer.split('/').next().unwrap_or(""));
    [signer, &domain].into_iter().any(|name| {
        let action = Action::Resource {
            verb,
            group: CERTIFICATE_SIGNING_REQUEST.group,
            resource: "signers",
            subresource: "",
            namespace: "",
            name,
            fields: "",
            labels: "",
        };
        policy.authorize(identity, &action).is_allowed()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::objects::Objects;
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use gantry_env::Env;
    use gantry_kube::resource::{CLUSTER_ROLE, CLUSTER_ROLE_BINDING};
    use serde_json::{Value, json};

    fn object(value: Value) -> Object {
        Object::from_value(value).unwrap()
    }

    fn requested(signer: &str, group: &str) -> Object {
        let (_, pem) = gantry_pki::authority::request("me", Some(group)).unwrap();
        object(json!({"metadata": {"name": "r"}, "spec": {"signerName": signer, "request": STANDARD.encode(pem)}}))
    }

    fn allowed(who: &str, operation: Operation, part: &str, new: &Object, old: Option<&Object>) -> Result<(), String> {
        let mut policy = Vec::new();
        for (user, verb, name) in [("approver", "approve", "example.com/a"), ("signer", "sign", "example.com/*")] {
            let rules = json!([{"verbs": [verb], "apiGroups": ["certificates.k8s.io"], "resources": ["signers"], "resourceNames": [name]}]);
            let role = json!({"apiVersion": CLUSTER_ROLE.api_version(), "kind": "ClusterRole", "metadata": {"name": user}, "rules": rules});
            let binding = json!({"apiVersion": CLUSTER_ROLE_BINDING.api_version(), "kind": "ClusterRoleBinding",
                "metadata": {"name": user}, "roleRef": {"kind": "ClusterRole", "name": user},
                "subjects": [{"kind": "User", "name": user}]});
            policy.extend([role, binding]);
        }
        let lookup = Objects::of(policy);
        let (identity, env) = (Identity::new(who, Vec::<String>::new()), Env::system());
        let context = AdmissionContext {
            identity: &identity,
            resource: &CERTIFICATE_SIGNING_REQUEST,
            subresource: part,
            operation,
            namespace: "",
            name: "r",
            lookup: &lookup,
            env: &env,
        };
        check(&context, new, old).map_err(|status| status.message)
    }

    #[test]
    fn only_who_may_approve_a_signers_requests_decides_on_them() {
        let (a, b) = (requested("example.com/a", "g"), requested("example.com/b", "g"));
        assert_eq!(allowed("approver", Operation::Update, "approval", &a, Some(&a)), Ok(()));
        let refused = "certificatesigningrequests.certificates.k8s.io \"r\" is forbidden: user not permitted to approve \
                       requests with signerName \"example.com/b\"";
        assert_eq!(allowed("approver", Operation::Update, "approval", &b, Some(&b)), Err(refused.to_owned()));
        assert!(allowed("signer", Operation::Update, "approval", &a, Some(&a)).is_err());
    }

    #[test]
    fn only_who_may_sign_for_a_signer_answers() {
        let old = requested("example.com/b", "g");
        let mut new = old.clone();
        assert_eq!(allowed("nobody", Operation::Update, "status", &new, Some(&old)), Ok(()));
        new.0.insert("status".to_owned(), json!({"certificate": "YQ=="}));
        assert_eq!(allowed("signer", Operation::Update, "status", &new, Some(&old)), Ok(()));
        assert!(
            allowed("approver", Operation::Update, "status", &new, Some(&old))
                .unwrap_err()
                .contains("to sign requests")
        );
    }

    #[test]
    fn nobody_asks_for_a_certificate_of_the_masters() {
        let create = |signer: &str, group: &str| allowed("me", Operation::Create, "", &requested(signer, group), None);
        assert!(create(CLIENT_SIGNER, MASTERS_GROUP).unwrap_err().contains("is not allowed"));
        assert_eq!(create(CLIENT_SIGNER, "others"), Ok(()));
        assert_eq!(create("example.com/a", MASTERS_GROUP), Ok(()));
    }
}

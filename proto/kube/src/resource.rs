//! The kinds that Gantry serves, as clients name them: group, version, kind, plural, scope, short names, categories.

mod intern;
mod order;

pub use intern::{Names, intern};
pub use order::version_order;

use crate::versions;

/// One served kind. The statics below are the built-in ones; custom kinds have the same shape by [`intern`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Resource {
    /// Empty for the core group.
    pub group: &'static str,
    pub version: &'static str,
    pub kind: &'static str,
    pub plural: &'static str,
    pub singular: &'static str,
    pub namespaced: bool,
    pub short_names: &'static [&'static str],
    pub categories: &'static [&'static str],
    /// True for kinds that are answered and never stored (the reviews, and what components say of themselves).
    pub virtual_only: bool,
    /// True for kinds that a CustomResourceDefinition brings.
    pub custom: bool,
}

impl Resource {
    /// `v1`, `apps/v1`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.to_owned() } else { format!("{}/{}", self.group, self.version) }
    }

    /// `pods`, `deployments.apps`: as error messages name a resource.
    pub fn qualified(&self) -> String {
        if self.group.is_empty() { self.plural.to_owned() } else { format!("{}.{}", self.plural, self.group) }
    }

    /// The request path of the collection: of one namespace, or of all (and for cluster-scoped kinds).
    pub fn collection_path(&self, namespace: Option<&str>) -> String {
        let root = if self.group.is_empty() {
            format!("/api/{}", self.version)
        } else {
            format!("/apis/{}/{}", self.group, self.version)
        };
        match namespace.filter(|ns| self.namespaced && !ns.is_empty()) {
            Some(ns) => format!("{root}/namespaces/{ns}/{}", self.plural),
            None => format!("{root}/{}", self.plural),
        }
    }

    pub fn object_path(&self, namespace: &str, name: &str) -> String {
        format!("{}/{name}", self.collection_path(Some(namespace)))
    }

    pub fn by_kind(group: &str, version: &str, kind: &str) -> Option<&'static Resource> {
        served().find(|r| r.group == group && r.version == version && r.kind == kind)
    }

    pub fn by_plural(group: &str, version: &str, plural: &str) -> Option<&'static Resource> {
        // What tells most kinds apart comes first: each request asks.
        served().find(|r| r.plural == plural && r.group == group && r.version == version)
    }
}

const fn metrics(kind: &'static str, plural: &'static str, namespaced: bool) -> Resource {
    Resource {
        group: "metrics.k8s.io",
        version: "v1beta1",
        kind,
        plural,
        singular: "",
        namespaced,
        short_names: &[],
        categories: &[],
        virtual_only: true,
        custom: false,
    }
}

/// What nodes and pods use: measured when it is asked for, and no part of the table.
pub static NODE_METRICS: Resource = metrics("NodeMetrics", "nodes", false);
pub static POD_METRICS: Resource = metrics("PodMetrics", "pods", true);

/// What is served of objects that are stored in another version ([`crate::versions`]).
static OTHER_VERSIONS: [Resource; 2] =
    [Resource { version: "v1", ..HORIZONTAL_POD_AUTOSCALER }, Resource { group: "events.k8s.io", ..EVENT }];

/// Every kind in every version of it; the one that is stored, and preferred, comes first.
pub fn served() -> impl Iterator<Item = &'static Resource> {
    let others = |of: &'static Resource| OTHER_VERSIONS.iter().filter(move |r| versions::stored(r) == of);
    ALL.iter().flat_map(move |stored| std::iter::once(*stored).chain(others(stored)))
}

macro_rules! resources {
    ($($name:ident = $group:literal $version:literal $kind:literal $plural:literal $singular:literal $namespaced:literal $short:expr, $categories:expr, $virtual:literal;)*) => {
        $(pub static $name: Resource = Resource {
            group: $group, version: $version, kind: $kind, plural: $plural, singular: $singular,
            namespaced: $namespaced, short_names: &$short, categories: &$categories, virtual_only: $virtual, custom: false,
        };)*
        /// Every served kind in the version that is stored, in the order in which discovery lists them.
        pub static ALL: &[&Resource] = &[$(&$name),*];
    };
}

resources! {
    NAMESPACE = "" "v1" "Namespace" "namespaces" "namespace" false ["ns"], [], false;
    NODE = "" "v1" "Node" "nodes" "node" false ["no"], [], false;
    POD = "" "v1" "Pod" "pods" "pod" true ["po"], ["all"], false;
    CONFIG_MAP = "" "v1" "ConfigMap" "configmaps" "configmap" true ["cm"], [], false;
    SECRET = "" "v1" "Secret" "secrets" "secret" true [], [], false;
    PERSISTENT_VOLUME = "" "v1" "PersistentVolume" "persistentvolumes" "persistentvolume" false ["pv"], [], false;
    PERSISTENT_VOLUME_CLAIM = "" "v1" "PersistentVolumeClaim" "persistentvolumeclaims" "persistentvolumeclaim" true ["pvc"], [], false;
    REPLICATION_CONTROLLER = "" "v1" "ReplicationController" "replicationcontrollers" "replicationcontroller" true ["rc"], ["all"], false;
    SERVICE = "" "v1" "Service" "services" "service" true ["svc"], ["all"], false;
    SERVICE_ACCOUNT = "" "v1" "ServiceAccount" "serviceaccounts" "serviceaccount" true ["sa"], [], false;
    ENDPOINTS = "" "v1" "Endpoints" "endpoints" "endpoints" true ["ep"], [], false;
    EVENT = "" "v1" "Event" "events" "event" true ["ev"], [], false;
    COMPONENT_STATUS = "" "v1" "ComponentStatus" "componentstatuses" "componentstatus" false ["cs"], [], true;
    LIMIT_RANGE = "" "v1" "LimitRange" "limitranges" "limitrange" true ["limits"], [], false;
    RESOURCE_QUOTA = "" "v1" "ResourceQuota" "resourcequotas" "resourcequota" true ["quota"], [], false;
    POD_TEMPLATE = "" "v1" "PodTemplate" "podtemplates" "podtemplate" true [], [], false;
    CONTROLLER_REVISION = "apps" "v1" "ControllerRevision" "controllerrevisions" "controllerrevision" true [], [], false;
    DAEMON_SET = "apps" "v1" "DaemonSet" "daemonsets" "daemonset" true ["ds"], ["all"], false;
    DEPLOYMENT = "apps" "v1" "Deployment" "deployments" "deployment" true ["deploy"], ["all"], false;
    REPLICA_SET = "apps" "v1" "ReplicaSet" "replicasets" "replicaset" true ["rs"], ["all"], false;
    STATEFUL_SET = "apps" "v1" "StatefulSet" "statefulsets" "statefulset" true ["sts"], ["all"], false;
    HORIZONTAL_POD_AUTOSCALER = "autoscaling" "v2" "HorizontalPodAutoscaler" "horizontalpodautoscalers" "horizontalpodautoscaler" true ["hpa"], ["all"], false;
    CRON_JOB = "batch" "v1" "CronJob" "cronjobs" "cronjob" true ["cj"], ["all"], false;
    JOB = "batch" "v1" "Job" "jobs" "job" true [], ["all"], false;
    ENDPOINT_SLICE = "discovery.k8s.io" "v1" "EndpointSlice" "endpointslices" "endpointslice" true [], [], false;
    LEASE = "coordination.k8s.io" "v1" "Lease" "leases" "lease" true [], [], false;
    IP_ADDRESS = "networking.k8s.io" "v1" "IPAddress" "ipaddresses" "ipaddress" false ["ip"], [], false;
    SERVICE_CIDR = "networking.k8s.io" "v1" "ServiceCIDR" "servicecidrs" "servicecidr" false [], [], false;
    INGRESS_CLASS = "networking.k8s.io" "v1" "IngressClass" "ingressclasses" "ingressclass" false [], [], false;
    INGRESS = "networking.k8s.io" "v1" "Ingress" "ingresses" "ingress" true ["ing"], [], false;
    NETWORK_POLICY = "networking.k8s.io" "v1" "NetworkPolicy" "networkpolicies" "networkpolicy" true ["netpol"], [], false;
    RUNTIME_CLASS = "node.k8s.io" "v1" "RuntimeClass" "runtimeclasses" "runtimeclass" false [], [], false;
    POD_DISRUPTION_BUDGET = "policy" "v1" "PodDisruptionBudget" "poddisruptionbudgets" "poddisruptionbudget" true ["pdb"], [], false;
    PRIORITY_CLASS = "scheduling.k8s.io" "v1" "PriorityClass" "priorityclasses" "priorityclass" false ["pc"], [], false;
    STORAGE_CLASS = "storage.k8s.io" "v1" "StorageClass" "storageclasses" "storageclass" false ["sc"], [], false;
    CSI_DRIVER = "storage.k8s.io" "v1" "CSIDriver" "csidrivers" "csidriver" false [], [], false;
    CSI_NODE = "storage.k8s.io" "v1" "CSINode" "csinodes" "csinode" false [], [], false;
    CSI_STORAGE_CAPACITY = "storage.k8s.io" "v1" "CSIStorageCapacity" "csistoragecapacities" "csistoragecapacity" true [], [], false;
    VOLUME_ATTACHMENT = "storage.k8s.io" "v1" "VolumeAttachment" "volumeattachments" "volumeattachment" false [], [], false;
    VOLUME_ATTRIBUTES_CLASS = "storage.k8s.io" "v1" "VolumeAttributesClass" "volumeattributesclasses" "volumeattributesclass" false ["vac"], [], false;
    CERTIFICATE_SIGNING_REQUEST = "certificates.k8s.io" "v1" "CertificateSigningRequest" "certificatesigningrequests" "certificatesigningrequest" false ["csr"], [], false;
    DEVICE_CLASS = "resource.k8s.io" "v1" "DeviceClass" "deviceclasses" "deviceclass" false [], [], false;
    RESOURCE_CLAIM = "resource.k8s.io" "v1" "ResourceClaim" "resourceclaims" "resourceclaim" true [], [], false;
    RESOURCE_CLAIM_TEMPLATE = "resource.k8s.io" "v1" "ResourceClaimTemplate" "resourceclaimtemplates" "resourceclaimtemplate" true [], [], false;
    RESOURCE_SLICE = "resource.k8s.io" "v1" "ResourceSlice" "resourceslices" "resourceslice" false [], [], false;
    FLOW_SCHEMA = "flowcontrol.apiserver.k8s.io" "v1" "FlowSchema" "flowschemas" "flowschema" false [], [], false;
    PRIORITY_LEVEL_CONFIGURATION = "flowcontrol.apiserver.k8s.io" "v1" "PriorityLevelConfiguration" "prioritylevelconfigurations" "prioritylevelconfiguration" false [], [], false;
    MUTATING_WEBHOOK_CONFIGURATION = "admissionregistration.k8s.io" "v1" "MutatingWebhookConfiguration" "mutatingwebhookconfigurations" "mutatingwebhookconfiguration" false [], ["api-extensions"], false;
    VALIDATING_WEBHOOK_CONFIGURATION = "admissionregistration.k8s.io" "v1" "ValidatingWebhookConfiguration" "validatingwebhookconfigurations" "validatingwebhookconfiguration" false [], ["api-extensions"], false;
    MUTATING_ADMISSION_POLICY = "admissionregistration.k8s.io" "v1" "MutatingAdmissionPolicy" "mutatingadmissionpolicies" "mutatingadmissionpolicy" false [], ["api-extensions"], false;
    MUTATING_ADMISSION_POLICY_BINDING = "admissionregistration.k8s.io" "v1" "MutatingAdmissionPolicyBinding" "mutatingadmissionpolicybindings" "mutatingadmissionpolicybinding" false [], ["api-extensions"], false;
    VALIDATING_ADMISSION_POLICY = "admissionregistration.k8s.io" "v1" "ValidatingAdmissionPolicy" "validatingadmissionpolicies" "validatingadmissionpolicy" false [], ["api-extensions"], false;
    VALIDATING_ADMISSION_POLICY_BINDING = "admissionregistration.k8s.io" "v1" "ValidatingAdmissionPolicyBinding" "validatingadmissionpolicybindings" "validatingadmissionpolicybinding" false [], ["api-extensions"], false;
    API_SERVICE = "apiregistration.k8s.io" "v1" "APIService" "apiservices" "apiservice" false [], ["api-extensions"], false;
    ROLE = "rbac.authorization.k8s.io" "v1" "Role" "roles" "role" true [], [], false;
    ROLE_BINDING = "rbac.authorization.k8s.io" "v1" "RoleBinding" "rolebindings" "rolebinding" true [], [], false;
    CLUSTER_ROLE = "rbac.authorization.k8s.io" "v1" "ClusterRole" "clusterroles" "clusterrole" false [], [], false;
    CLUSTER_ROLE_BINDING = "rbac.authorization.k8s.io" "v1" "ClusterRoleBinding" "clusterrolebindings" "clusterrolebinding" false [], [], false;
    CUSTOM_RESOURCE_DEFINITION = "apiextensions.k8s.io" "v1" "CustomResourceDefinition" "customresourcedefinitions" "customresourcedefinition" false ["crd", "crds"], ["api-extensions"], false;
    TOKEN_REVIEW = "authentication.k8s.io" "v1" "TokenReview" "tokenreviews" "tokenreview" false [], [], true;
    SELF_SUBJECT_REVIEW = "authentication.k8s.io" "v1" "SelfSubjectReview" "selfsubjectreviews" "selfsubjectreview" false [], [], true;
    SUBJECT_ACCESS_REVIEW = "authorization.k8s.io" "v1" "SubjectAccessReview" "subjectaccessreviews" "subjectaccessreview" false [], [], true;
    SELF_SUBJECT_ACCESS_REVIEW = "authorization.k8s.io" "v1" "SelfSubjectAccessReview" "selfsubjectaccessreviews" "selfsubjectaccessreview" false [], [], true;
    LOCAL_SUBJECT_ACCESS_REVIEW = "authorization.k8s.io" "v1" "LocalSubjectAccessReview" "localsubjectaccessreviews" "localsubjectaccessreview" true [], [], true;
    SELF_SUBJECT_RULES_REVIEW = "authorization.k8s.io" "v1" "SelfSubjectRulesReview" "selfsubjectrulesreviews" "selfsubjectrulesreview" false [], [], true;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_follow_group_and_scope() {
        assert_eq!(POD.object_path("a", "b"), "/api/v1/namespaces/a/pods/b");
        assert_eq!(NODE.object_path("", "n"), "/api/v1/nodes/n");
        assert_eq!(DEPLOYMENT.collection_path(None), "/apis/apps/v1/deployments");
    }

    #[test]
    fn no_kind_stands_twice() {
        for (i, a) in ALL.iter().enumerate() {
            assert!(!ALL[i + 1..].iter().any(|b| a.group == b.group && a.plural == b.plural), "{} twice", a.plural);
        }
    }
}

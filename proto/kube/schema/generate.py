#!/usr/bin/env python3
"""Write kubernetes-1.36.txt: what is a fact about the built-in kinds, and none of the prose.

    pip download --no-deps kubernetes-validate==1.37.0 && unzip -q kubernetes_validate-*.whl
    cargo add k8s-pb@0.9 (in a scratch package) && cargo fetch
    ./generate.py kubernetes_validate/kubernetes-json-schema/v1.36.0-local ~/.cargo/registry/src/*/k8s-pb-0.9.0 > kubernetes-1.36.txt

The first argument is the folder of the published JSON schemas (its `_definitions.json`), the second the sources of
k8s-pb, of which only the field numbers are read. `schema.rs` describes the format of the output.
"""

import json
import pathlib
import re
import sys

VERSION = "1.36"

# The kinds whose definitions, and all that these reach, go into the table: "group/version: kinds".
ROOTS = """
core.v1: Namespace Node Pod PodTemplate ConfigMap Secret Service ServiceAccount Endpoints Event Binding ReplicationController
core.v1: PersistentVolume PersistentVolumeClaim LimitRange ResourceQuota
apps.v1: Deployment ReplicaSet DaemonSet StatefulSet ControllerRevision
batch.v1: Job CronJob
autoscaling.v1: Scale
discovery.v1: EndpointSlice
events.v1: Event
coordination.v1: Lease
networking.v1: IPAddress ServiceCIDR NetworkPolicy Ingress IngressClass
scheduling.v1: PriorityClass
node.v1: RuntimeClass
storage.v1: StorageClass CSINode CSIDriver VolumeAttachment
policy.v1: Eviction PodDisruptionBudget
rbac.v1: Role RoleBinding ClusterRole ClusterRoleBinding
authentication.v1: TokenRequest TokenReview SelfSubjectReview
authorization.v1: SubjectAccessReview SelfSubjectAccessReview LocalSubjectAccessReview SelfSubjectRulesReview
certificates.v1: CertificateSigningRequest
"""
META = "io.k8s.apimachinery.pkg.apis.meta.v1."
META_ROOTS = ["DeleteOptions", "Status"]

# Definitions that are one value on the wire, under the names that the table gives them.
SCALARS = {
    "io.k8s.apimachinery.pkg.api.resource.Quantity": "quantity",
    META + "Time": "time",
    META + "MicroTime": "microtime",
    META + "FieldsV1": "any",
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": "intorstring",
    "io.k8s.apimachinery.pkg.runtime.RawExtension": "any",
}

# The published schema does not tell a struct from a pointer to one. A struct is always written out, even when empty, and
# JSON patches address what is in it, so the ones of the served kinds are named here: type (its last parts), fields.
STRUCTS = {
    "v1.Binding": "metadata target",
    "v1.Container": "resources",
    "v1.EphemeralContainer": "resources",
    "v1.ContainerStatus": "state lastState",
    "core.v1.Event": "metadata involvedObject source",
    "v1.Namespace": "metadata spec status",
    "v1.Node": "metadata spec status",
    "v1.NodeStatus": "daemonEndpoints nodeInfo",
    "v1.NodeDaemonEndpoints": "kubeletEndpoint",
    "v1.Pod": "metadata spec status",
    "v1.PodTemplateSpec": "metadata spec",
    "v1.PodTemplate": "metadata template",
    "v1.Service": "metadata spec status",
    "v1.ServiceStatus": "loadBalancer",
    "v1.ReplicationController": "metadata spec status",
    "v1.PersistentVolume": "metadata spec status",
    "v1.PersistentVolumeClaim": "metadata spec status",
    "v1.PersistentVolumeClaimSpec": "resources",
    "v1.ResourceQuota": "metadata spec status",
    "v1.LimitRange": "metadata spec",
    "v1.Deployment": "metadata spec status",
    "v1.DeploymentSpec": "template strategy",
    "v1.ReplicaSet": "metadata spec status",
    "v1.ReplicaSetSpec": "template",
    "v1.DaemonSet": "metadata spec status",
    "v1.DaemonSetSpec": "template updateStrategy",
    "v1.StatefulSet": "metadata spec status",
    "v1.StatefulSetSpec": "template updateStrategy",
    "v1.Job": "metadata spec status",
    "v1.JobSpec": "template",
    "v1.CronJob": "metadata spec status",
    "v1.CronJobSpec": "jobTemplate",
    "v1.JobTemplateSpec": "metadata spec",
    "v1.Scale": "metadata spec status",
    "v1.EndpointSlice": "metadata",
    "v1.Endpoint": "conditions",
    "v1.Lease": "metadata spec",
    "v1.IPAddress": "metadata spec",
    "v1.ServiceCIDR": "metadata spec status",
    "v1.NetworkPolicy": "metadata spec",
    "v1.NetworkPolicySpec": "podSelector",
    "v1.Ingress": "metadata spec status",
    "v1.IngressStatus": "loadBalancer",
    "v1.IngressClass": "metadata spec",
    "v1.RoleBinding": "metadata roleRef",
    "v1.ClusterRoleBinding": "metadata roleRef",
    "v1.PodDisruptionBudget": "metadata spec status",
    "authentication.v1.TokenRequest": "metadata spec status",
    "v1.TokenReview": "metadata spec status",
    "v1.TokenReviewStatus": "user",
    "v1.SelfSubjectReview": "metadata status",
    "v1.SelfSubjectReviewStatus": "userInfo",
    "v1.SubjectAccessReview": "metadata spec status",
    "v1.SelfSubjectAccessReview": "metadata spec status",
    "v1.LocalSubjectAccessReview": "metadata spec status",
    "v1.SelfSubjectRulesReview": "metadata spec status",
    "v1.CertificateSigningRequest": "metadata spec status",
}
METADATA_ONLY = "ConfigMap Secret ServiceAccount Endpoints PriorityClass Role ClusterRole RuntimeClass StorageClass Eviction ControllerRevision"
for kind in METADATA_ONLY.split():
    STRUCTS["v1." + kind] = "metadata"

# Defaults that the schema itself carries upstream (`+default`): the keys of keyed lists need them.
DEFAULTS = {
    ("v1.ContainerPort", "protocol"): "TCP",
    ("v1.ServicePort", "protocol"): "TCP",
}

# Strings that are pointers upstream: there the empty string is a value, elsewhere it is the same as absent.
POINTERS = """
core.v1.HostPathVolumeSource.type core.v1.PersistentVolumeClaimSpec.storageClassName core.v1.PersistentVolumeClaimSpec.volumeAttributesClassName
core.v1.PersistentVolumeClaimSpec.volumeMode core.v1.PersistentVolumeSpec.volumeAttributesClassName core.v1.PersistentVolumeSpec.volumeMode
core.v1.PodSpec.runtimeClassName core.v1.PodSpec.preemptionPolicy core.v1.PodSpec.hostnameOverride core.v1.GRPCAction.service
core.v1.EndpointAddress.nodeName core.v1.EndpointPort.appProtocol core.v1.ServicePort.appProtocol core.v1.ServiceSpec.loadBalancerClass
core.v1.TypedLocalObjectReference.apiGroup core.v1.TypedObjectReference.apiGroup core.v1.TypedObjectReference.namespace
core.v1.SeccompProfile.localhostProfile core.v1.AppArmorProfile.localhostProfile core.v1.VolumeMount.mountPropagation
core.v1.PodResourceClaim.resourceClaimName core.v1.PodResourceClaim.resourceClaimTemplateName
discovery.v1.EndpointPort.name discovery.v1.EndpointPort.protocol discovery.v1.EndpointPort.appProtocol
discovery.v1.Endpoint.hostname discovery.v1.Endpoint.nodeName discovery.v1.Endpoint.zone
coordination.v1.LeaseSpec.holderIdentity coordination.v1.LeaseSpec.preferredHolder coordination.v1.LeaseSpec.strategy
networking.v1.IngressSpec.ingressClassName networking.v1.HTTPIngressPath.pathType scheduling.v1.PriorityClass.preemptionPolicy
meta.v1.Preconditions.uid meta.v1.Preconditions.resourceVersion meta.v1.DeleteOptions.propagationPolicy
""".split()

# Fields newer than the source of the numbers: (type, field) -> number.
NUMBERS = {}


def last_two(name):
    return ".".join(name.split(".")[-2:])


def type_of(schema):
    if "$ref" in schema:
        name = schema["$ref"].split("/")[-1]
        return SCALARS.get(name, name)
    kinds = schema.get("type", "object")
    kind = next(k for k in ([kinds] if isinstance(kinds, str) else kinds) if k != "null")
    form = schema.get("format")
    if kind == "array":
        return "[]" + type_of(schema["items"])
    if kind == "object":
        return "{}" + type_of(schema["additionalProperties"]) if "additionalProperties" in schema else "any"
    if kind == "string":
        return {"byte": "bytes", "date-time": "time"}.get(form, "string")
    if kind == "integer":
        return form or "int32"
    return {"boolean": "bool", "number": "double"}[kind]


def structs_in(kind):
    kind = kind.replace("[]", "").replace("{}", "")
    return kind if kind.startswith("io.k8s.") else None


def squeeze(name):
    return name.replace("r#", "").replace("_", "").lower()


def protobuf(source):
    """type -> [(field, number, message it holds or None)], from the attributes of the generated Rust."""
    types = {}
    root = pathlib.Path(source) / "src"
    for path in root.rglob("mod.rs"):
        package = "io.k8s." + ".".join(path.parent.relative_to(root).parts)
        text = re.sub(r"//.*", "", path.read_text())
        for name, body in re.findall(r"pub struct (\w+) \{(.*?)\n\}", text, re.S):
            fields = []
            for kind, tag, field, held in re.findall(r"#\[prost\(([^)]*?),? *tag = \"(\d+)\"\)\]\s*pub (r?#?\w+):\s*([^#]*)", body, re.S):
                message = None
                if "message" in kind and "map" not in kind:
                    message = re.findall(r"(\w+) *,?\s*>", held)[-1]
                fields.append((field, int(tag), message))
            types[f"{package}.{name}"] = fields
    return types


def main():
    folder, crate = sys.argv[1:3]
    definitions = json.loads((pathlib.Path(folder) / "_definitions.json").read_text())["$defs"]
    # The generated Rust spells `HTTPGetAction` as `HttpGetAction`.
    spelled = {name.lower(): name for name in definitions}
    numbers = {spelled.get(name.lower(), name): fields for name, fields in protobuf(crate).items()}

    wanted = [META + kind for kind in META_ROOTS]
    for line in ROOTS.strip().splitlines():
        package, kinds = line.split(":")
        for kind in kinds.split():
            name = f"io.k8s.api.{package}.{kind}"
            assert name in definitions, name
            wanted.append(name)
            if name + "List" in definitions:
                wanted.append(name + "List")

    table = {}
    while wanted:
        name = wanted.pop()
        if name in table:
            continue
        schema = definitions[name]
        required = set(schema.get("required", []))
        structs = set((STRUCTS.get(last_two(name)) or STRUCTS.get(".".join(name.split(".")[-3:]), "")).split())
        lines, named = [], {}
        for field, facts in sorted(schema.get("properties", {}).items()):
            kind = type_of(facts)
            if structs_in(kind):
                wanted.append(structs_in(kind))
            flags = []
            if field in required:
                flags.append("req")
            if field in structs:
                flags.append("zero")
                structs.discard(field)
            if ".".join(name.split(".")[-3:] + [field]) in POINTERS:
                flags.append("ptr")
            if (last_two(name), field) in DEFAULTS:
                flags.append("default=" + DEFAULTS[last_two(name), field])
            if "x-kubernetes-list-type" in facts:
                flags.append("list=" + facts["x-kubernetes-list-type"])
            if "x-kubernetes-list-map-keys" in facts:
                flags.append("keys=" + ",".join(facts["x-kubernetes-list-map-keys"]))
            if "x-kubernetes-map-type" in facts:
                flags.append("map=" + facts["x-kubernetes-map-type"])
            if "x-kubernetes-patch-strategy" in facts:
                flags.append("patch=" + facts["x-kubernetes-patch-strategy"])
            if "x-kubernetes-patch-merge-key" in facts:
                flags.append("mergekey=" + facts["x-kubernetes-patch-merge-key"])
            named[squeeze(field)] = len(lines)
            lines.append([field, kind, flags])
        if structs:
            print(f"{name}: no field {structs}", file=sys.stderr)

        inlined = []
        for field, number, message in numbers.get(name, []):
            at = named.get(squeeze(field))
            if at is not None:
                lines[at][2].append(f"#{number}")
                continue
            package = name.rsplit(".", 1)[0]
            whole = f"{package}.{message}" if f"{package}.{message}" in definitions else f"{package}.{message}"
            inner = numbers.get(whole)
            if message and inner and all(squeeze(f) in named for f, _, _ in inner):
                inlined.append(f"  + #{number} {whole}")
                # What is inlined on the wire stands among our own fields: its numbers are kept as a type of their own.
                if whole not in table and whole not in definitions:
                    definitions[whole] = {
                        "properties": {
                            k: v for k, v in schema["properties"].items() if squeeze(k) in {squeeze(f) for f, _, _ in inner}
                        }
                    }
                wanted.append(whole)
            else:
                print(f"{name}: {field} = {number} is not in the schema", file=sys.stderr)
        for field, kind, flags in lines:
            if not any(flag.startswith("#") for flag in flags):
                number = NUMBERS.get((last_two(name), field))
                if number:
                    flags.append(f"#{number}")
        head = f"type {name}"
        groups = schema.get("x-kubernetes-group-version-kind", [])
        if name == META + "DeleteOptions":
            groups = [g for g in groups if not g["group"] and g["version"] == "v1"]
        if name == META + "Status":
            groups = [{"group": "", "version": "v1", "kind": "Status"}]
        for g in groups:
            head += f" gvk={g.get('group', '')}/{g['version']}/{g['kind']}"
        if "x-kubernetes-map-type" in schema:
            head += " map=" + schema["x-kubernetes-map-type"]
        table[name] = [head] + [" ".join(["  " + f, k, *flags]) for f, k, flags in lines] + inlined

    numbered = {n: True for n in numbers}
    print(f"# Generated by generate.py from the published schema of Kubernetes {VERSION}. Do not edit.")
    for name in sorted(table):
        for line in table[name]:
            print(line)
        if name not in numbered:
            print(f"{name}: no field numbers", file=sys.stderr)
    for name in sorted(table):
        inlined_fields = set()
        for line in table[name]:
            if line.startswith("  + "):
                whole = line.split()[-1]
                inlined_fields |= {l.split()[0] for l in table[whole][1:]}
        for line in table[name][1:]:
            words = line.split()
            if words[0] not in ("+", "apiVersion", "kind") and "#" not in line and words[0] not in inlined_fields:
                print(f"{name}.{words[0]}: no field number", file=sys.stderr)


main()

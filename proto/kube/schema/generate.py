#!/usr/bin/env python3
"""Write kubernetes-1.36.txt: what is a fact about the built-in kinds, and none of the prose.

    pip download --no-deps kubernetes-validate==1.37.0 && unzip -q kubernetes_validate-*.whl
    go mod download k8s.io/api@v0.36.3 k8s.io/apimachinery@v0.36.3 k8s.io/apiextensions-apiserver@v0.36.3 \\
        k8s.io/kube-aggregator@v0.36.2                          (or their archives from the module proxy, or their git tags)
    ./generate.py SCHEMAS API APIMACHINERY APIEXTENSIONS AGGREGATOR > kubernetes-1.36.txt

SCHEMAS is the folder of the published JSON schemas of 1.36 (the one with `_definitions.json`), the others are the four
modules. The schemas tell fields, types, list keys and patch strategies; the tags of the Go structs tell what is always
written, what is a pointer, and the numbers of the protobuf wire. Kinds that no schema is published of (UNPUBLISHED) are
told by their structs alone. `schema.rs` describes the format of the output.
"""

import json
import pathlib
import re
import sys

VERSION = "1.36"

# The kinds whose definitions, and all that these reach, go into the table: "package: kinds", below io.k8s.
ROOTS = """
api.core.v1: Namespace Node Pod PodTemplate ConfigMap Secret Service ServiceAccount Endpoints Event Binding
api.core.v1: ReplicationController PersistentVolume PersistentVolumeClaim LimitRange ResourceQuota ComponentStatus
api.apps.v1: Deployment ReplicaSet DaemonSet StatefulSet ControllerRevision
api.batch.v1: Job CronJob
api.autoscaling.v1: Scale HorizontalPodAutoscaler
api.autoscaling.v2: HorizontalPodAutoscaler
api.discovery.v1: EndpointSlice
api.events.v1: Event
api.coordination.v1: Lease
api.networking.v1: IPAddress ServiceCIDR NetworkPolicy Ingress IngressClass
api.scheduling.v1: PriorityClass
api.node.v1: RuntimeClass
api.storage.v1: StorageClass CSINode CSIDriver VolumeAttachment CSIStorageCapacity VolumeAttributesClass
api.policy.v1: Eviction PodDisruptionBudget
api.rbac.v1: Role RoleBinding ClusterRole ClusterRoleBinding
api.authentication.v1: TokenRequest TokenReview SelfSubjectReview
api.authorization.v1: SubjectAccessReview SelfSubjectAccessReview LocalSubjectAccessReview SelfSubjectRulesReview
api.certificates.v1: CertificateSigningRequest
api.admissionregistration.v1: ValidatingWebhookConfiguration MutatingWebhookConfiguration
api.admissionregistration.v1: ValidatingAdmissionPolicy ValidatingAdmissionPolicyBinding
api.admissionregistration.v1: MutatingAdmissionPolicy MutatingAdmissionPolicyBinding
api.flowcontrol.v1: FlowSchema PriorityLevelConfiguration
api.resource.v1: ResourceClaim ResourceClaimTemplate DeviceClass ResourceSlice
apiextensions-apiserver.pkg.apis.apiextensions.v1: CustomResourceDefinition
kube-aggregator.pkg.apis.apiregistration.v1: APIService
"""
META = "io.k8s.apimachinery.pkg.apis.meta.v1."
EXTENSIONS = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1."

# What the machinery itself puts on the wire, and the groups that it is known in (where it is published as known in all).
META_ROOTS = {
    "APIGroup": [""], "APIGroupList": [""], "APIResourceList": [""], "APIVersions": [""], "DeleteOptions": [""],
    "Status": [""], "WatchEvent": [""], "List": [""], "PartialObjectMetadata": ["meta.k8s.io"],
    "PartialObjectMetadataList": ["meta.k8s.io"], "CreateOptions": [""], "GetOptions": [""], "ListOptions": [""],
    "PatchOptions": [""], "UpdateOptions": [""],
}
UNPUBLISHED = [
    "List", "PartialObjectMetadata", "PartialObjectMetadataList", "CreateOptions", "GetOptions", "ListOptions",
    "PatchOptions", "UpdateOptions",
]

# Definitions that are one value on the wire, under the names that the table gives them. A choice of two stands there as a
# message whose field 1 is the first of them, and field 2 the second.
SCALARS = {
    "io.k8s.apimachinery.pkg.api.resource.Quantity": "quantity",
    META + "Time": "time",
    META + "MicroTime": "microtime",
    META + "FieldsV1": "any",
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": "intorstring",
    "io.k8s.apimachinery.pkg.runtime.RawExtension": "any",
    EXTENSIONS + "JSON": "json",
    EXTENSIONS + "JSONSchemaPropsOrBool": f"bool|{EXTENSIONS}JSONSchemaProps",
    EXTENSIONS + "JSONSchemaPropsOrArray": f"{EXTENSIONS}JSONSchemaProps|[]{EXTENSIONS}JSONSchemaProps",
    EXTENSIONS + "JSONSchemaPropsOrStringArray": f"{EXTENSIONS}JSONSchemaProps|[]string",
}

# Defaults that the schema itself carries upstream (`+default`): the keys of keyed lists need them.
DEFAULTS = {
    ("v1.ContainerPort", "protocol"): "TCP",
    ("v1.ServicePort", "protocol"): "TCP",
}

# Flags of the table, and the extensions of OpenAPI that they stand for.
FLAGS = {
    "list": "x-kubernetes-list-type",
    "keys": "x-kubernetes-list-map-keys",
    "map": "x-kubernetes-map-type",
    "patch": "x-kubernetes-patch-strategy",
    "mergekey": "x-kubernetes-patch-merge-key",
}


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
    names = [name.replace("[]", "").replace("{}", "") for name in kind.split("|")]
    return [name for name in names if name.startswith("io.k8s.")]


STRUCT = re.compile(r"^type (\w+) struct ?\{(?:\}$|\n(.*?)^\})", re.S | re.M)
FIELD = re.compile(r"^\s*(?:(\w+)\s+)?([\w.*\[\]]+)\s+`([^`]*)`", re.M)


def go_structs(modules):
    """definition -> [(JSON name or None where inline, Go type, JSON options, protobuf number or None)]"""
    structs = {}
    for root, prefix in zip(modules, ["api", "apimachinery", "apiextensions-apiserver", "kube-aggregator"]):
        prefix = "io.k8s." + prefix
        for path in sorted(pathlib.Path(root).rglob("*.go")):
            if path.name.endswith("_test.go") or path.name.startswith("zz_generated"):
                continue
            package = ".".join([prefix, *path.parent.relative_to(root).parts])
            for name, body in STRUCT.findall(path.read_text()):
                fields = []
                body = re.sub(r"(?m)//.*$", "", re.sub(r"(?s)/\*.*?\*/", "", body))
                for _, kind, tags in FIELD.findall(body):
                    tag = dict(re.findall(r'(\w+):"([^"]*)"', tags))
                    if "json" not in tag:
                        continue
                    json_name, *options = tag["json"].split(",")
                    number = tag.get("protobuf", "-").split(",")
                    fields.append((json_name or None, kind, options, int(number[1]) if len(number) > 1 else None))
                structs[f"{package}.{name}"] = fields
    return structs


def embedded(name, kind):
    """The definition that a Go type names, seen from the package of another definition."""
    kind = kind.lstrip("*")
    if kind.startswith("metav1."):
        return META + kind[len("metav1."):]
    if kind.startswith("v1."):
        return "io.k8s.api.core." + kind
    return name.rsplit(".", 1)[0] + "." + kind


def flat(name, structs):
    """The fields of a struct and of those that stand inline in it, as JSON shows them."""
    for json_name, kind, options, number in structs[name]:
        if json_name:
            yield json_name, kind, options
        elif number is not None:
            yield from flat(embedded(name, kind), structs)


def written_always(kind, go, options):
    """Whether the field is written even when it is zero, as Go's encoder decides it."""
    pointer = go.startswith("*")
    if "|" in kind:
        return False
    if kind.startswith("io.k8s.") or kind in ("quantity", "intorstring"):
        # A struct is never empty to Go.
        return not pointer and "omitzero" not in options
    if kind in ("time", "microtime", "any", "json"):
        return False
    return not pointer and "omitempty" not in options


def schema_of(name, structs):
    """What would be published of a kind, told by its struct: all of meta.v1 is in one package, and aliases are strings."""
    def of(go):
        go = go.lstrip("*")
        if go.startswith("[]"):
            return {"type": "array", "items": of(go[2:])}
        if go in ("bool", "int64"):
            return {"type": {"bool": "boolean", "int64": "integer"}[go], "format": go}
        whole = "io.k8s.apimachinery.pkg." + go if go.startswith("runtime.") else META + go
        return {"$ref": whole} if whole in structs else {"type": "string"}

    fields = {json_name: (go, options) for json_name, go, options, _ in structs[name] if json_name}
    required = [field for field, (_, options) in fields.items() if "omitempty" not in options and field != "metadata"]
    properties = {field: of(go) for field, (go, _) in fields.items()}
    return {"properties": {"apiVersion": {"type": "string"}, "kind": {"type": "string"}, **properties}, "required": required}


def main():
    folder, *modules = sys.argv[1:6]
    definitions = json.loads((pathlib.Path(folder) / "_definitions.json").read_text())["$defs"]
    structs = go_structs(modules)
    for kind in UNPUBLISHED:
        assert META + kind not in definitions, kind
        definitions[META + kind] = schema_of(META + kind, structs)

    wanted = [META + kind for kind in META_ROOTS]
    for line in ROOTS.strip().splitlines():
        package, kinds = line.split(":")
        for kind in kinds.split():
            name = f"io.k8s.{package}.{kind}"
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
        direct, inlined = {}, []
        for json_name, kind, options, number in structs[name]:
            if json_name:
                direct[json_name] = (kind, options, number)
                continue
            whole = embedded(name, kind)
            if number is None:
                continue
            # What is inlined has numbers of its own; in JSON its fields stand among ours.
            if whole not in definitions:
                inner = {json_name for json_name, *_ in flat(whole, structs)}
                fields = {k: v for k, v in schema["properties"].items() if k in inner}
                definitions[whole] = {"properties": fields, "required": [f for f in required if f in inner]}
            inlined.append(f"  + #{number} {whole}")
            wanted.append(whole)
            for json_name, kind, options in flat(whole, structs):
                direct.setdefault(json_name, (kind, options, None))

        lines = []
        for field, facts in sorted(schema.get("properties", {}).items()):
            kind = type_of(facts)
            wanted.extend(structs_in(kind))
            flags = []
            if field in required:
                flags.append("req")
            if field in direct:
                go, options, number = direct[field]
                if written_always(kind, go, options):
                    flags.append("zero")
                if go.startswith("*") and kind in ("string", "int32", "int64", "bool", "double"):
                    flags.append("ptr")
            elif field not in ("apiVersion", "kind"):
                print(f"{name}.{field} is in no Go struct", file=sys.stderr)
            if (last_two(name), field) in DEFAULTS:
                flags.append("default=" + DEFAULTS[last_two(name), field])
            for flag, fact in FLAGS.items():
                if fact in facts:
                    value = facts[fact]
                    flags.append(f"{flag}={','.join(value) if isinstance(value, list) else value}")
            if field in direct and number is not None:
                flags.append(f"#{number}")
            lines.append(" ".join(["  " + field, kind, *flags]))

        head = f"type {name}"
        groups = schema.get("x-kubernetes-group-version-kind", [])
        if name.startswith(META) and last_two(name)[3:] in META_ROOTS:
            kind = last_two(name)[3:]
            groups = [{"group": group, "version": "v1", "kind": kind} for group in META_ROOTS[kind]]
        for g in groups:
            head += f" gvk={g.get('group', '')}/{g['version']}/{g['kind']}"
        if "x-kubernetes-map-type" in schema:
            head += " map=" + schema["x-kubernetes-map-type"]
        table[name] = [head, *lines, *inlined]

    print(f"# Generated by generate.py from the published facts of Kubernetes {VERSION}. Do not edit.")
    for name in sorted(table):
        print("\n".join(table[name]))


main()

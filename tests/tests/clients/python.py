"""What a program that uses the Python client does, against the API server of the kubeconfig in $KUBECONFIG. Each step that does not
answer as Kubernetes does ends it with an error."""

import threading

from kubernetes import client, config, watch
from kubernetes.client.exceptions import ApiException
from kubernetes.dynamic import DynamicClient

config.load_kube_config()
core, apps, extensions, custom = (
    client.CoreV1Api(),
    client.AppsV1Api(),
    client.ApiextensionsV1Api(),
    client.CustomObjectsApi(),
)
SPACE = "python"


def refused(code, call, *arguments, **named):
    try:
        call(*arguments, **named)
    except ApiException as error:
        assert error.status == code, (error.status, error.body)
        return error
    raise AssertionError(f"{call.__name__} was not refused with {code}")


def objects():
    core.create_namespace(client.V1Namespace(metadata=client.V1ObjectMeta(name=SPACE)))
    refused(409, core.create_namespace, client.V1Namespace(metadata=client.V1ObjectMeta(name=SPACE)))
    for n in range(7):
        body = client.V1ConfigMap(metadata=client.V1ObjectMeta(name=f"m{n}", labels={"odd": str(n % 2)}), data={"n": str(n)})
        core.create_namespaced_config_map(SPACE, body)
    odd = core.list_namespaced_config_map(SPACE, label_selector="odd=1")
    assert [item.metadata.name for item in odd.items] == ["m1", "m3", "m5"]
    names, token = [], None
    while token != "":
        page = core.list_namespaced_config_map(SPACE, limit=3, _continue=token)
        names += [item.metadata.name for item in page.items]
        token = page.metadata._continue or ""
    assert [name for name in names if name != "kube-root-ca.crt"] == [f"m{n}" for n in range(7)], names
    core.patch_namespaced_config_map("m0", SPACE, {"data": {"more": "yes"}})
    read = core.read_namespaced_config_map("m0", SPACE)
    assert read.data == {"n": "0", "more": "yes"}
    read.data["more"] = "no"
    core.replace_namespaced_config_map("m0", SPACE, read)
    refused(409, core.replace_namespaced_config_map, "m0", SPACE, read)
    refused(404, core.read_namespaced_config_map, "nope", SPACE)
    refused(422, core.create_namespaced_config_map, SPACE, {"metadata": {"name": "Not A Name"}})


def watches():
    start = core.list_namespaced_config_map(SPACE).metadata.resource_version
    writer = threading.Thread(target=lambda: core.delete_namespaced_config_map("m6", SPACE))
    writer.start()
    for event in watch.Watch().stream(core.list_namespaced_config_map, SPACE, resource_version=start, timeout_seconds=30):
        assert (event["type"], event["object"].metadata.name) == ("DELETED", "m6"), event
        break
    writer.join()


def workloads():
    labels = {"app": "web"}
    container = client.V1Container(name="web", image="web:1", ports=[client.V1ContainerPort(container_port=80)])
    template = client.V1PodTemplateSpec(
        metadata=client.V1ObjectMeta(labels=labels), spec=client.V1PodSpec(containers=[container])
    )
    spec = client.V1DeploymentSpec(replicas=2, selector=client.V1LabelSelector(match_labels=labels), template=template)
    apps.create_namespaced_deployment(SPACE, client.V1Deployment(metadata=client.V1ObjectMeta(name="web"), spec=spec))
    apps.patch_namespaced_deployment_scale("web", SPACE, {"spec": {"replicas": 3}})
    assert apps.read_namespaced_deployment_scale("web", SPACE).spec.replicas == 3
    image = {"spec": {"template": {"spec": {"containers": [{"name": "web", "image": "web:2"}]}}}}
    changed = apps.patch_namespaced_deployment("web", SPACE, image)
    assert changed.spec.template.spec.containers[0].ports[0].container_port == 80, "lists merge by their keys"


def custom_kinds():
    schema = {"type": "object", "properties": {"spec": {"type": "object", "properties": {"size": {"type": "integer"}}}}}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    names = {"plural": "snakes", "singular": "snake", "kind": "Snake"}
    definition = {
        "metadata": {"name": "snakes.example.com"},
        "spec": {"group": "example.com", "scope": "Namespaced", "names": names, "versions": [version]},
    }
    extensions.create_custom_resource_definition(definition)
    named = "metadata.name=snakes.example.com"
    for event in watch.Watch().stream(
        extensions.list_custom_resource_definition, field_selector=named, timeout_seconds=30
    ):
        conditions = event["object"].status.conditions or []
        if any(c.type == "Established" and c.status == "True" for c in conditions):
            break
    place = ("example.com", "v1", SPACE, "snakes")
    body = {"apiVersion": "example.com/v1", "kind": "Snake", "metadata": {"name": "s"}, "spec": {"size": 3}}
    custom.create_namespaced_custom_object(*place, body)
    refused(422, custom.create_namespaced_custom_object, *place, {**body, "spec": {"size": "long"}})
    assert custom.list_namespaced_custom_object(*place)["items"][0]["spec"] == {"size": 3}
    # By discovery, as programs do that know no kind beforehand.
    snakes = DynamicClient(client.ApiClient()).resources.get(api_version="example.com/v1", kind="Snake")
    assert snakes.get(name="s", namespace=SPACE).spec.size == 3
    snakes.patch(name="s", namespace=SPACE, body={"spec": {"size": 4}}, content_type="application/merge-patch+json")
    assert snakes.get(name="s", namespace=SPACE).to_dict()["spec"]["size"] == 4
    extensions.delete_custom_resource_definition("snakes.example.com")


def access():
    spec = client.V1SelfSubjectAccessReviewSpec(
        resource_attributes=client.V1ResourceAttributes(verb="delete", resource="nodes")
    )
    review = client.AuthorizationV1Api().create_self_subject_access_review(client.V1SelfSubjectAccessReview(spec=spec))
    assert review.status.allowed
    assert client.VersionApi().get_code().git_version.startswith("v1.36")


for step in (objects, watches, workloads, custom_kinds, access):
    step()
    print(step.__name__, "ok")

//! A day with kubectl: every verb that people type, as they type it, with the old program and the new one.

use std::path::Path;

use gantry_tests::cluster::{Cluster, IMAGE, with};
use gantry_tests::kubectl::Kubectl;

/// A line, and what its answer holds. `IMAGE`, `NS` and `DIR` stand for what the test fills in. In order: later lines use
/// what earlier ones made.
const DAY: &[(&str, &str)] = &[
    // Generators
    ("create namespace NS", "namespace/NS created"),
    ("create configmap c --from-literal=a=b --from-file=DIR/file", "configmap/c created"),
    ("create secret generic s --from-literal=a=b", "secret/s created"),
    ("create secret docker-registry d --docker-server=x --docker-username=u --docker-password=p", "secret/d created"),
    ("create serviceaccount sa", "serviceaccount/sa created"),
    ("create role r --verb=get --resource=pods", "role.rbac.authorization.k8s.io/r created"),
    ("create rolebinding rb --role=r --serviceaccount=NS:sa", "rolebinding.rbac.authorization.k8s.io/rb created"),
    ("create clusterrole NS --verb=get --resource=pods", "clusterrole.rbac.authorization.k8s.io/NS created"),
    (
        "create clusterrolebinding NS --clusterrole=NS --user=u",
        "clusterrolebinding.rbac.authorization.k8s.io/NS created",
    ),
    ("create deployment web --image=IMAGE --replicas=2", "deployment.apps/web created"),
    ("create job j --image=IMAGE -- echo done", "job.batch/j created"),
    ("create quota q --hard=count/configmaps=100", "resourcequota/q created"),
    ("create priorityclass NS --value=10", "priorityclass.scheduling.k8s.io/NS created"),
    ("create service clusterip svc --tcp=80:8080", "service/svc created"),
    ("create service nodeport port --tcp=80:8080", "service/port created"),
    ("create service loadbalancer lb --tcp=80:8080", "service/lb created"),
    ("create service externalname name --external-name=example.com", "service/name created"),
    ("run p --image=IMAGE --restart=Never -- sleep 1000", "pod/p created"),
    ("run q --image=IMAGE --labels=app=q --env=A=B --port=80 --expose", "pod/q created"),
    // Waiting
    ("rollout status deployment/web --timeout=60s", "successfully rolled out"),
    ("wait --for=condition=Ready pod/p pod/q --timeout=60s", "pod/p condition met"),
    ("wait --for=condition=complete job/j --timeout=60s", "job.batch/j condition met"),
    // Looking
    ("get all -o wide", "deployment.apps/web"),
    ("get pods -o yaml", "kind: Pod"),
    ("get pods -o json", "\"kind\": \"Pod\""),
    ("get pod q -o jsonpath={.spec.containers[0].env[0].value}", "B"),
    ("get pods -o custom-columns=N:.metadata.name,S:.status.phase --sort-by=.metadata.name", "p Running"),
    ("get pods -o 'go-template={{range .items}}{{.metadata.name}} {{end}}'", " p q web-"),
    ("get pods -o name", "pod/p"),
    ("get pods --show-labels", "run=p"),
    ("get pods -l 'app in (q)' --field-selector=status.phase=Running --no-headers", "q 1/1 Running"),
    ("get deployments,services --all-namespaces", "kube-dns"),
    ("describe pod p", "Started container p"),
    ("describe deployment web", "Scaled up replica set"),
    ("describe node", "Non-terminated Pods"),
    ("describe service port", "NodePort:"),
    ("describe configmap c", "content of a file"),
    ("describe secret s", "a: 1 bytes"),
    ("describe job j", "Completed"),
    ("describe namespace NS", "Active"),
    ("logs job/j --tail=1 --timestamps", "Z done"),
    ("logs -l job-name=j --all-containers --prefix", "done"),
    ("get events --field-selector=involvedObject.name=p", "Scheduled"),
    ("top nodes", "node-under-test"),
    ("autoscale deployment web --min=1 --max=9 --cpu-percent=80", "horizontalpodautoscaler.autoscaling/web autoscaled"),
    ("get hpa web", "Deployment/web"),
    ("describe hpa web", "Deployment/web"),
    ("delete hpa web", "horizontalpodautoscaler.autoscaling \"web\" deleted"),
    ("create ingress in --class=c --rule=a.example/*=svc:80,tls=cert", "ingress.networking.k8s.io/in created"),
    ("get ing in", "in c a.example 80, 443"),
    ("apply -f DIR/net.yaml", "networkpolicy.networking.k8s.io/quiet created"),
    ("get netpol quiet", "quiet app=web"),
    ("describe netpol quiet", "Allowing ingress traffic"),
    ("get podtemplates", "shape main IMAGE a=b"),
    ("get ingressclass NS", "NS example.com/nobody Own.example.com/settings"),
    ("delete -f DIR/net.yaml", "podtemplate \"shape\" deleted"),
    // Inside
    ("exec p -- echo inside", "inside"),
    ("exec deploy/web -- hostname", "web-"),
    ("cp DIR/file p:/tmp/file", ""),
    ("exec p -- cat /tmp/file", "content of a file"),
    ("cp p:/tmp/file DIR/back", ""),
    // Changing
    ("scale deployment web --replicas=3", "deployment.apps/web scaled"),
    ("scale --current-replicas=3 --replicas=1 deployment/web", "deployment.apps/web scaled"),
    ("set env deployment/web A=B", "deployment.apps/web env updated"),
    ("set env deployment/web --list", "A=B"),
    ("set resources deployment/web --limits=cpu=200m,memory=64Mi", "resource requirements updated"),
    ("set image deployment/web demo=IMAGE", ""),
    ("set selector service svc app=web", "service/svc selector updated"),
    ("set serviceaccount deployment web sa", "deployment.apps/web serviceaccount updated"),
    ("set subject rolebinding rb --user=x", "subjects updated"),
    ("rollout status deployment/web --timeout=60s", "successfully rolled out"),
    ("rollout history deployment/web", "REVISION"),
    ("rollout history deployment/web --revision=1", "IMAGE"),
    ("rollout undo deployment/web --to-revision=1", "deployment.apps/web rolled back"),
    ("rollout restart deployment/web", "deployment.apps/web restarted"),
    ("rollout pause deployment/web", "deployment.apps/web paused"),
    ("rollout resume deployment/web", "deployment.apps/web resumed"),
    ("rollout status deployment/web --timeout=60s", "successfully rolled out"),
    ("label pod p x=y", "pod/p labeled"),
    ("label pod p x=z --overwrite", "pod/p labeled"),
    ("annotate pod p x=y", "pod/p annotated"),
    ("annotate pod p x-", "pod/p annotated"),
    ("patch deployment web -p '{\"spec\":{\"replicas\":2}}'", "deployment.apps/web patched"),
    (
        "patch deployment web --type=merge -p '{\"spec\":{\"paused\":null,\"replicas\":1}}'",
        "deployment.apps/web patched",
    ),
    (
        "patch deployment web --type=json -p '[{\"op\":\"test\",\"path\":\"/spec/replicas\",\"value\":1},\
         {\"op\":\"replace\",\"path\":\"/spec/replicas\",\"value\":2}]'",
        "deployment.apps/web patched",
    ),
    ("edit configmap c", "configmap/c edited"),
    ("get configmap c -o jsonpath={.data.a}", "edited"),
    ("apply -f DIR/map.yaml", "configmap/map created"),
    ("apply view-last-applied configmap map", "one"),
    ("apply -f DIR/map2.yaml", "configmap/map configured"),
    ("diff -f DIR/map2.yaml", ""),
    ("apply set-last-applied -f DIR/map.yaml", "configmap/map"),
    ("replace -f DIR/map.yaml", "configmap/map replaced"),
    ("replace --force -f DIR/map.yaml", "configmap/map replaced"),
    ("apply -k DIR", "configmap/k-map created"),
    ("kustomize DIR", "name: k-map"),
    ("expose deployment web --name=exposed --port=80 --target-port=8080", "service/exposed exposed"),
    // The cluster
    ("explain pods.spec.containers", "image"),
    ("explain deployments --recursive", "rollingUpdate"),
    ("api-resources --verbs=list --namespaced -o name", "deployments.apps"),
    ("api-versions", "apps/v1"),
    ("cluster-info", "is running at"),
    ("cluster-info dump --namespaces NS", "\"PodList\""),
    ("version", "v1.36.0"),
    ("auth can-i create pods", "yes"),
    ("auth can-i --list", "selfsubjectaccessreviews"),
    ("auth reconcile -f DIR/role.yaml", "role.rbac.authorization.k8s.io/more"),
    ("taint nodes --all NS=y:PreferNoSchedule", "tainted"),
    ("taint nodes --all NS-", "untainted"),
    ("cordon node-under-test", "cordoned"),
    ("uncordon node-under-test", "uncordoned"),
    ("drain node-under-test --dry-run=client --force --ignore-daemonsets", "dry run"),
    ("get --raw /readyz?verbose", "[+]etcd ok"),
    ("config view", "DATA+OMITTED"),
    // Going
    ("delete pod q --now", "pod \"q\" deleted"),
    ("delete pod p --force --grace-period=0", "pod \"p\" force deleted"),
    ("delete deployment web --cascade=orphan", "deployment.apps \"web\" deleted"),
    ("get replicasets --no-headers", "web-"),
    ("delete replicasets --all --cascade=background", "deleted"),
    ("delete pods --all --grace-period=1", "deleted"),
    ("delete service svc port lb name exposed", "service \"svc\" deleted"),
    ("delete job j --cascade=foreground", "job.batch \"j\" deleted"),
    ("delete clusterrole,clusterrolebinding,priorityclass NS", "deleted"),
    ("delete namespace NS", "namespace \"NS\" deleted"),
];

/// What the program of 1.20 does not have, or does as servers of its time did.
const NEWER: &[(&str, &str)] = &[
    ("create namespace NS", "namespace/NS created"),
    ("create token default", "."),
    ("create cronjob later --image=IMAGE --schedule='0 0 1 1 *' -- true", "cronjob.batch/later created"),
    ("create poddisruptionbudget b --selector=run=p --min-available=0", "poddisruptionbudget.policy/b created"),
    ("auth whoami", "kubernetes-admin"),
    ("run p --image=IMAGE --restart=Never -- sleep 1000", "pod/p created"),
    ("wait --for=jsonpath={.status.phase}=Running pod/p --timeout=60s", "pod/p condition met"),
    ("wait --for=create pod/p", "pod/p condition met"),
    ("events --for=pod/p --types=Normal", "Started"),
    ("get pod p --subresource=status -o name", "pod/p"),
    ("debug p --image=IMAGE -c look --profile=general -- true", ""),
    ("debug p --image=IMAGE --copy-to=copy --container=x --profile=general -- sleep 10", ""),
    ("debug node/node-under-test --image=IMAGE --profile=general -- true", "Creating debugging pod"),
    ("drain node-under-test --dry-run=server --force --ignore-daemonsets --pod-selector=run=p", "dry run"),
    ("delete pods --all --grace-period=1", "deleted"),
    ("delete namespace NS", "deleted"),
];

const EDITOR: &str = "sed -i 's/a: b/a: edited/'";

/// Words apart by blanks; what stands in single quotes is one.
fn words(line: &str) -> Vec<String> {
    let mut all = Vec::new();
    let (mut word, mut quoted) = (String::new(), false);
    for letter in line.chars() {
        match letter {
            '\'' => quoted = !quoted,
            ' ' if !quoted => all.extend(Some(std::mem::take(&mut word)).filter(|w| !w.is_empty())),
            letter => word.push(letter),
        }
    }
    all.extend(Some(word).filter(|w| !w.is_empty()));
    all
}

fn files(folder: &Path, namespace: &str) {
    std::fs::create_dir_all(folder).unwrap();
    let map = |value: &str| {
        format!("---\n{{apiVersion: v1, kind: ConfigMap, metadata: {{name: map}}, data: {{a: {value}}}}}\n")
    };
    let role = format!(
        "---\n{{apiVersion: rbac.authorization.k8s.io/v1, kind: Role, metadata: {{name: more, namespace: {namespace}}}, \
         rules: [{{apiGroups: [\"\"], resources: [pods], verbs: [list]}}]}}\n"
    );
    for (name, text) in [
        ("file", "content of a file\n".to_owned()),
        ("map.yaml", map("one")),
        ("map2.yaml", map("two")),
        ("role.yaml", role),
        ("net.yaml", network(namespace)),
        ("kustomization.yaml", format!("namePrefix: k-\nnamespace: {namespace}\nresources: [map.yaml]\n")),
    ] {
        std::fs::write(folder.join(name), text).unwrap();
    }
}

/// What charts bring along though nothing here enforces it yet.
fn network(namespace: &str) -> String {
    let meta = |name: &str| format!("metadata: {{name: {name}, namespace: {namespace}}}");
    format!(
        "---\n{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, {}, spec: {{podSelector: {{matchLabels: {{app: web}}}}, \
         ingress: [{{from: [{{podSelector: {{}}}}], ports: [{{port: 80}}]}}]}}}}\n\
         ---\n{{apiVersion: networking.k8s.io/v1, kind: IngressClass, metadata: {{name: {namespace}}}, spec: {{controller: \
         example.com/nobody, parameters: {{apiGroup: example.com, kind: Own, name: settings}}}}}}\n\
         ---\n{{apiVersion: v1, kind: PodTemplate, {}, template: {{metadata: {{labels: {{a: b}}}}, spec: {{containers: \
         [{{name: main, image: \"{IMAGE}\"}}]}}}}}}\n",
        meta("quiet"),
        meta("shape"),
    )
}

async fn day(cluster: &Cluster<'_>, kubectl: &Kubectl, namespace: &str, lines: &[(&str, &str)]) {
    let folder = cluster.machine().root().join(namespace);
    files(&folder, namespace);
    let filled = |text: &str| {
        text.replace("IMAGE", IMAGE).replace("NS", namespace).replace("DIR", &folder.display().to_string())
    };
    let mut failed = Vec::new();
    for (line, holds) in lines {
        let (line, holds) = (filled(line), filled(holds));
        let mut arguments = vec!["--namespace".to_owned(), namespace.to_owned()];
        arguments.extend(words(&line));
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let mut command = kubectl.command(&arguments);
        command.env("KUBE_EDITOR", EDITOR).stdin(std::process::Stdio::null());
        let output = tokio::time::timeout(std::time::Duration::from_secs(120), command.output()).await;
        let output = output.unwrap_or_else(|_| panic!("{} {line} does not end", kubectl.name())).unwrap();
        let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        // Columns are as wide as what stands in them.
        let plain = text.split_whitespace().collect::<Vec<_>>().join(" ");
        if !output.status.success() || !plain.contains(&holds) {
            failed.push(format!("{line}: {}, wanted is {holds:?}:\n{text}", output.status));
        }
    }
    assert!(failed.is_empty(), "{}:\n{}", kubectl.name(), failed.join("\n"));
}

#[test]
fn a_day_with_kubectl() {
    with(async |machine| {
        let cluster = Cluster::up(machine).await;
        let every = Kubectl::every(&machine.kubeconfig());
        let days = every.iter().zip(["old-day", "new-day"]);
        let days = days.map(|(kubectl, namespace)| day(&cluster, kubectl, namespace, DAY));
        // Most of a day is waiting for what is told to end.
        futures::future::join_all(days).await;
        for (_, namespace) in every.iter().zip(["old-day", "new-day"]) {
            let back = std::fs::read_to_string(machine.root().join(namespace).join("back")).unwrap();
            assert_eq!(back, "content of a file\n", "what was copied out of a pod in {namespace}");
        }
        day(&cluster, every.last().unwrap(), "newer-day", NEWER).await;
        cluster.uninstall().await;
    });
}

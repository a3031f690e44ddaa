#!/usr/bin/env bash
# From a clone to a page served by three pods: installs, builds, starts a one-machine cluster, deploys the demo, looks at it.
# Can be run again: what is there is kept, what is gone is made anew.
set -euo pipefail
cd "$(dirname "$0")/.."

[ "$(id -u)" = 0 ] || { echo "quickstart: run it as root (sudo tests/quickstart.sh): containers need namespaces, mounts and cgroups" >&2; exit 1; }
say() { printf '\n== %s\n' "$*"; }

say "Installing what the build needs"
tests/install.sh
export PATH="$HOME/.cargo/bin:$PATH"

say "Building the release"
bin=$(tests/build-release.sh demo_image)
gantry=$bin/gantry
export KUBECONFIG=/etc/gantry/admin.kubeconfig

say "Starting the cluster"
if kubectl get --raw /readyz >/dev/null 2>&1; then
    echo "it runs already"
else
    # The disk of a machine that somebody works at is often fuller than a node's is to be.
    "$gantry" up --detach --eviction-hard 'memory.available<100Mi,nodefs.available<1%,imagefs.available<1%' --image-gc-high-threshold 100
fi
kubectl version 2>/dev/null | tail -1
kubectl get nodes -o wide

say "Bringing the demo image"
work=$(mktemp -d)
registry_pid=
cleanup() { [ -z "$registry_pid" ] || kill "$registry_pid" 2>/dev/null || true; rm -rf "$work"; }
trap cleanup EXIT
image=gantry.local/demo:1
if command -v docker-registry >/dev/null; then
    port=5733
    printf 'version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: %s\nhttp:\n  addr: 127.0.0.1:%s\n' "$work/registry" $port >"$work/registry.yml"
    docker-registry serve "$work/registry.yml" >"$work/registry.log" 2>&1 &
    registry_pid=$!
    for _ in $(seq 100); do curl -fs "http://127.0.0.1:$port/v2/" >/dev/null && break; sleep 0.1; done
    image=127.0.0.1:$port/demo:1
    "$bin/demo_image" --push "$image"
    "$gantry" image pull "$image"
else
    "$bin/demo_image" "$work/demo.tar"
    "$gantry" image import "$work/demo.tar"
fi
"$gantry" image list

say "Deploying with kubectl"
sed "s|DEMO_IMAGE|$image|" tests/quickstart/demo.yaml | kubectl apply -f -
kubectl -n demo rollout status deployment/web --timeout=120s
kubectl -n demo get pods,services -o wide

fetch() { # fetch URL: a service may need a moment after its pods are ready
    for _ in $(seq 50); do curl -fs --max-time 2 "$1" && return 0; sleep 0.2; done
    echo "quickstart: $1 does not answer" >&2
    return 1
}
cluster_ip=$(kubectl -n demo get service web -o jsonpath='{.spec.clusterIP}')
node_ip=$(kubectl get nodes -o jsonpath='{.items[0].status.addresses[0].address}')
pod=$(kubectl -n demo get pods -l app=web -o jsonpath='{.items[0].metadata.name}')

say "Through the ClusterIP, from the host"
fetch "http://$cluster_ip/index.html"
say "Through the DNS name, from inside a pod"
kubectl -n demo exec "$pod" -- /bin/busybox wget -qO- http://web.demo.svc.cluster.local/index.html
say "Through the NodePort"
fetch "http://$node_ip:30080/index.html"
say "The secret, from inside a pod"
kubectl -n demo exec "$pod" -- /bin/busybox sh -c 'echo "WORD is $WORD"'
say "The log of a pod"
kubectl -n demo logs "$pod" --tail=3
say "The way of that pod"
"$gantry" trace pod "$pod" -n demo

cat <<TXT

The cluster runs on. Go on with
    export KUBECONFIG=$KUBECONFIG
    kubectl -n demo scale deployment/web --replicas=5
    kubectl get pods -A -o wide
Stop it with      $gantry down        (the data stays in /var/lib/gantry; \`$gantry up\` goes on)
Remove it with    $gantry uninstall   (nothing stays)
TXT

"""What the Helm chart makes, held against Kubernetes' own schemas and against what we promise of it.

Helm renders (helm-python-sdk binds its engine), kubernetes-validate has the published schemas. Objects of the Prometheus operator have
no schema in any registry: of them the parts that we set are looked at.
"""

import json
import pathlib
import re
import sys

import helm_python as helm
import kubernetes_validate
import yaml

CHART = pathlib.Path(__file__).parent / "helm" / "gpuquota"
# The oldest Kubernetes whose schema there is, one between, and the newest.
VERSIONS = ["1.25", "1.31", "1.37"]
OPERATORS = "monitoring.coreos.com/v1"
# Dynamic resource allocation is v1 from here on.
DRA, DRA_VERSIONS = "resource.k8s.io/v1", ["1.34", "1.35", "1.36", "1.37"]
CLUSTERS = {"DeviceClass", "ClusterRole", "ClusterRoleBinding"}
SAMPLES = pathlib.Path(__file__).parent / "samples"
MONITORING = {"metrics": {"serviceMonitor": {"enabled": True}, "rules": {"enabled": True}, "dashboard": {"enabled": True}}}
SECRETS = {"tokenSecret": "gpuquota-token", "tlsSecret": "gpuquota-tls"}

failures = []


def check(is_so, what):
    if not is_so:
        failures.append(what)
        print(f"FAILED: {what}")


def merged(one, other):
    both = dict(one)
    for key, value in other.items():
        both[key] = merged(both[key], value) if isinstance(value, dict) and isinstance(both.get(key), dict) else value
    return both


def rendered(chart, values):
    files = chart.render(values, name="quota", namespace="gpuquota")
    documents = (yaml.safe_load_all(text) for name, text in files.items() if name.endswith(".yaml"))
    return {document["kind"]: document for of in documents for document in of if document}


def refused(chart, values):
    try:
        chart.render(values, name="quota", namespace="gpuquota")
    except helm.HelmError as error:
        return str(error)
    return ""


def containers(objects):
    spec = objects["DaemonSet"]["spec"]["template"]["spec"]
    return spec, spec.get("initContainers", []) + spec["containers"]


def check_schema(name, document, versions=None):
    for version in versions or (DRA_VERSIONS if document["apiVersion"].startswith("resource.k8s.io/") else VERSIONS):
        try:
            kubernetes_validate.validate(document, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            check(False, f"{name}: {document['kind']} is none of Kubernetes {version}: {error.message}")


def check_samples():
    """The pods and claims of the quick starts; what they name is what the chart makes."""
    paths = [*sorted((SAMPLES / "dra").glob("*.yaml")), SAMPLES / "device-plugin.yaml"]
    for path in paths:
        for document in yaml.safe_load_all(path.read_text()):
            check_schema(path.name, document, DRA_VERSIONS if path.parent.name == "dra" else VERSIONS)
            for request in devices_of(document):
                check(request["exactly"]["deviceClassName"] == "gpuquota.dev", f"{path.name}: another device class")
    return len(paths)


def devices_of(document):
    spec = document["spec"]
    if document["kind"] == "ResourceClaimTemplate":
        spec = spec["spec"]
    return spec["devices"]["requests"] if document["apiVersion"] == DRA else []


def check_quick_starts(chart):
    """What docs/kubernetes.md has Helm set is a value of the chart, and renders."""
    text = (pathlib.Path(__file__).parent.parent / "docs/kubernetes.md").read_text()
    lines = [line for line in text.splitlines() if "--set " in line]
    for line in lines:
        values = {}
        for path, value in re.findall(r"--set ([\w.]+)=(\w+)", line):
            of = {"true": True, "false": False}.get(value, value)
            for part in reversed(path.split(".")):
                of = {part: of}
            values = merged(values, of)
            known = yaml.safe_load((CHART / "values.yaml").read_text())
            for part in path.split("."):
                check(part in known, f"docs/kubernetes.md: {path} is no value of the chart")
                known = known.get(part, {})
        chart.validate_schema(chart.merge_values(values))
        rendered(chart, values)
    check(len(lines) >= 3, "docs/kubernetes.md is not as this check reads it")


def check_written():
    """What the driver writes: tests/tests/kubelet/dra.rs holds this file to it."""
    path = pathlib.Path(__file__).parent.parent / "tests/tests/kubelet/objects.json"
    for document in json.loads(path.read_text()):
        check_schema(path.name, document)


def check_objects(name, objects):
    for kind, document in objects.items():
        namespace = None if kind in CLUSTERS else "gpuquota"
        check(document["metadata"].get("namespace") == namespace, f"{name}: {kind} is in another namespace")
        if document["apiVersion"] != OPERATORS:
            check_schema(name, document)


def check_rights(name, objects, host_pid):
    spec, all_containers = containers(objects)
    check(spec.get("hostPID", False) == host_pid, f"{name}: hostPID")
    for word in ("hostNetwork", "hostIPC"):
        check(not spec.get(word), f"{name}: {word}")
    check(spec["automountServiceAccountToken"] is False, f"{name}: the API server's token is mounted")
    mounted = {volume["name"] for volume in spec["volumes"]}
    used = set()
    for container in all_containers:
        rights = container["securityContext"]
        check(rights["privileged"] is False and rights["allowPrivilegeEscalation"] is False, f"{name}: privileged")
        check(rights["readOnlyRootFilesystem"] is True, f"{name}: the root file system can be written")
        check(rights["capabilities"]["drop"] == ["ALL"], f"{name}: capabilities stay")
        allowed = {"DAC_OVERRIDE"} | ({"SYS_PTRACE", "KILL"} if host_pid else set())
        check(set(rights["capabilities"]["add"]) <= allowed, f"{name}: {rights['capabilities']['add']}")
        used |= {mount["name"] for mount in container["volumeMounts"]}
    check(used == mounted, f"{name}: volumes {mounted} and mounts {used}")
    return {volume["hostPath"]["path"] for volume in spec["volumes"] if "hostPath" in volume}


def main():
    sets = {path.stem: yaml.safe_load(path.read_text()) for path in sorted((CHART / "engines").glob("*.yaml"))}
    engines = {"standalone", "hami", "volcano", "kai", "koordinator", "vgpu-manager"}
    check(set(sets) == engines, f"engines/ has {set(sets)}")
    sets["the default"] = {}
    sets["everything"] = merged(merged(MONITORING, SECRETS), {
        "hostPID": True, "unprotected": "kill", "runtimeClassName": "nvidia", "imagePullSecrets": [{"name": "pull"}],
        "nri": {"unprotected": "stop"}, "metrics": {"hami": True, "dcgm": True}, "extraArgs": ["--turns"],
        "networkPolicy": {"from": [{"namespaceSelector": {"matchLabels": {"name": "monitoring"}}}]},
        "nodeSelector": {"nvidia.com/gpu.present": "true"}, "podAnnotations": {"a": "b"},
    })
    sets["dra"] = {"dra": {"enabled": True, "extendedResourceName": "gpuquota.dev/gpu"}, "placement": {"whole": ["gpu-0"]}}
    sets["dra alone"] = {"dra": {"enabled": True}, "nri": {"enabled": False}, "install": {"enabled": False}}
    sets["device plugin"] = {"devicePlugin": {"enabled": True, "placement": "spread"}, "placement": {"besideOthers": True}}
    sets["hami's names"] = {"devicePlugin": {"enabled": True, "hamiNames": True, "hamiMemoryFactor": 10}}
    with helm.Chart.load(str(CHART)) as chart:
        for name, values in sets.items():
            chart.validate_schema(chart.merge_values(values))
            objects = rendered(chart, values)
            check_objects(name, objects)
            paths = check_rights(name, objects, values.get("hostPID", False))
            agent = next(of for of in containers(objects)[1] if of["name"] == "agent")
            placing = {of["name"] for of in containers(objects)[1]} - {"agent", "install"}
            both = chart.merge_values(values)
            wanted = {word for word, key in (("dra", "dra"), ("device-plugin", "devicePlugin")) if both[key]["enabled"]}
            check(placing == wanted, f"{name}: {placing}")
            check(("DeviceClass" in objects) == ("dra" in wanted), f"{name}: DeviceClass")
            with_nri = chart.merge_values(values)["nri"]["enabled"]
            check(any(flag.startswith("--nri=") for flag in agent["args"]) == with_nri, f"{name}: --nri")
            check(("/run/containerd" in paths) == (name == "everything"), f"{name}: the CRI socket")
            check({"DaemonSet", "Service", "ServiceAccount", "NetworkPolicy"} <= set(objects), f"{name}: {set(objects)}")
        check_quick_starts(chart)
        everything = rendered(chart, sets["everything"])
        endpoint = everything["ServiceMonitor"]["spec"]["endpoints"][0]
        check(endpoint["authorization"]["credentials"]["name"] == "gpuquota-token", "ServiceMonitor: no token")
        check(endpoint["scheme"] == "https", "ServiceMonitor: no TLS")
        labels = everything["Service"]["metadata"]["labels"]
        selected = everything["ServiceMonitor"]["spec"]["selector"]["matchLabels"].items()
        check(selected <= labels.items(), "ServiceMonitor: it does not select the Service")
        port = everything["Service"]["spec"]["ports"][0]["name"]
        check(endpoint["port"] == port, "ServiceMonitor: the port has another name")
        rules = yaml.safe_load((CHART / "files" / "alerts.yaml").read_text())
        check(everything["PrometheusRule"]["spec"] == rules, "PrometheusRule: not deploy/alerts.yaml")
        dashboard = json.loads((CHART / "files" / "dashboard.json").read_text())
        made = everything["ConfigMap"]
        check(json.loads(made["data"]["gpuquota.json"]) == dashboard, "ConfigMap: not deploy/dashboard.json")
        check(made["metadata"]["labels"]["grafana_dashboard"] == "1", "ConfigMap: Grafana's sidecar does not take it")
        for values, words in [
            ({"unprotected": "kill"}, "needs hostPID: true"),
            ({"engine": "hami"}, "choose one"),
            ({"dra": {"enabled": True}, "devicePlugin": {"enabled": True}}, "the same cards; choose one"),
            ({"engine": "hami", "nri": {"enabled": False}, "dra": {"enabled": True}}, "gives the cards away itself"),
        ]:
            check(words in refused(chart, values), f"{values} are taken")
        for wrong in [{"engine": "hamy"}, {"nri": {"unprotected": "kill"}}, {"regions": []}, {"metrics": {"port": 0}},
                      {"dra": {"enable": True}}, {"devicePlugin": {"placement": "fill"}}]:
            try:
                chart.validate_schema(chart.merge_values(wrong))
                check(False, f"{wrong} are taken")
            except helm.HelmError:
                pass
    samples = check_samples()
    check_written()
    told = helm.lint(str(CHART))
    for finding in told["errors"] + [of for of in told["messages"] if "icon" not in str(of)]:
        check(False, f"helm lint: {finding}")
    print(f"{len(sets)} sets of values, {samples} samples, {len(VERSIONS)} versions of Kubernetes, {len(failures)} failures")
    sys.exit(1 if failures else 0)


main()

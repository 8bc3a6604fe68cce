//! Nodes as a kubelet and a flannel-compatible agent leave them: some 20 kB each, most of it of no use to
//! weft.

use serde_json::{Value, json};
use weft::model::node::Peer;

use crate::cluster::{Stack, peer_v4, peer_v6};

/// Images that a kubelet reports (`--node-status-max-images`).
const IMAGES: u64 = 50;
/// As of a kubelet's heartbeat.
const NOW: &str = "2026-03-14T15:09:26Z";

/// A whole Node.
pub(crate) fn node(number: u32, stack: Stack) -> Value {
    let name = format!("ip-10-{}-{}-{}.eu-central-1.compute.internal", number >> 16, number >> 8 & 255, number & 255);
    let annotations = announced(number, stack);
    let v4 = peer_v4(number);
    let mut cidrs = vec![v4.subnet.to_string()];
    if stack.six() {
        cidrs.push(peer_v6(number).subnet.to_string());
    }
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "labels": labels(&name),
            "annotations": annotations,
            "finalizers": ["example.com/machine-controller"],
            "managedFields": managed_fields(&annotations),
        },
        "spec": { "podCIDR": cidrs[0], "podCIDRs": cidrs, "providerID": format!("aws:///eu-central-1a/i-{number:017x}") },
        "status": {
            "addresses": [
                { "type": "InternalIP", "address": v4.public_ip.to_string() },
                { "type": "Hostname", "address": name },
                { "type": "InternalDNS", "address": name },
            ],
            "allocatable": resources("63770m"),
            "capacity": resources("64"),
            "conditions": conditions(),
            "daemonEndpoints": { "kubeletEndpoint": { "Port": 10250 } },
            "images": images(),
            "nodeInfo": {
                "architecture": "amd64", "bootID": "9d1f4c5e-6a0b-4bd3-8a5e-70c43a4f2c11",
                "containerRuntimeVersion": "containerd://2.0.3", "kernelVersion": "6.12.22-cloud-amd64",
                "kubeProxyVersion": "v1.33.1", "kubeletVersion": "v1.33.1", "machineID": "5b0c2c8a3d0b4fd0b7d7f3d2b2a9a1c4",
                "operatingSystem": "linux", "osImage": "Debian GNU/Linux 13 (trixie)",
                "systemUUID": "ec2a1f0b-2c33-44d1-9c6e-0b9e7f6d5c4b"
            },
        },
    })
}

/// What a heartbeat changes, as a merge patch.
pub(crate) fn heartbeat(beat: u32) -> Value {
    let mut conditions = conditions();
    for condition in conditions.as_array_mut().into_iter().flatten() {
        condition["lastHeartbeatTime"] = format!("2026-03-14T15:{:02}:26Z", beat % 60).into();
    }
    json!({ "status": { "conditions": conditions } })
}

fn announced(number: u32, stack: Stack) -> Value {
    let data = |peer: &Peer| format!("{{\"VNI\":1,\"VtepMAC\":\"{}\"}}", crate::cluster::vtep(peer));
    let v4 = peer_v4(number);
    let mut annotations = json!({
        "csi.volume.kubernetes.io/nodeid": format!("{{\"ebs.csi.aws.com\":\"i-{number:017x}\"}}"),
        "flannel.alpha.coreos.com/backend-data": data(&v4),
        "flannel.alpha.coreos.com/backend-type": "vxlan",
        "flannel.alpha.coreos.com/kube-subnet-manager": "true",
        "flannel.alpha.coreos.com/public-ip": v4.public_ip.to_string(),
        "kubeadm.alpha.kubernetes.io/cri-socket": "unix:///run/containerd/containerd.sock",
        "node.alpha.kubernetes.io/ttl": "300",
        "volumes.kubernetes.io/controller-managed-attach-detach": "true",
    });
    if stack.six() {
        let v6 = peer_v6(number);
        annotations["flannel.alpha.coreos.com/backend-v6-data"] = data(&v6).into();
        annotations["flannel.alpha.coreos.com/public-ipv6"] = v6.public_ip.to_string().into();
    }
    annotations
}

fn labels(name: &str) -> Value {
    json!({
        "beta.kubernetes.io/arch": "amd64", "beta.kubernetes.io/instance-type": "m7i.16xlarge",
        "beta.kubernetes.io/os": "linux", "failure-domain.beta.kubernetes.io/region": "eu-central-1",
        "failure-domain.beta.kubernetes.io/zone": "eu-central-1a", "kubernetes.io/arch": "amd64",
        "kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "node-role.kubernetes.io/worker": "",
        "node.kubernetes.io/instance-type": "m7i.16xlarge", "topology.ebs.csi.aws.com/zone": "eu-central-1a",
        "topology.kubernetes.io/region": "eu-central-1", "topology.kubernetes.io/zone": "eu-central-1a",
    })
}

fn resources(cpu: &str) -> Value {
    json!({
        "cpu": cpu, "ephemeral-storage": "101430960Ki", "hugepages-1Gi": "0", "hugepages-2Mi": "0",
        "memory": "263897300Ki", "pods": "110",
    })
}

fn conditions() -> Value {
    let condition = |(kind, status, reason, message): (&str, &str, &str, &str)| {
        json!({
            "type": kind, "status": status, "reason": reason, "message": message,
            "lastHeartbeatTime": NOW, "lastTransitionTime": "2026-01-02T03:04:05Z",
        })
    };
    let all = [
        ("NetworkUnavailable", "False", "FlannelIsUp", "Flannel is running on this node"),
        ("MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
        ("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        ("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
        ("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
    ];
    all.map(condition).to_vec().into()
}

fn images() -> Value {
    let image = |number: u64| {
        let digest = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let digest = format!("{digest:016x}{:016x}{digest:016x}{:016x}", digest ^ 0x5555, digest ^ 0xaaaa);
        json!({
            "names": [
                format!("123456789012.dkr.ecr.eu-central-1.example.com/platform/team-{}/service-{number}@sha256:{digest}", number % 7),
                format!("123456789012.dkr.ecr.eu-central-1.example.com/platform/team-{}/service-{number}:v1.{}.{number}", number % 7, number % 13),
            ],
            "sizeBytes": 40_000_000 + number * 1_234_567,
        })
    };
    (0..IMAGES).map(image).collect::<Vec<_>>().into()
}

/// One entry for each that writes to a Node: kubeadm, the controller manager, the network agent, the kubelet.
fn managed_fields(annotations: &Value) -> Value {
    let keys = |names: Vec<String>| -> Value {
        let field = |name: String| (format!("f:{name}"), json!({}));
        std::iter::once((".".to_owned(), json!({})))
            .chain(names.into_iter().map(field))
            .collect::<serde_json::Map<_, _>>()
            .into()
    };
    let names = |object: &Value| object.as_object().map(|map| map.keys().cloned().collect()).unwrap_or_default();
    let condition = |kind: &str| {
        let fields = ["type", "status", "reason", "message", "lastHeartbeatTime", "lastTransitionTime"];
        (format!("k:{{\"type\":\"{kind}\"}}"), keys(fields.map(str::to_owned).to_vec()))
    };
    let kinds = ["NetworkUnavailable", "MemoryPressure", "DiskPressure", "PIDPressure", "Ready"];
    let conditions: serde_json::Map<_, _> = kinds.map(condition).into_iter().collect();
    let entry = |manager: &str, sub: &str, fields: Value| {
        json!({
            "manager": manager, "operation": "Update", "apiVersion": "v1", "time": NOW, "fieldsType": "FieldsV1",
            "fieldsV1": fields, "subresource": sub,
        })
    };
    json!([
        entry("kubeadm", "", json!({ "f:metadata": { "f:annotations": keys(names(annotations)) } })),
        entry("kubelet", "", json!({ "f:metadata": { "f:labels": keys(names(&labels(""))) } })),
        entry(
            "kube-controller-manager",
            "",
            json!({ "f:spec": { "f:podCIDR": {}, "f:podCIDRs": { ".": {}, "v:\"\"": {} } } })
        ),
        entry("flanneld", "status", json!({ "f:metadata": { "f:annotations": keys(names(annotations)) } })),
        entry(
            "kubelet",
            "status",
            json!({
                "f:status": {
                    "f:allocatable": keys(names(&resources(""))), "f:capacity": keys(names(&resources(""))),
                    "f:conditions": conditions, "f:images": {}, "f:nodeInfo": { "f:bootID": {}, "f:kernelVersion": {} },
                }
            })
        ),
    ])
}

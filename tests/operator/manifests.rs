//! `manifests/`: that what is deployed says what the code, the documentation and the policy say.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use weft::cluster::annotations::{self, DEFAULT_PREFIX, Keys};
use weft::cluster::events::COMPONENT;
use weft::config::{Task, parse};
use weft::model::addr::Family;

const OVERLAYS: [&str; 8] = [
    "base",
    "overlays/dual-stack",
    "overlays/ipv6-only",
    "overlays/k3s",
    "overlays/from-flannel",
    "overlays/to-flannel",
    "overlays/removal",
    "overlays/removal-from-flannel",
];

/// Those of them that run no agent.
const CLEANUPS: [&str; 3] = ["overlays/to-flannel", "overlays/removal", "overlays/removal-from-flannel"];

fn manifests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests")
}

fn read(name: &str) -> String {
    std::fs::read_to_string(manifests().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn documents(yaml: &str) -> Vec<Value> {
    serde_saphyr::from_multiple(yaml).unwrap_or_else(|error| panic!("{error}"))
}

/// Renders a kustomization of one's own, which says `MANIFESTS` where the folder is.
fn own(kustomization: &str) -> Option<Vec<Value>> {
    let scratch = tempfile::tempdir().expect("a folder");
    // kustomize takes folders by relative paths only.
    let up = "../".repeat(scratch.path().components().count());
    let manifests = format!("{up}{}", manifests().display().to_string().trim_start_matches('/'));
    let file = kustomization.replace("MANIFESTS", &manifests);
    std::fs::write(scratch.path().join("kustomization.yaml"), file).expect("written");
    rendered(scratch.path())
}

/// What `kubectl apply -k` would send; `None`, loudly, if there is no kubectl (an error in CI).
fn rendered(folder: &Path) -> Option<Vec<Value>> {
    match Command::new("kubectl").arg("kustomize").arg(folder).output() {
        Ok(output) => {
            let problem = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success() && problem.is_empty(), "{}: {problem}", folder.display());
            Some(documents(&String::from_utf8(output.stdout).expect("UTF-8")))
        }
        Err(error) if std::env::var_os("CI").is_some_and(|ci| ci == "true") => panic!("kubectl: {error}"),
        Err(error) => {
            eprintln!("SKIPPED: kubectl cannot be run ({error})");
            None
        }
    }
}

fn overlay(name: &str) -> Option<Vec<Value>> {
    rendered(&manifests().join(name))
}

/// The one of this kind.
fn only<'a>(objects: &'a [Value], kind: &str) -> &'a Value {
    let mut found = objects.iter().filter(|object| object["kind"] == kind);
    let first = found.next().unwrap_or_else(|| panic!("no {kind}"));
    assert!(found.next().is_none(), "more than one {kind}");
    first
}

/// The container that is weft.
fn agent(objects: &[Value]) -> &Value {
    let pod = &only(objects, "DaemonSet")["spec"]["template"]["spec"];
    let of = |kind: &str| pod[kind].as_array().into_iter().flatten().find(|each| each["name"] == "weft");
    of("containers").or_else(|| of("initContainers")).expect("a container of that name")
}

fn list(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

#[test]
fn the_one_file_is_the_base() {
    let check = Command::new(manifests().join("generate")).arg("--check").output().expect("bash");
    assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stderr));
    let by_name = |objects: Vec<Value>| -> BTreeMap<String, Value> {
        objects
            .into_iter()
            .map(|object| (format!("{} {}", object["kind"], object["metadata"]["name"]), object))
            .collect()
    };
    let Some(base) = overlay("base") else { return };
    assert_eq!(by_name(documents(&read("weft.yaml"))), by_name(base));
}

#[test]
fn every_overlay_gives_weft_a_command_line_and_a_configuration_that_it_takes() {
    let scratch = tempfile::tempdir().expect("a folder");
    for name in OVERLAYS {
        let Some(objects) = overlay(name) else { return };
        let conf = objects.iter().find(|object| object["kind"] == "ConfigMap");
        let conf = conf.map_or(r#"{"Network":"10.244.0.0/16","Backend":{"Type":"vxlan"}}"#, |map| {
            map["data"]["net-conf.json"].as_str().expect("text")
        });
        let path = scratch.path().join("net-conf.json");
        std::fs::write(&path, conf).expect("written");
        let mut args = list(&agent(&objects)["args"]);
        args.push(format!("--net-config-path={}", path.display()));
        let env = BTreeMap::from([("NODE_NAME".to_owned(), "a".to_owned())]);
        let (notices, cleans_up) = match parse(&args, &env).unwrap_or_else(|error| panic!("{name}: {error}")) {
            Task::Run(run) => {
                let families: Vec<Family> = run.settings.overlay.families().collect();
                let expected = match name {
                    "overlays/dual-stack" => &Family::BOTH[..],
                    "overlays/ipv6-only" => &[Family::V6],
                    _ => &[Family::V4],
                };
                assert_eq!(families, expected, "{name}");
                (run.notices, false)
            }
            Task::Cleanup(cleanup) => {
                assert!(cleanup.yes && cleanup.hand_over == name.contains("to-flannel"), "{name}: {cleanup:?}");
                (cleanup.notices, true)
            }
            other => panic!("{name}: {other:?}"),
        };
        assert_eq!(cleans_up, CLEANUPS.contains(&name), "{name} runs something else");
        assert!(notices.is_empty(), "{name}: {notices:?}");
    }
}

/// The pod is ready once a dry run of what it did finds nothing left, and starts again if that finds something later;
/// it needs no other image.
#[test]
fn a_pod_that_cleans_up_is_ready_when_nothing_is_left() {
    for name in CLEANUPS {
        let Some(objects) = overlay(name) else { return };
        let pod = &only(&objects, "DaemonSet")["spec"]["template"]["spec"];
        assert_eq!((pod["containers"].as_array().map(Vec::len), pod.get("initContainers")), (Some(1), None), "{name}");
        let agent = agent(&objects);
        let does = list(&agent["args"]);
        assert!(does.iter().any(|arg| arg == "--then-wait"), "{name}: {does:?}");
        let [ready, alive] = ["readinessProbe", "livenessProbe"].map(|probe| list(&agent[probe]["exec"]["command"]));
        let dry = does.into_iter().filter(|arg| !["--yes", "--then-wait"].contains(&arg.as_str()));
        // The image has the program there: tests/manifests/image looks.
        let dry: Vec<String> = std::iter::once("/weft".to_owned()).chain(dry).collect();
        assert_eq!([&ready, &alive], [&dry, &dry], "{name}");
        assert!(agent.get("ports").is_none(), "nobody listens there: {agent}");
    }
}

/// What is done on the way from flannel, and back or off again, is done to the same DaemonSet, by the same account, with the
/// configuration that is there.
#[test]
fn whoever_came_from_flannel_stays_in_its_namespace() {
    for name in ["overlays/from-flannel", "overlays/to-flannel", "overlays/removal-from-flannel"] {
        let Some(objects) = overlay(name) else { return };
        let daemon_set = only(&objects, "DaemonSet");
        let subject = &only(&objects, "ClusterRoleBinding")["subjects"][0];
        let configuration = &daemon_set["spec"]["template"]["spec"]["volumes"][0]["configMap"]["name"];
        assert_eq!(
            (&daemon_set["metadata"]["namespace"], &subject["namespace"], configuration),
            (&json!("kube-flannel"), &json!("kube-flannel"), &json!("kube-flannel-cfg")),
            "{name}"
        );
        let kinds = ["Namespace", "ConfigMap"];
        assert!(objects.iter().all(|object| kinds.iter().all(|kind| object["kind"] != *kind)), "{name}");
    }
}

/// Each agent that starts reads every Node, so an update starts few at once.
#[test]
fn an_update_replaces_few_agents_at_once() {
    let Some(base) = overlay("base") else { return };
    let update = &only(&base, "DaemonSet")["spec"]["updateStrategy"]["rollingUpdate"];
    let percent = update["maxUnavailable"].as_str().and_then(|text| text.strip_suffix('%')?.parse::<u32>().ok());
    assert_eq!((percent, update.get("maxSurge")), (Some(1), None), "{update}");
}

#[test]
fn the_agent_has_one_capability_and_no_other_privilege() {
    for name in OVERLAYS {
        let Some(objects) = overlay(name) else { return };
        let pod = &only(&objects, "DaemonSet")["spec"]["template"]["spec"];
        let expected = json!({
            "runAsUser": 0, "runAsGroup": 0, "privileged": false, "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN"]},
        });
        assert_eq!(agent(&objects)["securityContext"], expected, "{name}");
        assert_eq!(pod["securityContext"], json!({"seccompProfile": {"type": "RuntimeDefault"}}), "{name}");
        let shared = ["hostPID", "hostIPC"].map(|key| pod.get(key).is_some());
        assert_eq!(shared, [false; 2], "{name}");
    }
}

/// containerd's and CRI-O's own default, k3s without its flannel included.
#[test]
fn the_cni_configuration_goes_where_container_runtimes_look() {
    for name in OVERLAYS {
        let Some(objects) = overlay(name) else { return };
        let volumes = only(&objects, "DaemonSet")["spec"]["template"]["spec"]["volumes"].clone();
        let mounts = agent(&objects)["volumeMounts"].clone();
        let named = |all: &Value| all.as_array().into_iter().flatten().find(|each| each["name"] == "cni").cloned();
        let seen = [
            named(&volumes).expect("a volume")["hostPath"]["path"].clone(),
            named(&mounts).expect("a mount")["mountPath"].clone(),
        ];
        assert_eq!(seen, ["/etc/cni/net.d", "/etc/cni/net.d"], "{name}");
    }
}

#[test]
fn the_image_is_this_version() {
    let Some(base) = overlay("base") else { return };
    assert_eq!(agent(&base)["image"], format!("localhost/weft:v{}", env!("CARGO_PKG_VERSION")));
}

/// flannel and weft on one node would each undo the other's work.
#[test]
fn on_the_way_from_flannel_no_node_runs_both() {
    let Some(objects) = overlay("overlays/from-flannel") else { return };
    let requirements = |terms: &Value| -> BTreeSet<String> {
        let path = "/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms";
        let [term] = &terms.pointer(path).and_then(Value::as_array).expect("terms")[..] else { panic!("{terms}") };
        term["matchExpressions"].as_array().into_iter().flatten().map(Value::to_string).collect()
    };
    let expression =
        |operator: &str| json!({"key": "pod-network", "operator": operator, "values": ["weft"]}).to_string();
    let weft = only(&objects, "DaemonSet");
    let affinity = &weft["spec"]["template"]["spec"]["affinity"];
    assert!(requirements(affinity).contains(&expression("In")), "{affinity}");
    let patch = &documents(&read("overlays/from-flannel/flannel-patch.yaml"))[0];
    assert!(requirements(&patch["spec"]["template"]["spec"]["affinity"]).contains(&expression("NotIn")), "{patch}");
    let [term] =
        &affinity["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"].as_array().expect("terms")[..]
    else {
        panic!("{affinity}")
    };
    assert_eq!(
        *term,
        json!({"labelSelector": {"matchLabels": {"app": "flannel"}}, "topologyKey": "kubernetes.io/hostname"})
    );
    assert_eq!(weft["metadata"]["namespace"], "kube-flannel");
    assert_eq!(only(&objects, "ServiceAccount")["metadata"]["namespace"], "kube-flannel");
    assert!(!objects.iter().any(|object| object["metadata"]["namespace"] == "weft"), "something stays behind");
}

#[test]
fn the_policy_knows_our_annotations_and_is_about_our_service_account() {
    for name in OVERLAYS {
        let Some(objects) = overlay(name) else { return };
        let account = &only(&objects, "ServiceAccount")["metadata"];
        let user = format!(
            "system:serviceaccount:{}:{}",
            account["namespace"].as_str().expect("a name"),
            account["name"].as_str().expect("a name")
        );
        let spec = &only(&objects, "ValidatingAdmissionPolicy")["spec"];
        let condition =
            json!([{"name": "the-agents-only", "expression": format!("request.userInfo.username == {user:?}")}]);
        assert_eq!(spec["matchConditions"], condition, "{name}");
        for kind in ["ClusterRoleBinding", "RoleBinding"] {
            for binding in objects.iter().filter(|object| object["kind"] == kind) {
                assert_eq!(binding["subjects"][0]["namespace"], account["namespace"], "{name}");
            }
        }
        let variable = |name: &str| -> String {
            let variables = spec["variables"].as_array().into_iter().flatten();
            let found = variables.filter(|each| each["name"] == name).filter_map(|each| each["expression"].as_str());
            found.collect()
        };
        let prefix = Keys::new(DEFAULT_PREFIX).expect("a prefix").full("");
        assert_eq!(variable("prefix"), format!("{prefix:?}"));
        let known: BTreeSet<String> = quoted(&variable("keys"));
        let written = Family::BOTH
            .into_iter()
            .flat_map(|family| [annotations::backend_data(family), annotations::public_ip(family)]);
        let written = written.chain([annotations::KUBE_SUBNET_MANAGER, annotations::BACKEND_TYPE]);
        assert_eq!(known, written.map(str::to_owned).collect());
        let rules: String = spec["validations"].as_array().into_iter().flatten().map(Value::to_string).collect();
        assert!(rules.contains(&format!("source.component == \\\"{COMPONENT}\\\"")), "{name}: {rules}");
    }
}

/// The texts between quotation marks.
fn quoted(text: &str) -> BTreeSet<String> {
    text.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

// === Monitoring ===

/// Names of metrics as PromQL has them: what begins like one of ours, and Prometheus's own of each target.
fn metrics(expression: &str) -> BTreeSet<String> {
    let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words
        .filter(|word| *word == "up" || word.starts_with("weft_") || word.starts_with("process_"))
        .map(str::to_owned)
        .collect()
}

fn rules() -> Vec<Value> {
    let rule = &documents(&read("monitoring/rules.yaml"))[0];
    rule["spec"]["groups"][0]["rules"].as_array().expect("rules").clone()
}

fn dashboard() -> Value {
    serde_json::from_str(&read("monitoring/dashboard.json")).expect("JSON")
}

#[test]
fn alerts_and_dashboard_ask_for_metrics_that_exist() {
    let page = include_str!("expected/metrics.txt");
    let exist = page.lines().flat_map(|line| metrics(line.split(['{', ' ']).next().unwrap_or_default()));
    let exist: BTreeSet<String> = exist.chain(["up".to_owned()]).collect();
    let panels = dashboard()["panels"].as_array().expect("panels").clone();
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    let expressions: Vec<String> =
        targets.chain(&rules()).map(|each| each["expr"].as_str().expect("an expression").to_owned()).collect();
    for expression in expressions {
        let asked = metrics(&expression);
        assert!(!asked.is_empty(), "{expression} asks for nothing of ours");
        assert!(asked.is_subset(&exist), "{expression} asks for {:?}", asked.difference(&exist).collect::<Vec<_>>());
    }
}

/// Prometheus calls the job what this label of the pods says, whatever the namespace.
#[test]
fn the_alerts_ask_for_the_job_that_the_monitor_makes() {
    let Some(base) = overlay("base") else { return };
    let label = documents(&read("monitoring/pod-monitor.yaml"))[0]["spec"]["jobLabel"].clone();
    let job = &only(&base, "DaemonSet")["spec"]["template"]["metadata"]["labels"][label.as_str().expect("a label")];
    let expressions: Vec<String> = rules().iter().map(|rule| rule["expr"].as_str().expect("text").to_owned()).collect();
    let named: Vec<&str> =
        expressions.iter().filter_map(|text| text.split("job=\"").nth(1)?.split('"').next()).collect();
    assert!(!named.is_empty() && named.iter().all(|name| job == name), "{named:?}, and the pods say {job}");
}

#[test]
fn the_alerts_are_those_of_the_documentation() {
    let text = std::fs::read_to_string(manifests().join("../docs/operating.md")).expect("docs/operating.md");
    let (_, table) = text.split_once("Alerts worth having").expect("a table of alerts");
    let rows = table.lines().skip_while(|line| !line.starts_with("| `")).take_while(|line| line.starts_with("| `"));
    let documented: BTreeSet<String> = rows
        .filter_map(|row| row.strip_prefix("| `")?.split_once(" | "))
        .map(|(condition, means)| {
            let name = means.split(':').next().unwrap_or_default();
            format!("{name}: {condition}").replace(['\\', '`'], "")
        })
        .collect();
    let shipped = rules().into_iter().map(|rule| {
        let name = rule["alert"].as_str().expect("a name");
        let expression = format!("{name}: {}", rule["expr"].as_str().expect("an expression"));
        rule.get("for").and_then(Value::as_str).map_or(expression.clone(), |time| {
            let unit = time.len() - 1;
            format!("{expression} for {} {}", &time[..unit], &time[unit..])
        })
    });
    assert_eq!(shipped.collect::<BTreeSet<String>>(), documented);
}

/// What `overlay` gives with the component `monitoring` on top, as docs/installing.md has it.
fn monitored(overlay: &str) -> Option<Vec<Value>> {
    own(&format!("resources: [MANIFESTS/{overlay}]\ncomponents: [MANIFESTS/monitoring]\n"))
}

/// The component takes the place of the loopback address, in the flag and in the probes; what Prometheus reads is
/// where the agents are.
#[test]
fn with_monitoring_the_agent_listens_where_prometheus_can_ask() {
    for name in ["base", "overlays/dual-stack", "overlays/ipv6-only", "overlays/k3s", "overlays/from-flannel"] {
        let Some(objects) = monitored(name) else { return };
        let agent = agent(&objects);
        assert_eq!(agent["args"][1], "--healthz-ip=$(HOST_IP)", "{name}");
        let host_ip = json!({"name": "HOST_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.hostIP"}}});
        assert_eq!(agent["env"][1], host_ip, "{name}");
        assert!(!agent.to_string().contains("127.0.0.1"), "{name}: {agent}");
        let monitor = only(&objects, "PodMonitor");
        assert_eq!(agent["ports"][0]["name"], monitor["spec"]["podMetricsEndpoints"][0]["port"], "{name}");
        let home = &only(&objects, "DaemonSet")["metadata"]["namespace"];
        for kind in ["PodMonitor", "PrometheusRule"] {
            assert_eq!(only(&objects, kind)["metadata"]["namespace"], *home, "{name}: {kind}");
        }
    }
}

#[test]
fn an_overlay_of_ones_own_can_be_written_as_the_documentation_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/installing.md");
    let text = std::fs::read_to_string(path).expect("docs/installing.md");
    let (_, from) = text.split_once("an overlay of yours adds it:\n\n   ```yaml\n").expect("an overlay");
    let (block, _) = from.split_once("   ```\n").expect("its end");
    let block: String = block.lines().map(|line| format!("{}\n", line.strip_prefix("   ").unwrap_or(line))).collect();
    let Some(objects) = own(&block.replace("manifests/", "MANIFESTS/")) else { return };
    assert!(list(&agent(&objects)["args"]).contains(&"--iface=eth1".to_owned()), "{objects:#?}");
}

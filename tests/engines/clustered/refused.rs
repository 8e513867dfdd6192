//! What a cluster does not let norn do, or lets no pod do: told once, with the former version serving on.

use crate::cluster::Cluster;
use crate::sandbox::{Ran, until};

use super::{Shop, WHAT, has};

impl Shop<'_> {
    /// A version that serves, and where.
    fn serves_first(&self) -> u16 {
        self.ready_made("env: {VERSION: first}");
        self.ok("apply --yes");
        let port = self.node_port();
        self.answers(port, "first");
        port
    }

    /// An apply that fails with these words, of which the first are there once, and leaves what serves.
    fn refuses(&self, port: u16, words: &[&str]) -> Ran {
        let ran = self.run("apply --yes");
        println!("{}\n{}", ran.out, ran.err);
        assert_eq!(ran.code, 1, "{}", ran.err);
        has(&ran.err, words);
        assert_eq!(ran.err.matches(words[0]).count(), 1, "{}", ran.err);
        self.answers(port, "first");
        has(&self.ok("status").out, &["web  healthy", "1/1"]);
        ran
    }

    /// That the next version takes over as if nothing had been.
    fn goes_on(&self, port: u16) {
        self.ready_made("env: {VERSION: next}");
        self.ok("apply --yes");
        self.answers(port, "next");
        self.plan_is_empty();
        assert_eq!(self.open_in_journal(), 0);
        self.destroy();
        assert_eq!(self.objects(), Vec::<String>::new());
    }
}

/// A rule of the cluster for this namespace. It goes with this.
struct Rule<'a>(&'a Shop<'a>);

impl<'a> Rule<'a> {
    /// No Deployment may have an environment with this value.
    fn against(shop: &'a Shop<'a>, value: &str) -> Self {
        let name = &shop.space.name;
        shop.space.cluster.apply(&format!(
            "apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {{name: {name}}}
spec:
  failurePolicy: Fail
  matchConstraints:
    resourceRules: [{{apiGroups: [apps], apiVersions: [v1], operations: [CREATE, UPDATE], resources: [deployments]}}]
  validations:
  - expression: \"object.spec.template.spec.containers.all(c, !has(c.env) || c.env.all(e, !has(e.value) || e.value != '{value}'))\"
    message: no version may be called {value}
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {{name: {name}}}
spec:
  policyName: {name}
  validationActions: [Deny]
  matchResources: {{namespaceSelector: {{matchLabels: {{kubernetes.io/metadata.name: {name}}}}}}}
"
        ));
        // The apiserver hears of it a moment later.
        let forbidden = format!("set env deployment/web --dry-run=server VERSION={value}");
        until("the rule counts", || shop.space.kubectl(&forbidden).is_err());
        Self(shop)
    }
}

impl Drop for Rule<'_> {
    fn drop(&mut self) {
        let kinds = "validatingadmissionpolicybinding,validatingadmissionpolicy";
        let _gone = self.0.space.kubectl(&format!("delete {kinds} {}", self.0.space.name));
    }
}

#[test]
fn what_a_rule_of_the_cluster_forbids_is_told() {
    let Some(cluster) = Cluster::shared(WHAT) else { return };
    let shop = Shop::new(cluster);
    let port = shop.serves_first();
    let _rule = Rule::against(&shop, "forbidden");
    shop.ready_made("env: {VERSION: forbidden}");
    shop.refuses(
        port,
        &[
            "a rule of the cluster forbids it",
            "apply deployment/web",
            "no version may be called forbidden",
            "; change the app or the rule",
        ],
    );
    shop.goes_on(port);
}

#[test]
fn a_quota_is_told_whether_it_refuses_an_object_or_its_pods() {
    let Some(cluster) = Cluster::shared(WHAT) else { return };
    let shop = Shop::new(cluster);
    let quota = |hard: &str| {
        shop.space.ok(&format!("create quota few --hard {hard}"));
        // The quota counts from when its controller has seen it.
        shop.space.ok("wait quota/few --timeout 20s --for jsonpath={.status.hard}");
    };
    // The very first object: nothing is left but what was allowed.
    quota("count/deployments.apps=0");
    shop.ready_made("env: {VERSION: first}");
    let ran = shop.fails("apply --yes", 3);
    println!("{}\n{}", ran.out, ran.err);
    let told = format!("the quota of the namespace {} is used up", shop.space.name);
    has(&ran.err, &[&told, "apply deployment/web", "exceeded quota: few", "; ask for less"]);
    assert_eq!(ran.err.matches(&told).count(), 1, "{}", ran.err);
    assert_eq!(shop.objects(), ["service/web"]);
    shop.space.ok("delete quota few");

    let port = shop.serves_first();
    quota("pods=1");
    shop.ready_made("env: {VERSION: second}\nrollout: {timeout: 6s, drain: 1s}");
    shop.refuses(port, &["its pods cannot be made: ", "exceeded quota: few", "serves as before"]);
    shop.space.ok("delete quota few");
    shop.goes_on(port);
}

#[test]
fn a_container_that_takes_too_much_memory_is_told_as_that() {
    let Some(cluster) = Cluster::shared(WHAT) else { return };
    let shop = Shop::new(cluster);
    let port = shop.serves_first();
    shop.ready_made(
        "env: {VERSION: second}\nresources: {memory: 24Mi}\nrollout: {timeout: 15s, drain: 1s}\ncommand: [dd, if=/dev/zero, of=/dev/null, bs=200M]",
    );
    let ran = shop.refuses(port, &["(OOMKilled", "serves as before"]);
    assert!(!ran.err.contains("unable to retrieve"), "{}", ran.err);
    shop.goes_on(port);
}

#[test]
fn who_may_not_do_something_is_told_what_and_how_to_mend_it() {
    let Some(cluster) = Cluster::shared(WHAT) else { return };
    let mut shop = Shop::new(cluster);
    let port = shop.serves_first();
    let right = shop.sandbox.env["KUBECONFIG"].clone();
    let kinds = "pods,secrets,services,deployments.apps,jobs.batch,ingresses.networking.k8s.io,persistentvolumeclaims,replicasets.apps";
    let looker = shop.space.limited("get,list", kinds).display().to_string();
    shop.ready_made("env: {VERSION: second}");
    shop.sandbox.env.insert("KUBECONFIG".into(), looker);
    let told = "may not patch services in the namespace";
    let ran = shop.refuses(port, &[told]);
    let role = format!(
        "kubectl create role norn --namespace {} --verb patch --resource services` and bind it",
        shop.space.name
    );
    has(&ran.err, &["the user `system:serviceaccount:", "apply service/web", &role]);

    let ran = shop.run(&format!("destroy --yes --confirm {}", shop.project));
    println!("{}\n{}", ran.out, ran.err);
    assert_eq!(ran.code, 1, "{}", ran.err);
    has(&ran.err, &["may not delete ", "--verb delete --resource "]);
    shop.answers(port, "first");
    shop.sandbox.env.insert("KUBECONFIG".into(), right);
    shop.goes_on(port);
}

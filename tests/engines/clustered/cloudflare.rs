//! The world's way to an app: a tunnel's configuration in a real cluster, and an account of Cloudflare.

use crate::cloudflare::{Account, Fault};
use crate::cluster::Cluster;
use crate::sandbox::until;

use super::{Shop, WHAT, has};

const TOKEN: &str = "cf-token-hunter2222";
const TUNNEL: &str = "5f0cb0fe-0d3f-4b0c-8f6c-0a4d6f9e1a77";
const BEFORE: &str = "# ours alone
tunnel: shop
ingress:
  - hostname: \"a.example.com\"   # by hand
    service: http://a
  - service: http_status:404
";

/// A shop whose apps the world reaches through a tunnel.
pub(super) struct Routed<'a> {
    pub(super) shop: Shop<'a>,
    account: Account,
    /// What its health is asked by: absent, the name that leads to it, so that another one rolls it.
    pub(super) asked_by: Option<&'static str>,
}

impl<'a> Routed<'a> {
    pub(super) fn new(cluster: &'a Cluster) -> Self {
        let mut shop = Shop::new(cluster);
        let account = Account::open(TOKEN);
        account.zone("example.com");
        account.record("example.com", "CNAME", "a.example.com", "elsewhere.example.net", None);
        shop.sandbox.env.insert("NORN_CLOUDFLARE_API".into(), account.url.clone());
        shop.sandbox.env.insert("CF_TOKEN".into(), TOKEN.into());
        let base = cluster.registry.base(cluster.engine, "1");
        let lines: String = BEFORE.lines().map(|line| format!("    {line}\n")).collect();
        shop.space.apply(&format!(
            "apiVersion: v1
kind: ConfigMap
metadata: {{name: tunnel}}
data:
  other: kept
  config.yaml: |
{lines}---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: cloudflared}}
spec:
  selector: {{matchLabels: {{of: tunnel}}}}
  template:
    metadata: {{labels: {{of: tunnel}}}}
    spec:
      terminationGracePeriodSeconds: 0
      containers: [{{name: cloudflared, image: \"{base}\", command: [sleep, \"100000\"]}}]
"
        ));
        Self { shop, account, asked_by: None }
    }

    /// Writes the spec with `web` reached by a name, or by none.
    pub(super) fn spec(&self, host: Option<&str>) {
        let host = host.map(|host| format!("\nhosts: {{external: {host}}}")).unwrap_or_default();
        self.shop.web(&format!("env: {{VERSION: v1}}{host}"));
        let space = &self.shop.space.name;
        let block = format!(
            "cloudflare: {{zone: example.com, tunnel: {TUNNEL}, token: \"${{CF_TOKEN}}\", configMap: {space}/tunnel, deployment: {space}/cloudflared}}\napps:\n"
        );
        let mut text = self.shop.read("infraspec.yaml").replace("apps:\n", &block);
        if let Some(host) = self.asked_by {
            text = text.replace("{path: /,", &format!("{{path: /, host: {host},"));
        }
        self.shop.write("infraspec.yaml", &text);
    }

    pub(super) fn config(&self) -> String {
        self.shop.space.ok("get configmap tunnel --output jsonpath={.data.config\\.yaml}")
    }

    /// The configuration with the rule of a name, as norn writes it.
    fn with_rule(&self, host: &str) -> String {
        let (project, space) = (&self.shop.project, &self.shop.space.name);
        let rule = format!(
            "  - hostname: {host} # norn {project} web\n    service: http://web.{space}.svc.cluster.local:80\n"
        );
        let last = "  - service: http_status:404";
        BEFORE.replace(last, &format!("{rule}{last}")).trim_end().to_owned()
    }

    /// The records of the zone beside the one that others made.
    pub(super) fn records(&self) -> Vec<String> {
        let mut records = self.account.records("example.com");
        let others = records.iter().position(|record| record.contains("elsewhere.example.net"));
        records.remove(others.expect("what others made stays"));
        records
    }

    fn record(&self, host: &str) -> String {
        format!("CNAME {host} {TUNNEL}.cfargotunnel.com proxied # norn {} web", self.shop.project)
    }

    /// Which text cloudflared was started with; empty, none that norn knows of.
    pub(super) fn started_with(&self) -> String {
        let path = "{.spec.template.metadata.annotations.dev\\.norn\\.config}";
        self.shop.space.ok(&format!("get deployment cloudflared --output jsonpath={path}"))
    }

    /// That the world reaches `web` by this name and no other, and cloudflared knows.
    fn leads(&self, host: &str) {
        assert_eq!(self.config().trim_end(), self.with_rule(host));
        assert_eq!(self.records(), [self.record(host)]);
        assert!(!self.started_with().is_empty());
        self.shop.plan_is_empty();
    }

    /// Applies, and kills norn once the configuration has this name, before its record is made.
    fn killed_at(&self, host: &str) {
        self.account.fail("POST", Fault::Status(503, Some(20)));
        let mut norn = self.shop.spawn("apply --yes");
        until(&format!("there is a rule for {host}"), || self.config().contains(host));
        norn.kill().expect("it is killed");
        norn.wait().expect("it ends");
    }

    fn destroyed(&self) {
        self.shop.destroy();
        assert_eq!(self.config().trim_end(), BEFORE.trim_end());
        assert_eq!(self.records(), Vec::<String>::new());
        assert_eq!(self.shop.objects(), Vec::<String>::new());
    }
}

#[test]
fn a_name_leads_to_an_app_as_long_as_the_spec_says_so() {
    let Some(cluster) = Cluster::shared(WHAT) else { return };
    let mut routed = Routed::new(cluster);
    routed.asked_by = Some("localhost");
    routed.spec(Some("one.example.com"));
    let planned = routed.shop.ok("plan");
    has(&planned.out, &[&format!("one.example.com through tunnel {TUNNEL}")]);
    assert!(!planned.err.contains("hosts.external"), "{}", planned.err);
    let ran = routed.shop.ok("apply --yes");
    println!("{}\n{}", ran.out, ran.err);
    routed.leads("one.example.com");
    assert_eq!(routed.shop.space.ok("get configmap tunnel --output jsonpath={.data.other}"), "kept");

    // Another name: no pod of the app is made anew for it, those of cloudflared are.
    let pods = "get pods --selector dev.norn.app=web --output name";
    let (pod, started) = (routed.shop.space.ok(pods), routed.started_with());
    routed.spec(Some("two.example.com"));
    has(&routed.shop.ok("plan").out, &["~ route: one.example.com", "→ two.example.com"]);
    routed.shop.ok("apply --yes");
    routed.leads("two.example.com");
    assert_eq!(routed.shop.space.ok(pods), pod);
    assert_ne!(routed.started_with(), started);

    // A name that leads elsewhere is left to who made it, and the former one leads on.
    routed.account.record("example.com", "A", "three.example.com", "192.0.2.1", None);
    routed.spec(Some("three.example.com"));
    let ran = routed.shop.run("apply --yes");
    assert!([1, 3].contains(&ran.code), "{}{}", ran.out, ran.err);
    has(
        &ran.err,
        &[
            "three.example.com has a record that is not of this project and stage: A three.example.com 192.0.2.1",
        ],
    );
    assert!(!format!("{}{}", ran.out, ran.err).contains(TOKEN));
    let foreign = "A three.example.com 192.0.2.1 direct # -".to_owned();
    assert_eq!(routed.records(), [foreign.clone(), routed.record("two.example.com")]);
    has(&routed.config(), &["two.example.com", "three.example.com"]);

    // Without the name, what was begun for it goes.
    routed.spec(Some("two.example.com"));
    routed.shop.ok("apply --yes");
    assert_eq!(routed.config().trim_end(), routed.with_rule("two.example.com"));
    assert_eq!(routed.records(), [foreign.clone(), routed.record("two.example.com")]);
    routed.spec(None);
    has(&routed.shop.ok("plan").out, &["- route: two.example.com"]);
    routed.shop.ok("apply --yes");
    assert_eq!(routed.config().trim_end(), BEFORE.trim_end());
    assert_eq!(routed.records(), std::slice::from_ref(&foreign));
    routed.shop.plan_is_empty();

    // A destroy needs the token, and says so before it takes anything away.
    routed.spec(Some("two.example.com"));
    routed.shop.ok("apply --yes");
    routed.shop.sandbox.env.remove("CF_TOKEN");
    let ran = routed.shop.run(&format!("destroy --yes --confirm {}", routed.shop.project));
    assert_eq!(ran.code, 1, "{}{}", ran.out, ran.err);
    has(&ran.err, &["norn has no token of Cloudflare", "`cloudflare.token`"]);
    assert_eq!(routed.records(), [foreign.clone(), routed.record("two.example.com")]);
    routed.shop.sandbox.env.insert("CF_TOKEN".into(), TOKEN.into());
    routed.shop.destroy();
    assert_eq!(routed.config().trim_end(), BEFORE.trim_end());
    assert_eq!(routed.records(), [foreign]);
    assert_eq!(routed.shop.objects(), Vec::<String>::new());
    let state = std::fs::read(routed.shop.path(".norn/state.db")).expect("there is a state");
    assert!(!state.windows(TOKEN.len()).any(|window| window == TOKEN.as_bytes()));
}

#[test]
fn killed_before_cloudflared_was_restarted_norn_restarts_it_the_next_time() {
    let Some(cluster) = Cluster::shared(WHAT) else { return };
    let routed = Routed::new(cluster);
    // The very first time, nothing else is known of the app yet: what was made is found all the same.
    routed.spec(Some("one.example.com"));
    routed.killed_at("one.example.com");
    routed.destroyed();
    routed.shop.space.ok("patch deployment cloudflared --type json --patch [{\"op\":\"remove\",\"path\":\"/spec/template/metadata/annotations\"}]");
    routed.killed_at("one.example.com");
    assert_eq!((routed.started_with(), routed.records()), (String::new(), Vec::new()));
    routed.shop.ok("apply --yes");
    routed.leads("one.example.com");

    // Another name, which is given up after that.
    let started = routed.started_with();
    routed.spec(Some("two.example.com"));
    routed.killed_at("two.example.com");
    assert_eq!(routed.started_with(), started);
    routed.spec(Some("one.example.com"));
    routed.shop.ok("apply --yes");
    routed.leads("one.example.com");

    // A new name and the former one, and back to where it was to be.
    routed.spec(Some("two.example.com"));
    routed.killed_at("two.example.com");
    routed.shop.ok("apply --yes");
    routed.leads("two.example.com");
    assert_ne!(routed.started_with(), started);
    routed.destroyed();
}

//! Calls of a store made by chance, valid and not, and the trace that they leave.

use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::Value;

use super::Backend;
use super::trace::{Outcome, Shown, Trace, app, ending, holder};
use crate::address::{Address, Kind};
use crate::state::{
    Applied, ArtifactKind, Change, Deployment, DeploymentStatus, ForgeStatus, Lease, Record, Scope, StepLog,
    Store, StoreError,
};

/// One call of a store. Numbers name holders: each has a store and the lease that it had last.
#[derive(Debug, Clone)]
pub enum Call {
    Lock(usize),
    Write(usize, Vec<Change>),
    Renew(usize),
    Unlock(usize),
    /// Of whatever holder's lease, by the store of another.
    Break(usize),
    /// The lease runs out, as it does in a minute.
    Expire,
    Snapshot(usize),
    History(usize, Option<&'static str>, u32),
    OperationsOf(usize, &'static str),
}

const HOLDERS: usize = 3;
const APPS: [&str; 2] = ["api", "web"];
const PLANS: [&str; 3] = ["", "p1", "p2"];

/// Some calls. The first holder begins, so that most of them come to something.
pub fn calls() -> impl Strategy<Value = Vec<Call>> {
    let holder = || prop_oneof![6 => Just(0), 1 => 1..HOLDERS];
    // One change that cannot be voids its write, so most writes are of one.
    let changes = prop_oneof![4 => vec(change(), 1), 1 => vec(change(), 2..5)];
    let call = prop_oneof![
        10 => holder().prop_map(Call::Lock),
        30 => (holder(), changes).prop_map(|(holder, changes)| Call::Write(holder, changes)),
        1 => holder().prop_map(Call::Renew),
        1 => holder().prop_map(Call::Unlock),
        1 => holder().prop_map(Call::Break),
        1 => Just(Call::Expire),
        3 => holder().prop_map(Call::Snapshot),
        3 => (holder(), proptest::option::of(select(&APPS[..])), 0..4u32)
            .prop_map(|(holder, app, limit)| Call::History(holder, app, limit)),
        2 => (holder(), select(&PLANS[..])).prop_map(|(holder, plan)| Call::OperationsOf(holder, plan)),
    ];
    vec(call, 1..60).prop_map(|calls| {
        let begin = [Call::Lock(0), Call::Write(0, vec![Change::RunStarted { command: "apply".into() }])];
        begin.into_iter().chain(calls).collect()
    })
}

fn change() -> impl Strategy<Value = Change> {
    let id = |kind: &'static str| (0..2u8).prop_map(move |number| format!("{kind}{number}"));
    let address = || {
        (select(&Kind::ALL[..]), select(&APPS[..])).prop_map(|(kind, name)| Address { kind, name: app(name) })
    };
    let name = || select(&APPS[..]).prop_map(app);
    let outcome = || select(vec!["done", "failed: \"so\"\n", ""]).prop_map(str::to_owned);
    prop_oneof![
        text().prop_map(|command| Change::RunStarted { command }),
        outcome().prop_map(|outcome| Change::RunEnded { outcome }),
        id("r").prop_map(|run| Change::RunBuried { run }),
        (id("o"), address(), text(), json(), select(&PLANS[..])).prop_map(
            |(id, address, action, intent, plan)| {
                let plan = (!plan.is_empty()).then(|| plan.to_owned());
                Change::OperationStarted { id, address, action, intent, plan }
            }
        ),
        (id("o"), outcome()).prop_map(|(id, outcome)| Change::OperationEnded { id, outcome }),
        (id("s"), id("o"), text(), text(), json()).prop_map(|(id, operation, step, key, detail)| {
            Change::StepStarted { id, operation, step, key, detail }
        }),
        (id("s"), json()).prop_map(|(id, detail)| Change::StepDetail { id, detail }),
        (id("s"), outcome()).prop_map(|(id, outcome)| Change::StepEnded { id, outcome }),
        (address(), json(), text(), any::<bool>()).prop_map(|(address, body, digest, protected)| {
            Change::RecordPut { address, record: Record { body, digest, protected } }
        }),
        address().prop_map(|address| Change::RecordRemoved { address }),
        (id("a"), name(), text(), json()).prop_map(|(id, app, name, body)| Change::ArtifactKept {
            id,
            app,
            kind: ArtifactKind::Release,
            name,
            body
        }),
        name().prop_map(|app| Change::ArtifactsForgotten { app, kind: ArtifactKind::Release }),
        (id("d"), name(), text(), text()).prop_map(|(id, app, commit_sha, image_tag)| {
            Change::DeploymentQueued { id, app, commit_sha, image_tag }
        }),
        (id("d"), deployment_status(), text()).prop_map(|(id, status, error)| Change::DeploymentStatus {
            id,
            status,
            error
        }),
        (id("d"), log()).prop_map(|(id, log)| Change::DeploymentStep { id, log }),
        (name(), forge_status()).prop_map(|(app, status)| Change::ForgeStarted { app, status }),
        (name(), log()).prop_map(|(app, log)| Change::ForgeStep { app, log }),
        (name(), forge_status(), text(), proptest::option::of(json()))
            .prop_map(|(app, status, error, resources)| Change::ForgeEnded { app, status, error, resources }),
        (name(), name()).prop_map(|(from, to)| Change::AppRenamed { from, to }),
    ]
}

fn deployment_status() -> impl Strategy<Value = DeploymentStatus> {
    select(vec![
        DeploymentStatus::Queued,
        DeploymentStatus::Building,
        DeploymentStatus::Deployed,
        DeploymentStatus::Failed,
        DeploymentStatus::RolledBack,
    ])
}

fn forge_status() -> impl Strategy<Value = ForgeStatus> {
    select(vec![ForgeStatus::Forging, ForgeStatus::Forged, ForgeStatus::ForgeFailed, ForgeStatus::Unforged])
}

fn log() -> impl Strategy<Value = StepLog> {
    let step = select(vec!["clone", "build", "it's \"a\" \\step"]);
    (step, text(), any::<u32>(), text()).prop_map(|(step, status, time, output)| StepLog {
        step: step.into(),
        status,
        duration_ms: time.into(),
        output,
    })
}

/// A text that is hard to quote. None has a NUL: that is refused before anything is stored.
fn text() -> impl Strategy<Value = String> {
    let hard = [
        "",
        "a",
        "it's",
        "\"",
        "\\",
        "\\u0041",
        "a\nb\r\n\t",
        "é☃𝄞",
        "\u{7f}\u{1}\u{2028}",
        "$1 ?1 @x",
        "null",
        "{}",
    ];
    select(hard.to_vec()).prop_map(str::to_owned)
}

/// JSON as norn writes it, which is without fractions.
fn json() -> impl Strategy<Value = Value> {
    let number = prop_oneof![
        any::<i8>().prop_map(Value::from),
        select(vec![i64::MIN, i64::MAX, 1 << 53]).prop_map(Value::from),
        Just(Value::from(u64::MAX)),
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        number,
        text().prop_map(Value::from)
    ];
    let object = |value: BoxedStrategy<Value>| {
        let key = select(vec!["a", "aa", "b", "B", "\"", "é", ""]).prop_map(str::to_owned);
        vec((key, value), 0..3).prop_map(|fields| Value::Object(fields.into_iter().collect()))
    };
    let inner = leaf.clone().prop_recursive(2, 8, 3, move |inner| {
        prop_oneof![vec(inner.clone(), 0..3).prop_map(Value::from), object(inner.boxed())]
    });
    prop_oneof![4 => object(inner.boxed()), 1 => leaf]
}

/// What the calls do and see in a store of this scope, which is empty at first. `schema` stands
/// before the names of its tables.
pub async fn trace_of(backend: &dyn Backend, scope: &Scope, schema: &str, calls: &[Call]) -> String {
    let stores: Vec<Box<dyn Store>> = (0..HOLDERS).map(|_| backend.open(scope.clone())).collect();
    let mut leases: Vec<Lease> =
        (0..HOLDERS).map(|number| Lease { token: 1, run: format!("r{number}") }).collect();
    let mut trace = Trace::default();
    for (number, call) in calls.iter().enumerate() {
        let what = format!("{number} {call:?}");
        match call {
            Call::Lock(who) => {
                let lock = stores[*who].lock(&holder(&format!("r{who}")), Duration::ZERO).await;
                if let Ok(lease) = &lock {
                    leases[*who] = lease.clone();
                }
                trace.did(&what, Same(lock.map(|lease| lease.token)));
            }
            Call::Write(who, changes) => {
                // A clock of milliseconds tells this write from the last one.
                tokio::time::sleep(Duration::from_millis(2)).await;
                trace.did(&what, Same(stores[*who].write(&leases[*who], changes).await));
            }
            Call::Renew(who) => trace.did(&what, Same(stores[*who].renew(&leases[*who]).await)),
            Call::Unlock(who) => trace.did(&what, Same(stores[*who].unlock(&leases[*who]).await)),
            Call::Break(who) => {
                let other = &stores[(who + 1) % HOLDERS];
                trace.did(&what, Same(other.break_lock(leases[*who].token).await));
            }
            Call::Expire => {
                let past = "SET expires_at = '2001-02-03T04:05:06.000000Z'";
                backend.sql(&format!("UPDATE {schema}norn_locks {past}")).await;
            }
            Call::Snapshot(who) => trace.show(&*stores[*who]).await,
            Call::History(who, name, limit) => {
                trace.did(&what, Same(stores[*who].history(name.map(app).as_ref(), *limit).await));
            }
            Call::OperationsOf(who, plan) => trace.did(&what, Same(stores[*who].operations_of(plan).await)),
        }
    }
    trace.show(&*stores[0]).await;
    trace.did("history", Same(stores[0].history(None, 10).await));
    for plan in PLANS {
        trace.did(plan, Same(stores[0].operations_of(plan).await));
    }
    for name in APPS {
        // No call reads them; people do.
        let steps = format!("SELECT CAST(steps AS TEXT) FROM {schema}forge_states WHERE app = '{name}'");
        let steps = backend.ask(&format!("SELECT coalesce(({steps}), 'null')")).await;
        let steps: Option<Vec<StepLog>> = serde_json::from_str(&steps).expect("they are step logs");
        trace.did(&format!("steps of {name}"), Ok(format!("{steps:?}")));
    }
    trace.text()
}

/// A result as both databases give it: what one of them says of a row that cannot be is its own.
struct Same<T>(Result<T, StoreError>);

impl<T: Shown> Outcome for Same<T> {
    fn text(self) -> String {
        match self.0 {
            Err(StoreError::Broken { why, .. }) if !why.starts_with("there is no ") => "refused".into(),
            result => result.text(),
        }
    }
}

impl Shown for Vec<Deployment> {
    fn shown(self) -> String {
        let row = |row: &Deployment| {
            let end = ending(row.finished_at, &row.error);
            let status = row.status.as_str();
            format!(
                "{} {} {:?} {:?} {status}{end} {:?}",
                row.id, row.app, row.commit_sha, row.image_tag, row.steps
            )
        };
        self.iter().map(row).collect::<Vec<_>>().join("; ")
    }
}

impl Shown for Vec<Applied> {
    fn shown(self) -> String {
        self.iter().map(|row| format!("{row:?}")).collect::<Vec<_>>().join("; ")
    }
}

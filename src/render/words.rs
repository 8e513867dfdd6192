//! The words for what a plan holds, the same in every output.

use super::definition;
use crate::desired::{Source, Why};
use crate::plan::resume::{Moved, Now};
use crate::plan::{
    Action, Back, Blocked, DeployWork, FieldDrift, Found, Interruption, Operation, Plan, Reason, Risk, Roll,
    Skip, TeardownWork, Work,
};
use crate::scrub::visible;
use crate::state::format;
use crate::state::record::{CANCELLED, DEPLOYMENT_INTERRUPTED, FORGE_INTERRUPTED};

/// Why an operation is planned.
pub fn reason(reason: &Reason) -> String {
    match reason {
        Reason::NewInSpec => "new in the spec".into(),
        Reason::NotInSpec => "no longer in the spec".into(),
        Reason::Destroyed => "you asked to destroy it".into(),
        Reason::RenamedFrom(name) => format!("renamed from {name}"),
        Reason::DefinitionChanged => "its definition changed".into(),
        Reason::RouteChanged => "the way to it from outside changed".into(),
        Reason::ProtectionChanged { now: true } => "it becomes protected".into(),
        Reason::ProtectionChanged { now: false } => "it is protected no longer".into(),
        Reason::Moved { from, to } => format!("it is to run on {to}, not on {from}"),
        Reason::NoRelease => "its first release".into(),
        Reason::Commit { from, to } => commit(from, to),
        Reason::Ref { from, to } => format!("ref {from} → {to}"),
        Reason::BuildChanged => "its build changed".into(),
        Reason::SourceChanged => "its source is another place".into(),
        Reason::Redeploy => "you asked to deploy it again".into(),
        Reason::Restart => "you asked to restart it".into(),
        Reason::RolledBack { from, to } => format!("you asked to go back, {from} → {to}"),
        Reason::Adopted => "you asked to take over what others made of it".into(),
        Reason::NotRunning { found } => format!("drift: {}", self::found(found)),
        Reason::ReleaseMissing => "drift: the folder of its release is gone".into(),
        Reason::LiveUnrecorded => "it serves already, a run died before it wrote that down".into(),
        Reason::CommitUnknown => "its commit was never seen".into(),
        Reason::LastFailed { error } => match error.as_str() {
            DEPLOYMENT_INTERRUPTED | FORGE_INTERRUPTED => "the last attempt was interrupted".into(),
            CANCELLED => "the last attempt was cancelled".into(),
            _ => format!("the last attempt failed: {}", first_line(error)),
        },
    }
}

/// How an app's code moved.
fn commit(from: &str, to: &str) -> String {
    match (from.strip_prefix("local:"), to.strip_prefix("local:")) {
        (Some(from), Some(to)) => format!("its files changed, {} → {}", short(from), short(to)),
        _ if to.starts_with("sha256:") => {
            format!("its image is another, {} → {}", short(from), short(to))
        }
        _ => format!("commit {} → {}", short(from), short(to)),
    }
}

/// A stable name of a reason, for scripts.
pub fn reason_code(reason: &Reason) -> &'static str {
    match reason {
        Reason::NewInSpec => "new",
        Reason::NotInSpec => "removed",
        Reason::Destroyed => "destroyed",
        Reason::RenamedFrom(_) => "renamed",
        Reason::DefinitionChanged => "definition",
        Reason::RouteChanged => "route",
        Reason::ProtectionChanged { .. } => "protection",
        Reason::Moved { .. } => "moved",
        Reason::NoRelease => "no-release",
        Reason::Commit { .. } => "commit",
        Reason::Ref { .. } => "ref",
        Reason::BuildChanged => "build",
        Reason::SourceChanged => "source",
        Reason::Redeploy => "redeploy",
        Reason::Restart => "restart",
        Reason::RolledBack { .. } => "rollback",
        Reason::Adopted => "adopted",
        Reason::NotRunning { .. } => "drift",
        Reason::ReleaseMissing => "release-missing",
        Reason::LiveUnrecorded => "unrecorded",
        Reason::CommitUnknown => "commit-unknown",
        Reason::LastFailed { .. } => "last-failed",
    }
}

/// What was found of an app that is not as norn left it.
pub fn found(found: &Found) -> String {
    match found {
        Found::NothingRuns => "nothing runs here".into(),
        Found::Rebooted => "the machine was started anew, nothing runs".into(),
        Found::SupervisorGone { replicas: 0 } => "its supervisor is gone, nothing runs".into(),
        Found::SupervisorGone { replicas } => {
            format!("its supervisor is gone, {} left without it", count(*replicas, "process", "processes"))
        }
        Found::Silent { why } => first_line(why),
        Found::OtherRelease { serves: Some(tag), recorded } => format!("{tag} serves instead of {recorded}"),
        Found::OtherRelease { serves: None, .. } => "no whole release of it serves".into(),
        Found::OtherDefinition => "it runs under another definition".into(),
        Found::Unreached => "its Service, Ingress or containers are not as norn left them".into(),
        Found::Unhealthy { healthy, wanted } => format!("{healthy} of {wanted} replicas are healthy"),
        Found::Elsewhere { host } => format!("it runs on {host}, which cannot be seen from here"),
        Found::ReleaseMissing { tag } => format!("the folder of release {tag} is gone"),
        Found::Fields { fields } => {
            format!("others changed {} of its objects", count(fields.len(), "field", "fields"))
        }
    }
}

/// What was found, part by part, where it has parts.
pub fn parts(found: &Found) -> Vec<String> {
    match found {
        Found::Fields { fields } => fields.iter().map(field).collect(),
        _ => Vec::new(),
    }
}

fn field(drift: &FieldDrift) -> String {
    let FieldDrift { object, field, wanted, found } = drift;
    let shown = |text: &String| visible(text);
    match (wanted, found) {
        (None, Some(_)) if field.is_empty() => format!("{object} is there, and should not be"),
        _ if field.is_empty() => format!("{object} is gone"),
        (Some(wanted), Some(found)) => format!("{object} {field} is {}, not {}", shown(found), shown(wanted)),
        (Some(wanted), None) => format!("{object} {field} is gone, it was {}", shown(wanted)),
        (None, Some(found)) => format!("{object} {field} is {}, and should not be", shown(found)),
        (None, None) => format!("{object} {field}"),
    }
}

/// A stable name of what was found, for scripts.
pub fn found_code(found: &Found) -> &'static str {
    match found {
        Found::NothingRuns => "nothing-runs",
        Found::Rebooted => "rebooted",
        Found::SupervisorGone { .. } => "unsupervised",
        Found::Silent { .. } => "silent",
        Found::OtherRelease { .. } => "other-release",
        Found::OtherDefinition => "other-definition",
        Found::Unreached => "unreached",
        Found::Unhealthy { .. } => "unhealthy",
        Found::Elsewhere { .. } => "elsewhere",
        Found::ReleaseMissing { .. } => "release-missing",
        Found::Fields { .. } => "fields",
    }
}

/// Why an app stays as it is.
pub fn untouched(why: &Why) -> String {
    match why {
        Why::DeployFalse => "it has `deploy: false`".into(),
        Why::LeftOut(what) => format!("this version leaves out {what}"),
    }
}

pub fn blocked(blocked: &Blocked) -> String {
    match blocked {
        Blocked::Protected => {
            "it is protected: apply it with `protected: false` first, then take it away".into()
        }
        Blocked::CommitNotLookedUp => "its commit was not looked up: plan without --offline".into(),
        Blocked::ElsewhereRunning { host } => {
            format!(
                "it runs on {host}: apply there, or `norn apply --lost HOST` if that is another machine or cluster, and gone"
            )
        }
        Blocked::ReleaseMissing => "the folder of its release is gone: deploy it too".into(),
        Blocked::Moves { from, to } => {
            format!(
                "it runs on {from} and would go on there: `norn destroy` it with --target first, then apply it on {to}"
            )
        }
        Blocked::RenamedInCluster { from } => {
            format!("on kubernetes it cannot be renamed: keep the name {from}, or destroy {from} first")
        }
        Blocked::RenamedOnEngine { from } => {
            format!(
                "on an engine of another host it cannot be renamed: keep the name {from}, or destroy {from} first"
            )
        }
        Blocked::VolumesStay { volumes, with } => {
            let volumes = volumes.join(", ");
            format!(
                "what is in its volumes ({volumes}) would stay with {with}: keep that, or give the volumes other names and begin with empty ones"
            )
        }
        Blocked::Refused { objects } => format!("the cluster would refuse it: {}", objects.join("; ")),
        Blocked::PortHeld { port, by } => {
            format!(
                "{by} holds port {port} until this app leaves its own: apply with another port first, then change it"
            )
        }
        Blocked::ValuesMissing { names } => format!(
            "what is live needs {}, which the spec does not give it now: have the spec name the app and them, or apply it first",
            names.join(", ")
        ),
    }
}

pub fn blocked_code(blocked: &Blocked) -> &'static str {
    match blocked {
        Blocked::Protected => "protected",
        Blocked::CommitNotLookedUp => "commit-not-looked-up",
        Blocked::ElsewhereRunning { .. } => "elsewhere",
        Blocked::ReleaseMissing => "release-missing",
        Blocked::Moves { .. } => "moves",
        Blocked::RenamedInCluster { .. } => "renamed-in-cluster",
        Blocked::RenamedOnEngine { .. } => "renamed-on-engine",
        Blocked::VolumesStay { .. } => "volumes-stay",
        Blocked::Refused { .. } => "refused",
        Blocked::PortHeld { .. } => "port-held",
        Blocked::ValuesMissing { .. } => "values-missing",
    }
}

/// Why a step has nothing to do.
pub fn skip(skip: Skip) -> &'static str {
    match skip {
        Skip::DeployPutsLive => "the deploy puts both live",
        Skip::NothingLive => "no release is live yet",
        Skip::NothingChanges => "nothing that runs changes",
        Skip::Serves => "the release serves already",
        Skip::NoCode => "no code: the image is the release",
        Skip::PulledThere => "the cluster pulls the image",
        Skip::NoBuild => "no `build.command`: the code is the release",
        Skip::NoTest => "no `build.test`",
        Skip::NoDatabase => "no `services.postgres`",
        Skip::NoMigration => "no `migrations.command`",
    }
}

/// The sign before an operation.
pub fn sign(operation: &Operation) -> &'static str {
    match (operation.action, &operation.work) {
        (Action::Forge, _) => "+",
        (Action::Teardown, _) => "-",
        (Action::Deploy, Work::Deploy(work)) if work.record_only.is_some() => "=",
        (Action::Deploy, _) => ">",
        (Action::Rollback, _) => "<",
        (Action::Update, _) => "~",
    }
}

pub fn risk(risk: Risk) -> &'static str {
    match risk {
        Risk::Safe => "safe",
        Risk::Interrupts(_) => "interrupts",
        Risk::Destroys => "destroys",
    }
}

pub fn interruption(why: Interruption) -> &'static str {
    match why {
        Interruption::NoFront => "without a front it stops before it starts again",
        Interruption::PortReopened => "its port is closed and opened in another way",
        Interruption::NoReplicas => "no replica is left",
        Interruption::OnePodAtATime => "its volume is for one pod at a time: the old one stops first",
    }
}

/// `local:` and 12 digits, or 12 digits of a commit or an image's digest.
pub fn short(commit: &str) -> String {
    let local = if commit.starts_with("local:") { "local:" } else { "" };
    format!("{local}{}", format::short(commit))
}

/// How many of each, such as `1 to forge, 2 to update, 3 to deploy, 1 to tear down`.
pub fn counts(plan: &Plan) -> String {
    let count = |action: Action| plan.operations.iter().filter(|o| o.action == action).count();
    let parts: Vec<String> = [
        (count(Action::Forge), "to forge"),
        (count(Action::Update), "to update"),
        (count(Action::Deploy), "to deploy"),
        (count(Action::Rollback), "to roll back"),
        (count(Action::Teardown), "to tear down"),
        (plan.blocked().count(), "blocked"),
    ]
    .into_iter()
    .filter(|(n, _)| *n > 0)
    .map(|(n, what)| format!("{n} {what}"))
    .collect();
    if parts.is_empty() { "no changes".into() } else { parts.join(", ") }
}

pub fn count(n: usize, one: &str, many: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { many })
}

/// What an operation does and what that means, as labels and texts.
pub fn effects(operation: &Operation) -> Vec<(&'static str, String)> {
    let mut all = Vec::new();
    match &operation.work {
        Work::Deploy(work) => deploy(operation, work, &mut all),
        Work::Forge(work) => {
            if let Some(roll) = &work.roll {
                all.push(("rolls", rolled(roll)));
            }
            let skipped = |skip: Skip| operation.steps.iter().any(|planned| planned.skip == Some(skip));
            if skipped(Skip::NothingLive) {
                all.push(("changes", "nothing that runs: no release is live yet".into()));
            }
            let routed = operation.steps.iter().any(|planned| planned.step.is_of_route());
            if skipped(Skip::NothingChanges) {
                let what = if routed { "the way to it from outside" } else { "what norn remembers" };
                all.push(("changes", format!("nothing that runs, only {what}")));
            }
            if let (Action::Forge, Some(route)) = (operation.action, &work.route) {
                all.push(("route", route.to_string()));
            }
            if operation.action == Action::Forge && work.protected {
                all.push(("protected", "it cannot be removed until `protected: false` is applied".into()));
            }
        }
        Work::Teardown(work) => {
            all.push(("deletes", "what runs of it, and its releases".to_owned()));
            all.extend(
                work.route.as_ref().map(|route| ("route", format!("{} leads to it no more", route.host))),
            );
            all.push(("keeps", format!("its {}", kept(work))));
        }
    }
    if let Risk::Interrupts(why) = operation.risk {
        all.push(("interrupts", interruption(why).to_owned()));
    }
    let others = operation.waits.iter().filter(|wait| wait.of.name != operation.address.name);
    let others: Vec<String> = others.map(|wait| wait.of.to_string()).collect();
    if !others.is_empty() {
        all.push(("after", others.join(", ")));
    }
    all
}

/// What a teardown leaves, such as `snapshots, logs and volume data`.
pub fn kept(work: &TeardownWork) -> String {
    match work.keeps.as_slice() {
        [first @ .., last] if !first.is_empty() => format!("{} and {last}", first.join(", ")),
        all => all.join(", "),
    }
}

fn deploy(operation: &Operation, work: &DeployWork, all: &mut Vec<(&'static str, String)>) {
    if work.record_only.is_some() {
        all.push(("records", work.tag.clone()));
        return;
    }
    let source = source(&work.source);
    match work.commit.as_str() {
        "" => all.push(("source", source)),
        _ => all.push(("release", format!("{} from {source}", work.tag))),
    }
    if operation.reasons.contains(&Reason::NoRelease) {
        definition::goes_live(&work.definition, all);
    }
    if let Some(Back { migrated, snapshots, .. }) =
        work.back.as_ref().filter(|back| !back.migrated.is_empty())
    {
        let kept = match snapshots.as_slice() {
            [] => String::new(),
            names => format!("; before that it was as in {}", names.join(", ")),
        };
        all.push(("database", format!("stays as {} migrated it{kept}", migrated.join(", "))));
    }
    let steps: Vec<&str> =
        operation.steps.iter().filter(|s| s.skip.is_none()).map(|planned| planned.step.as_str()).collect();
    all.push(("steps", steps.join(", ")));
}

/// Such as `git@example.com:shop/web.git (main)` or `folder web`.
fn source(source: &Source) -> String {
    match source {
        Source::Local { folder, .. } if folder == "." => "this folder".into(),
        Source::Local { folder, .. } => format!("folder {folder}"),
        Source::Git { url, reference, path } => {
            let path = path.as_ref().map(|path| format!(" in {path}")).unwrap_or_default();
            format!("{} ({}){path}", redact(url), reference.as_str())
        }
        Source::Image { name } => format!("image {name}"),
    }
}

fn rolled(roll: &Roll) -> String {
    let tag = &roll.release.tag;
    match roll.definition.replicas {
        0 => format!("{tag} to no replicas: nothing of it runs"),
        _ => definition::size(&roll.definition, &format!(" of {tag}")),
    }
}

/// How a value that is not shown differs.
pub fn value_changed(spelling: &str) -> String {
    match spelling.starts_with("${") {
        true => format!("the value of {spelling} changed"),
        false => "its value changed".into(),
    }
}

/// The first line, with a mark where there is more.
pub fn first_line(text: &str) -> String {
    match text.trim_end().split_once('\n') {
        Some((first, _)) => format!("{} …", first.trim_end()),
        None => text.trim_end().to_owned(),
    }
}

/// What moved since a plan was saved.
pub fn moved(moved: &Moved) -> String {
    let Moved { address, expected, now } = moved;
    match (expected, now) {
        (_, Now::Nothing) => format!("{address} is gone"),
        (true, Now::Definition) => format!("{address} is another definition than planned from"),
        (false, Now::Definition) => format!("{address} is there by now"),
        (true, Now::Release { tag }) => format!("{address} is another release than planned from, now {tag}"),
        (false, Now::Release { tag }) => format!("{address} is there by now, with {tag}"),
    }
}

/// At most `most` characters, the cut marked.
pub fn cut(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((at, _)) => format!("{}… ({} characters)", &text[..at], text.chars().count()),
        None => text.to_owned(),
    }
}

/// A URL without its password.
pub fn redact(url: &str) -> String {
    match url::Url::parse(url) {
        Ok(mut parsed)
            if parsed.password().is_some()
                || (!parsed.username().is_empty() && parsed.scheme().starts_with("http")) =>
        {
            let _ = parsed.set_password(None);
            let _ = parsed.set_username("");
            parsed.to_string()
        }
        _ => url.to_owned(),
    }
}

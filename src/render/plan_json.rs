//! A plan as scripts read it: `norn plan --json`.

use schemars::JsonSchema;
use serde::Serialize;

use super::plan::Header;
use super::words::{self, redact};
use crate::desired::Source;
use crate::plan::{Difference, FieldDiff, Operation, Plan, Risk, Work};

/// What `norn plan --json` prints.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(title = "norn plan")]
pub struct PlanV1 {
    /// The version of this format: 1.
    pub format_version: u32,
    /// Of a saved plan its own id, else SHA-256 over what would be done: two of those that are equal
    /// do the same.
    pub plan_id: String,
    /// When the plan was saved, in UTC; absent where it was not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_at: Option<String>,
    /// Until when the saved plan can be applied.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
    pub project: String,
    pub stage: Option<String>,
    /// Where the state is.
    pub state: String,
    /// How many resources the state holds.
    pub resources: usize,
    /// Machines that the user said are gone for good, by their host names.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub lost: Vec<String>,
    /// How many operations there are; 0 when nothing would change.
    pub changes: usize,
    /// How many of them destroy something.
    pub destroys: usize,
    pub operations: Vec<OperationV1>,
    pub drift: Vec<DriftV1>,
    /// Apps that are left as they are.
    pub untouched: Vec<UntouchedV1>,
    /// What would change and is not selected.
    pub left_out: Vec<String>,
    /// Under `--offline`: apps whose commit is taken to be where the state saw it last.
    pub last_seen: Vec<String>,
    /// Releases that the spec wants and the user went back from: they are not deployed unasked.
    pub held: Vec<HeldV1>,
    /// Apps that are as the spec wants them.
    pub unchanged: Vec<String>,
}

#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HeldV1 {
    pub app: String,
    pub tag: String,
}

#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OperationV1 {
    /// Such as `deploy/web`.
    pub address: String,
    /// `forge`, `update`, `teardown`, `deploy` or `rollback`.
    pub action: &'static str,
    pub reasons: Vec<ReasonV1>,
    /// `safe`, `interrupts` or `destroys`.
    pub risk: &'static str,
    /// Why apply refuses it.
    pub blocked: Option<ReasonV1>,
    pub diff: Vec<FieldV1>,
    pub steps: Vec<StepV1>,
    /// Operations that go first.
    pub after: Vec<String>,
    /// What is built and deployed, for a deploy.
    pub release: Option<ReleaseV1>,
    /// Where the app is reached from this machine once it is live.
    pub url: Option<String>,
}

#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReasonV1 {
    /// A stable name.
    pub code: &'static str,
    pub text: String,
}

#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FieldV1 {
    /// Such as `env.LOG`.
    pub field: String,
    /// `added`, `removed`, `changed`, `value` (a secret or the value behind a reference) or `text`.
    pub kind: &'static str,
    pub from: Option<String>,
    pub to: Option<String>,
    /// For `text`: lines with `+`, `-` or a space before them.
    pub lines: Vec<String>,
}

#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StepV1 {
    pub name: &'static str,
    /// Why it is skipped, if it is.
    pub skipped: Option<&'static str>,
}

#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReleaseV1 {
    /// 40 hex digits, or `local:` and 64.
    pub commit: String,
    pub tag: String,
    /// A folder or a repository.
    pub source: String,
    /// The branch, tag or commit that was asked for.
    #[serde(rename = "ref")]
    pub reference: Option<String>,
}

#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DriftV1 {
    pub app: String,
    /// A stable name.
    pub code: &'static str,
    pub found: String,
    /// What was found, field by field, of objects in a cluster.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<String>,
    /// Whether the plan repairs it.
    pub repaired: bool,
}

#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UntouchedV1 {
    pub app: String,
    pub why: String,
}

/// The plan in its published format.
pub fn document(header: &Header<'_>, plan: &Plan) -> PlanV1 {
    let operations: Vec<OperationV1> = plan.operations.iter().map(operation).collect();
    let essence = serde_json::to_value(&operations).expect("a plan has text keys only");
    let scope = header.scope.to_string();
    PlanV1 {
        format_version: 1,
        plan_id: match header.saved {
            Some(saved) => saved.plan_id.clone(),
            None => crate::state::format::digest(&serde_json::json!([scope, essence])),
        },
        created_at: header.saved.map(|saved| saved.created_at.to_string()),
        expires_at: header.saved.map(|saved| saved.expires_at.to_string()),
        project: header.scope.project.to_string(),
        stage: header.scope.stage.as_ref().map(ToString::to_string),
        state: header.state.clone(),
        resources: header.resources,
        lost: header.lost.to_vec(),
        changes: operations.len(),
        destroys: plan.operations.iter().filter(|o| o.risk == Risk::Destroys).count(),
        operations,
        drift: plan
            .drift
            .iter()
            .map(|drift| DriftV1 {
                app: drift.app.to_string(),
                code: words::found_code(&drift.found),
                found: words::found(&drift.found),
                fields: words::parts(&drift.found),
                repaired: drift.repaired,
            })
            .collect(),
        untouched: plan
            .untouched
            .iter()
            .map(|(app, why)| UntouchedV1 { app: app.to_string(), why: words::untouched(why) })
            .collect(),
        left_out: plan.left_out.iter().map(ToString::to_string).collect(),
        held: plan.held.iter().map(|(app, tag)| HeldV1 { app: app.to_string(), tag: tag.clone() }).collect(),
        last_seen: plan.last_seen.iter().map(ToString::to_string).collect(),
        unchanged: plan.unchanged.iter().map(ToString::to_string).collect(),
    }
}

fn operation(operation: &Operation) -> OperationV1 {
    OperationV1 {
        address: operation.address.to_string(),
        action: operation.action.as_str(),
        reasons: operation
            .reasons
            .iter()
            .map(|reason| ReasonV1 { code: words::reason_code(reason), text: words::reason(reason) })
            .collect(),
        risk: words::risk(operation.risk),
        blocked: operation
            .blocked
            .as_ref()
            .map(|blocked| ReasonV1 { code: words::blocked_code(blocked), text: words::blocked(blocked) }),
        diff: operation.diff.iter().map(field).collect(),
        steps: operation
            .steps
            .iter()
            .map(|planned| StepV1 { name: planned.step.as_str(), skipped: planned.skip.map(words::skip) })
            .collect(),
        after: operation.waits.iter().map(|wait| wait.of.to_string()).collect(),
        release: match &operation.work {
            Work::Deploy(work) => Some(ReleaseV1 {
                commit: work.commit.clone(),
                tag: work.tag.clone(),
                source: match &work.source {
                    Source::Local { folder, .. } => folder.clone(),
                    Source::Git { url, .. } => redact(url),
                    Source::Image { name } => name.clone(),
                },
                reference: match &work.source {
                    Source::Local { .. } | Source::Image { .. } => None,
                    Source::Git { reference, .. } => Some(reference.as_str().to_owned()),
                },
            }),
            Work::Forge(_) | Work::Teardown(_) => None,
        },
        url: operation.puts_live().and_then(crate::apply::reached),
    }
}

fn field(diff: &FieldDiff) -> FieldV1 {
    let (kind, from, to, lines) = match &diff.difference {
        Difference::Added(text) => ("added", None, Some(text.clone()), Vec::new()),
        Difference::Removed(text) => ("removed", Some(text.clone()), None, Vec::new()),
        Difference::Changed { from, to } => ("changed", Some(from.clone()), Some(to.clone()), Vec::new()),
        Difference::Value { spelling } => {
            ("value", Some(spelling.clone()), Some(spelling.clone()), Vec::new())
        }
        Difference::Text(lines) => ("text", None, None, lines.clone()),
    };
    FieldV1 { field: diff.field.clone(), kind, from, to, lines }
}

//! What is recorded: a table or a record for people, a document for scripts.

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use super::printer::Paint;
use super::status::columns;
use super::words;

/// What `norn state show --json` prints.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(title = "norn state show")]
pub struct StateV1 {
    /// The version of this format: 1.
    pub format_version: u32,
    pub project: String,
    pub stage: Option<String>,
    /// Where the state is.
    pub state: String,
    /// By address; only one where one was named.
    pub resources: Vec<ResourceV1>,
    /// By name; only the one of the address that was named.
    pub apps: Vec<AppV1>,
}

#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResourceV1 {
    pub address: String,
    /// SHA-256 of the record.
    pub digest: String,
    /// Whether destroying it is refused.
    pub protected: bool,
    pub updated_at: Option<String>,
    /// The record in its stored format, where one address was named. It holds no values of secrets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub record: Option<Value>,
    /// What was done to it, the newest first, where one address was named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operations: Option<Vec<OperationV1>>,
}

#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OperationV1 {
    pub action: String,
    /// `user@host`.
    pub who: String,
    pub command: String,
    pub started_at: String,
    pub ended_at: Option<String>,
    /// Absent while it goes on; `dead` where its norn died.
    pub outcome: Option<String>,
}

#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AppV1 {
    pub app: String,
    /// One of the statuses of the `forge_states` table.
    pub forge: Option<&'static str>,
    /// The newest one.
    pub deployment: Option<DeploymentV1>,
}

#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeploymentV1 {
    pub id: String,
    pub image_tag: String,
    /// One of the statuses of the `deployments` table.
    pub status: &'static str,
    pub started_at: String,
}

/// The tables of all records and apps.
pub fn table(state: &StateV1) -> String {
    if state.resources.is_empty() && state.apps.is_empty() {
        return format!("nothing is recorded in {}\n", state.state);
    }
    let mut rows = vec![["ADDRESS", "DIGEST", "PROTECTED", "UPDATED"].map(str::to_owned)];
    rows.extend(state.resources.iter().map(|resource| {
        [
            resource.address.clone(),
            words::short(&resource.digest),
            if resource.protected { "yes" } else { "-" }.into(),
            resource.updated_at.as_deref().map_or_else(|| "-".into(), to_the_second),
        ]
    }));
    let mut out = columns(&rows, |_, text| text.to_owned());
    let mut rows = vec![["APP", "FORGE", "NEWEST DEPLOY", "STATUS", "STARTED"].map(str::to_owned)];
    rows.extend(state.apps.iter().map(|app| {
        let of = |field: fn(&DeploymentV1) -> &str| app.deployment.as_ref().map_or("-", field).to_owned();
        let forge = app.forge.unwrap_or("-").to_owned();
        let started = to_the_second(&of(|row| &row.started_at));
        [app.app.clone(), forge, of(|row| &row.image_tag), of(|row| row.status), started]
    }));
    out += "\n";
    out + &columns(&rows, |_, text| text.to_owned())
}

/// A time without its fraction, which would make columns of all widths.
fn to_the_second(time: &str) -> String {
    match time.split_once('.') {
        Some((seconds, _)) => format!("{seconds}Z"),
        None => time.to_owned(),
    }
}

/// One record, and what was done to it.
pub fn record(resource: &ResourceV1, color: bool) -> String {
    let paint = Paint(color);
    let protected = if resource.protected { " · protected" } else { "" };
    let updated = resource.updated_at.as_deref().unwrap_or("never");
    let digest = words::short(&resource.digest);
    let mut out =
        format!("{} · digest {digest} · updated {updated}{protected}\n", paint.bold(&resource.address));
    if let Some(record) = &resource.record {
        out += &format!("{record:#}\n");
    }
    let operations = resource.operations.as_deref().unwrap_or_default();
    if operations.is_empty() {
        return out;
    }
    let mut rows = vec![["STARTED", "ACTION", "OUTCOME", "BY", "COMMAND"].map(str::to_owned)];
    rows.extend(operations.iter().map(|row| {
        let outcome = row.outcome.clone().unwrap_or_else(|| "unfinished".into());
        [to_the_second(&row.started_at), row.action.clone(), outcome, row.who.clone(), row.command.clone()]
    }));
    out + "\n" + &columns(&rows, |_, text| text.to_owned())
}

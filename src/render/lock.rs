//! Who holds the lock on a state: a text for people, a document for scripts.

use schemars::JsonSchema;
use serde::Serialize;

use super::printer::Paint;
use super::status::age;

/// What `norn lock status --json` prints.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(title = "norn lock status")]
pub struct LockV1 {
    /// The version of this format: 1.
    pub format_version: u32,
    pub project: String,
    pub stage: Option<String>,
    /// Where the state is.
    pub state: String,
    /// Who holds the lock, if anybody does.
    pub holder: Option<HolderV1>,
}

#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HolderV1 {
    /// `user@host`.
    pub who: String,
    pub pid: u32,
    /// `alive` or `gone`, or `unseen` where it is on another machine or in another container.
    pub process: Process,
    /// Such as `norn apply`.
    pub command: String,
    /// The page of its CI job.
    pub job_url: Option<String>,
    /// What proves the lock; it grows with every taking.
    pub token: u64,
    pub since: String,
    /// Seconds since then. All seconds are by the database's clock.
    pub held_seconds: i64,
    /// Seconds since it was last renewed.
    pub renewed_seconds: i64,
    pub expires: String,
    /// Seconds until it runs out unless it is renewed; below zero once it ran out.
    pub expires_in_seconds: i64,
    /// Whether the next norn takes the lock without waiting.
    pub abandoned: bool,
    /// The operations that its run has not ended.
    pub doing: Vec<DoingV1>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Process {
    Alive,
    Gone,
    Unseen,
}

#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DoingV1 {
    pub address: String,
    pub action: String,
    /// The steps that are begun and not ended.
    pub steps: Vec<String>,
}

/// The text.
pub fn human(lock: &LockV1, color: bool) -> String {
    let Some(holder) = &lock.holder else {
        return format!("the state in {} is not locked\n", lock.state);
    };
    let paint = Paint(color);
    let mut out = format!("the state in {} is locked by {}\n", lock.state, paint.bold(&holder.who));
    let mut line = |name: &str, text: &str| out += &format!("  {name:<10}{text}\n");
    let pid = holder.pid;
    line(
        "process",
        &match holder.process {
            Process::Alive => format!("{pid}, alive on this machine"),
            Process::Gone => format!("{pid}, gone from this machine"),
            Process::Unseen => {
                format!("{pid}, on another machine or in another container: not seen from here")
            }
        },
    );
    line("command", &holder.command);
    if let Some(url) = &holder.job_url {
        line("job", url);
    }
    line("since", &format!("{} ({} ago)", holder.since, seconds(holder.held_seconds)));
    line("renewed", &format!("{} ago", seconds(holder.renewed_seconds)));
    let left = holder.expires_in_seconds;
    let end = if left > 0 { format!("in {}", seconds(left)) } else { format!("{} ago", seconds(-left)) };
    line("runs out", &end);
    line("token", &holder.token.to_string());
    for doing in &holder.doing {
        let steps =
            if doing.steps.is_empty() { String::new() } else { format!(": {}", doing.steps.join(", ")) };
        line("doing", &format!("{} {}{steps}", doing.action, doing.address));
    }
    if holder.abandoned {
        out += "nobody keeps it: the next norn takes it at once\n";
    }
    out
}

fn seconds(seconds: i64) -> String {
    age(u64::try_from(seconds).unwrap_or(0))
}

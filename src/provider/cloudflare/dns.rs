//! The records of a zone that lead names of the world to a tunnel.
//!
//! Invariant: a record without this project's and stage's mark is never changed or deleted.

use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::call::Found;
use super::{Cloudflare, CloudflareError, Mark};
use crate::provider::kubernetes::apply::Change;

/// Kinds of records that say where a name leads; one name has records of one of them.
const LEADING: [&str; 3] = ["A", "AAAA", "CNAME"];
/// More pages than any zone has records of one name.
const MOST_PAGES: u64 = 100;

/// A record, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Record {
    pub id: String,
    #[serde(rename = "type")]
    pub kind: String,
    pub name: String,
    #[serde(default)]
    pub content: String,
    #[serde(default)]
    pub proxied: Option<bool>,
    #[serde(default)]
    pub comment: Option<String>,
}

impl Record {
    pub fn mark(&self) -> Option<Mark> {
        Mark::read(self.comment.as_deref()?)
    }

    /// Whether it leads to a tunnel as norn makes it for an app.
    pub fn leads(&self, target: &str, mark: &Mark) -> bool {
        self.kind == "CNAME"
            && self.content.eq_ignore_ascii_case(target)
            && self.proxied == Some(true)
            && self.mark().as_ref() == Some(mark)
    }

    /// Such as `A shop.example.com 192.0.2.1`.
    fn told(&self) -> String {
        format!("{} {} {}", self.kind, self.name, self.content)
    }
}

/// Where a tunnel is reached, as records name it.
pub fn target(tunnel: &str) -> String {
    format!("{tunnel}.cfargotunnel.com")
}

/// Of a name's records the one that is of this project and stage, if there is any at all.
///
/// # Errors
/// A record of others, several records.
pub fn ours<'a>(
    host: &str,
    records: &'a [Record],
    mark: &Mark,
) -> Result<Option<&'a Record>, CloudflareError> {
    let record = match records {
        [] => return Ok(None),
        [one] => one,
        more => {
            let records = more.iter().map(Record::told).collect();
            return Err(CloudflareError::Several { host: host.to_owned(), records });
        }
    };
    let found = record.mark();
    if found.as_ref().is_some_and(|found| found.is_near(mark)) {
        return Ok(Some(record));
    }
    let whose = match (found, record.comment.as_deref().filter(|comment| !comment.is_empty())) {
        (Some(found), _) => match found.stage {
            Some(stage) => format!("it is of project {}, stage {stage}", found.project),
            None => format!("it is of project {}, no stage", found.project),
        },
        (None, Some(comment)) => format!("its comment is `{comment}`"),
        (None, None) => "it has no comment".to_owned(),
    };
    let (record, mark) = (record.told(), mark.to_string());
    Err(CloudflareError::Foreign { host: host.to_owned(), record, whose, mark })
}

impl Cloudflare {
    /// The records that say where a name leads.
    ///
    /// # Errors
    /// An unknown zone, and what every call can meet.
    pub async fn look(&self, zone: &str, host: &str) -> Result<Vec<Record>, CloudflareError> {
        let zone = self.zone(zone).await?;
        self.records(&zone, host).await
    }

    /// Has a name lead to `target` for an app, by a proxied CNAME with its mark. A record of another
    /// app of the same project and stage is taken over.
    ///
    /// # Errors
    /// Records of others, several records, an unknown zone, and what every call can meet.
    pub async fn route(
        &self,
        zone: &str,
        host: &str,
        target: &str,
        mark: &Mark,
    ) -> Result<Change, CloudflareError> {
        let zone = self.zone(zone).await?;
        let wanted = json!({
            "type": "CNAME", "name": host, "content": target,
            "proxied": true, "ttl": 1, "comment": mark.to_string(),
        });
        let mut patience = self.patience();
        let mut tried = false;
        // A record is made only after a look: the answer to an earlier try may have been lost.
        loop {
            let records = self.records(&zone, host).await?;
            if let Some(found) = ours(host, &records, mark)? {
                if found.leads(target, mark) {
                    return Ok(if tried { Change::Created } else { Change::Same });
                }
                let doing = format!("change the record of {host}");
                let path = format!("/zones/{zone}/dns_records/{}", found.id);
                self.talk("ask to", &doing)?;
                match self.call(&doing, &Method::PATCH, &path, Some(&wanted)).await {
                    Ok(_) => return self.talk("asked to", &doing).map(|()| Change::Changed),
                    Err(gone) if gone.found == Found::Nothing && !tried => tried = true,
                    Err(failed) => return Err(failed.error),
                }
                continue;
            }
            let doing = format!("make a record for {host}");
            let path = format!("/zones/{zone}/dns_records");
            self.talk("ask to", &doing)?;
            match self.once(&doing, &Method::POST, &path, Some(&wanted)).await {
                Ok(_) => return self.talk("asked to", &doing).map(|()| Change::Created),
                // The look that follows tells whose it is.
                Err(failed) if failed.found == Found::Taken && !tried => {}
                Err(failed) => patience.wait(failed).await?,
            }
            tried = true;
        }
    }

    /// Removes the record of a name that carries exactly this mark; whether there was one. What is of
    /// others, or of another app by now, stays.
    ///
    /// # Errors
    /// An unknown zone, and what every call can meet.
    pub async fn remove_route(&self, zone: &str, host: &str, mark: &Mark) -> Result<bool, CloudflareError> {
        let zone = self.zone(zone).await?;
        let mut removed = false;
        let records = self.records(&zone, host).await?;
        for record in records.iter().filter(|record| record.mark().as_ref() == Some(mark)) {
            let doing = format!("delete the record of {host}");
            let path = format!("/zones/{zone}/dns_records/{}", record.id);
            self.talk("ask to", &doing)?;
            match self.call(&doing, &Method::DELETE, &path, None).await {
                Ok(_) => {
                    self.talk("asked to", &doing)?;
                    removed = true;
                }
                Err(gone) if gone.found == Found::Nothing => removed = true,
                Err(failed) => return Err(failed.error),
            }
        }
        Ok(removed)
    }

    /// The id of a zone.
    async fn zone(&self, name: &str) -> Result<String, CloudflareError> {
        #[derive(Deserialize)]
        struct Zone {
            id: String,
            name: String,
        }
        let zones: Vec<Zone> = self
            .list(&format!("look for the zone {name}"), &format!("/zones?name={}&per_page=50", query(name)))
            .await?;
        let found = zones.into_iter().find(|zone| zone.name == name);
        found.map(|zone| zone.id).ok_or_else(|| CloudflareError::UnknownZone { zone: name.to_owned() })
    }

    async fn records(&self, zone: &str, host: &str) -> Result<Vec<Record>, CloudflareError> {
        let doing = format!("list the records of {host}");
        let path = format!("/zones/{zone}/dns_records?name={}&per_page=100", query(host));
        let mut records: Vec<Record> = self.list(&doing, &path).await?;
        records.retain(|record| {
            record.name.eq_ignore_ascii_case(host) && LEADING.contains(&record.kind.as_str())
        });
        Ok(records)
    }

    /// All pages of a list.
    async fn list<T: serde::de::DeserializeOwned>(
        &self,
        doing: &str,
        path: &str,
    ) -> Result<Vec<T>, CloudflareError> {
        let mut all = Vec::new();
        for page in 1..=MOST_PAGES {
            let path = format!("{path}&page={page}");
            let answer = self.call(doing, &Method::GET, &path, None).await.map_err(|failed| failed.error)?;
            let odd = |why: String| CloudflareError::Refused { doing: doing.to_owned(), why };
            let Value::Array(entries) = answer.result else {
                return Err(odd("its answer is no list".to_owned()));
            };
            for entry in entries {
                let entry =
                    T::deserialize(&entry).map_err(|error| odd(format!("its answer is odd: {error}")))?;
                all.push(entry);
            }
            if answer.result_info.is_none_or(|pages| page >= pages.total_pages) {
                break;
            }
        }
        Ok(all)
    }
}

/// A text as a part of a query.
fn query(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

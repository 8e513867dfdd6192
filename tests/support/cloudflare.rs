//! Cloudflare's API of zones and their records, as far as its own documentation tells what it does:
//! the envelope, paging, tokens and what they may, the rules of records, limits of calls.
//!
//! It is no kinder than the real one: pages can be made as short as a test likes, and each call can be
//! made to fail, or to lose its answer after it was done.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::Request;
use axum::response::Response;
use serde_json::{Value, json};

/// What becomes of a call instead.
#[derive(Debug, Clone)]
pub enum Fault {
    /// It is refused with this status, and perhaps the seconds after which to come again.
    Status(u16, Option<u64>),
    /// Something in between answers, in HTML.
    Page(u16),
    /// It is done, and its answer is lost.
    Lost,
}

/// What a token opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rights {
    /// Zone Read and DNS Edit.
    All,
    /// Zone Read alone.
    Look,
}

/// An account in the memory of this process. It answers as long as the process lives.
pub struct Account {
    /// Where its API is.
    pub url: String,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    tokens: BTreeMap<String, Rights>,
    /// Their names by id.
    zones: BTreeMap<String, String>,
    /// By zone.
    records: BTreeMap<String, Vec<Value>>,
    calls: Vec<String>,
    /// For the calls to come, in turn: which methods they are for, and what becomes of them.
    faults: VecDeque<(&'static str, Fault)>,
    longest_page: usize,
    made: u64,
}

/// A status, a body, and whether the answer arrives.
type Said = (u16, Value);

impl Account {
    /// An account that a token opens.
    pub fn open(token: &str) -> Self {
        let state = Arc::new(Mutex::new(State { longest_page: usize::MAX, ..State::default() }));
        state.lock().expect("nobody panics").tokens.insert(token.to_owned(), Rights::All);
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
        listener.set_nonblocking(true).expect("a socket takes it");
        let url = format!("http://{}/client/v4", listener.local_addr().expect("it is bound"));
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async {
                let router = Router::new().fallback(move |request: Request| {
                    let shared = Arc::clone(&shared);
                    async move { answer(&shared, request).await }
                });
                let listener = tokio::net::TcpListener::from_std(listener).expect("it listens");
                axum::serve(listener, router).await.expect("it serves");
            });
        });
        Self { url, state }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics")
    }

    pub fn token(&self, token: &str, rights: Rights) {
        self.state().tokens.insert(token.to_owned(), rights);
    }

    /// Adds a zone.
    pub fn zone(&self, name: &str) {
        let mut state = self.state();
        let id = state.id();
        state.zones.insert(id.clone(), name.to_owned());
        state.records.insert(id, Vec::new());
    }

    /// Adds a record as somebody else would, whatever else there is.
    pub fn record(&self, zone: &str, kind: &str, name: &str, content: &str, comment: Option<&str>) {
        let mut state = self.state();
        let id = state.zone_id(zone);
        let body = json!({"type": kind, "name": name, "content": content, "comment": comment});
        let record = state.new_record(zone, &body);
        state.records.get_mut(&id).expect("a zone has records").push(record);
    }

    /// The records of a zone, each as `CNAME shop.example.com target proxied # comment`, sorted.
    pub fn records(&self, zone: &str) -> Vec<String> {
        let state = self.state();
        let told = |record: &Value| {
            let text = |field: &str| record[field].as_str().unwrap_or("-").to_owned();
            let proxied = if record["proxied"] == true { "proxied" } else { "direct" };
            format!("{} {} {} {proxied} # {}", text("type"), text("name"), text("content"), text("comment"))
        };
        let mut all: Vec<String> = state.records[&state.zone_id(zone)].iter().map(told).collect();
        all.sort();
        all
    }

    /// The calls since the last time, each as `GET /zones?name=example.com`.
    pub fn calls(&self) -> Vec<String> {
        std::mem::take(&mut self.state().calls)
    }

    /// The next call of this method (empty: of any) that no earlier fault takes fails so.
    pub fn fail(&self, method: &'static str, fault: Fault) {
        self.state().faults.push_back((method, fault));
    }

    /// No page is longer, whatever is asked for.
    pub fn short_pages(&self, longest: usize) {
        self.state().longest_page = longest;
    }
}

async fn answer(state: &Mutex<State>, request: Request) -> Result<Response, Infallible> {
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, 1 << 20).await.unwrap_or_default();
    let mut state = state.lock().expect("nobody panics");
    let target = parts.uri.path_and_query().map_or("", |target| target.as_str());
    let target = target.strip_prefix("/client/v4").unwrap_or(target).to_owned();
    let method = parts.method.as_str();
    state.calls.push(format!("{method} {target}"));
    let at = state.faults.iter().position(|(of, _)| of.is_empty() || *of == method);
    let fault = at.and_then(|at| state.faults.remove(at)).map(|(_, fault)| fault);
    let whole = |status: u16, kind: &str, after: Option<u64>, body: Body| {
        let mut answer = Response::builder().status(status).header("content-type", kind);
        if let Some(after) = after {
            answer = answer.header("retry-after", after);
        }
        Ok(answer.body(body).expect("it is an answer"))
    };
    match fault {
        Some(Fault::Status(status, after)) => {
            let code = if status == 429 { 971 } else { 10_000 + u64::from(status) };
            let body = refused(status, code, "try again later").1;
            return whole(status, "application/json", after, body.to_string().into());
        }
        Some(Fault::Page(status)) => {
            return whole(status, "text/html", None, "<html>\n<body>bad gateway".into());
        }
        Some(Fault::Lost) | None => {}
    }
    let login = parts.headers.get("authorization").and_then(|login| login.to_str().ok());
    let (status, said) = state.serve(method, &target, login, &body);
    if matches!(fault, Some(Fault::Lost)) {
        let cut = futures_util::stream::once(async {
            Err::<Bytes, _>(io::Error::new(io::ErrorKind::ConnectionReset, "cut"))
        });
        return whole(status, "application/json", None, Body::from_stream(cut));
    }
    whole(status, "application/json", None, said.to_string().into())
}

fn refused(status: u16, code: u64, message: &str) -> Said {
    let error = json!({"code": code, "message": message});
    (status, json!({"success": false, "errors": [error], "messages": [], "result": null}))
}

fn done(result: &Value) -> Said {
    (200, json!({"success": true, "errors": [], "messages": [], "result": result}))
}

impl State {
    fn id(&mut self) -> String {
        self.made += 1;
        format!("{:032x}", 0x5f0c_0000_0000_u64 + self.made)
    }

    fn zone_id(&self, name: &str) -> String {
        let found = self.zones.iter().find(|(_, zone)| *zone == name);
        found.unwrap_or_else(|| panic!("there is no zone {name}")).0.clone()
    }

    fn serve(&mut self, method: &str, target: &str, login: Option<&str>, body: &[u8]) -> Said {
        let Some(login) = login else {
            return refused(400, 9106, "Missing X-Auth-Key, X-Auth-Email or Authorization headers");
        };
        let token = login.strip_prefix("Bearer ").unwrap_or_default();
        if token.len() < 4 || token.contains(char::is_whitespace) {
            let chain = json!([{"code": 6111, "message": "Invalid format for Authorization header"}]);
            let error = json!({"code": 6003, "message": "Invalid request headers", "error_chain": chain});
            return (400, json!({"success": false, "errors": [error], "messages": [], "result": null}));
        }
        let Some(rights) = self.tokens.get(token).copied() else {
            return refused(403, 9109, "Invalid access token");
        };
        let url = url::Url::parse(&format!("http://here{target}")).expect("a request has a target");
        let query: BTreeMap<String, String> = url.query_pairs().into_owned().collect();
        let parts: Vec<&str> = url.path().trim_matches('/').split('/').collect();
        match (method, &parts[..]) {
            ("GET", ["zones"]) => {
                let named = |name: &&String| query.get("name").is_none_or(|wanted| wanted == *name);
                let zones = self.zones.iter().filter(|(_, name)| named(name));
                let zones = zones
                    .map(|(id, name)| json!({"id": id, "name": name, "status": "active", "paused": false}));
                self.page(zones.collect(), &query, 20, 5..=50)
            }
            (_, ["zones", zone, "dns_records", ..]) if !self.zones.contains_key(*zone) => refused(
                404,
                7003,
                &format!(
                    "Could not route to /zones/{zone}/dns_records, perhaps your object identifier is invalid?"
                ),
            ),
            (_, ["zones", _, "dns_records", ..]) if rights != Rights::All => {
                refused(403, 10_000, "Authentication error")
            }
            ("GET", ["zones", zone, "dns_records"]) => {
                let matches = |record: &&Value, field: &str| {
                    query.get(field).is_none_or(|wanted| record[field].as_str() == Some(wanted))
                };
                let records = self.records[*zone].iter();
                let records = records.filter(|record| matches(record, "name") && matches(record, "type"));
                self.page(records.cloned().collect(), &query, 100, 1..=5_000_000)
            }
            ("POST", ["zones", zone, "dns_records"]) => self.put(zone, None, body),
            ("PUT" | "PATCH", ["zones", zone, "dns_records", id]) => self.put(zone, Some((id, method)), body),
            ("DELETE", ["zones", zone, "dns_records", id]) => {
                let records = self.records.get_mut(*zone).expect("the zone is there");
                let Some(at) = records.iter().position(|record| record["id"] == *id) else {
                    return refused(404, 81044, "Record does not exist.");
                };
                records.remove(at);
                done(&json!({"id": id}))
            }
            _ => refused(404, 7000, "No route for that URI"),
        }
    }

    /// A page of a list, by its number and length.
    fn page(
        &self,
        all: Vec<Value>,
        query: &BTreeMap<String, String>,
        usual: usize,
        lengths: std::ops::RangeInclusive<usize>,
    ) -> Said {
        let number =
            |field: &str, usual: usize| query.get(field).map_or(Some(usual), |text| text.parse().ok());
        let (Some(page @ 1..), Some(length)) = (number("page", 1), number("per_page", usual)) else {
            return refused(400, 6003, "Invalid request parameters");
        };
        if !lengths.contains(&length) {
            return refused(400, 1004, "per_page must be within its bounds");
        }
        let length = length.min(self.longest_page);
        let shown: Vec<&Value> = all.iter().skip((page - 1) * length).take(length).collect();
        let info = json!({
            "page": page, "per_page": length, "count": shown.len(), "total_count": all.len(),
            "total_pages": all.len().div_ceil(length),
        });
        let (status, mut said) = done(&json!(shown));
        said["result_info"] = info;
        (status, said)
    }

    fn new_record(&mut self, zone: &str, body: &Value) -> Value {
        let name = body["name"].as_str().unwrap_or_default();
        // A name of which the zone is no part is taken as one within it.
        let inside = name == zone || name.ends_with(&format!(".{zone}"));
        let name = if inside { name.to_owned() } else { format!("{name}.{zone}") };
        json!({
            "id": self.id(), "type": body["type"], "name": name, "content": body["content"],
            "proxied": body["proxied"].as_bool().unwrap_or(false), "ttl": body["ttl"].as_u64().unwrap_or(1),
            "proxiable": true, "comment": body["comment"], "tags": [], "settings": {}, "meta": {},
        })
    }

    /// Makes a record, or changes one: PUT gives all of it, PATCH what is to be different.
    fn put(&mut self, zone: &str, old: Option<(&str, &str)>, body: &[u8]) -> Said {
        let Ok(body) = serde_json::from_slice::<Value>(body) else {
            return refused(400, 9207, "Request body is invalid.");
        };
        let name = self.zones[zone].clone();
        let at = match old {
            None => None,
            Some((id, _)) => match self.records[zone].iter().position(|record| record["id"] == id) {
                Some(at) => Some(at),
                None => return refused(404, 81044, "Record does not exist."),
            },
        };
        let mut wanted = match (at, old) {
            (Some(at), Some((_, "PATCH"))) => self.records[zone][at].clone(),
            _ => json!({}),
        };
        for (field, value) in body.as_object().into_iter().flatten() {
            wanted[field] = value.clone();
        }
        for field in ["type", "name", "content"] {
            if wanted[field].as_str().is_none_or(str::is_empty) {
                return refused(400, 9005, &format!("Content for the record's {field} is invalid."));
            }
        }
        if wanted["comment"].as_str().is_some_and(|comment| comment.len() > 100) {
            return refused(400, 9313, "DNS record comment is too long.");
        }
        let mut record = self.new_record(&name, &wanted);
        if let Some((id, _)) = old {
            record["id"] = json!(id);
        }
        let leads = |record: &Value| ["A", "AAAA", "CNAME"].iter().any(|kind| record["type"] == *kind);
        for (other, found) in self.records[zone].iter().enumerate() {
            if Some(other) == at || found["name"] != record["name"] {
                continue;
            }
            if ["type", "content"].iter().all(|field| found[field] == record[field]) {
                return refused(400, 81058, "An identical record already exists.");
            }
            if leads(found) && leads(&record) && (found["type"] == "CNAME" || record["type"] == "CNAME") {
                return refused(400, 81053, "An A, AAAA, or CNAME record with that host already exists.");
            }
        }
        let records = self.records.get_mut(zone).expect("the zone is there");
        match at {
            Some(at) => records[at] = record.clone(),
            None => records.push(record.clone()),
        }
        done(&record)
    }
}

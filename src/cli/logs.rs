//! `norn logs`: what an app's replicas write, or what a step wrote.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::StreamExt;
use tokio::sync::Notify;

use super::args::{Global, Logs};
use super::clusters;
use super::engines;
use super::failure::{Exit, Failure};
use super::project::{Project, store_failure};
use crate::provider::docker::Labels;
use crate::provider::docker::address::Address;
use crate::provider::docker::served::{Container, Sorted, sort};
use crate::provider::kubernetes::Cluster;
use crate::provider::kubernetes::logs::Line;
use crate::provider::kubernetes::objects::joined;
use crate::provider::labels;
use crate::render::Printer;
use crate::render::printer::Reader;
use crate::state::format::{RemoteEngine, store_id};

/// How often a followed log is looked at.
const LOOK: Duration = Duration::from_millis(200);

pub fn run(global: &Global, options: &Logs, printer: Printer) -> Result<Exit, Failure> {
    super::runtime()?.block_on(async {
        let project = Project::open(global, printer).await?;
        project.must_know(&options.app).await?;
        match &options.step {
            Some(step) => step_log(&project, options, step, printer).await,
            None => {
                let stored = project.stored().await?;
                if let Some(engine) = engines::recorded(&stored).remove(&options.app) {
                    return container_logs(&engine, &project, options, printer).await;
                }
                let Some(namespace) = clusters::recorded(&stored).remove(&options.app) else {
                    return app_logs(&project, options, printer).await;
                };
                {
                    let spec = project.kubernetes(global)?;
                    let cluster = project.clusters.at(&spec, &namespace.name).await?;
                    if !clusters::is_here(&namespace, &cluster) {
                        let app = &options.app;
                        return Err(Failure::new(format!(
                            "app `{app}` runs in {namespace}, which this is not"
                        ))
                        .help("name its context with `kubernetes.context`"));
                    }
                    pod_logs(&cluster, &project, options, printer).await
                }
            }
        }
    })
}

async fn step_log(project: &Project, options: &Logs, step: &str, printer: Printer) -> Result<Exit, Failure> {
    let rows = project.store.history(Some(&options.app), 1).await.map_err(store_failure)?;
    let known = ["clone", "build", "test", "snapshot", "migrate", "deploy", "cleanup"];
    if !known.contains(&step) {
        return Err(Failure::new(format!("there is no step `{step}`"))
            .help(format!("the steps are {}", known.join(", "))));
    }
    let path = project.folders.step_log(&options.app, step);
    let kept = rows.first().and_then(|row| row.steps.iter().find(|log| log.step == step));
    let ran = kept.is_none_or(|log| log.status != "skipped");
    match (fs::read(&path), kept) {
        (Ok(bytes), _) if ran => printer.data(&String::from_utf8_lossy(&bytes)),
        (_, Some(log)) => printer.data(&log.output),
        _ => {
            return Err(Failure::new(format!("step {step} of app `{}` wrote nothing yet", options.app))
                .help("`norn history` shows what was deployed"));
        }
    }
    Ok(Exit::Ok)
}

async fn pod_logs(
    cluster: &Cluster,
    project: &Project,
    options: &Logs,
    printer: Printer,
) -> Result<Exit, Failure> {
    let selector = joined(&labels::of_app(&project.scope, &options.app));
    let lines = u32::try_from(options.lines).unwrap_or(u32::MAX);
    if options.follow {
        let gone = Notify::new();
        let mut lost = None;
        let sink = |line: Line| match printer.follow(&format!("{} | {}", line.pod, line.text)) {
            Ok(Reader::There) => {}
            Ok(Reader::Gone) => gone.notify_one(),
            Err(error) => {
                lost = Some(error);
                gone.notify_one();
            }
        };
        cluster.follow(&selector, lines, gone.notified(), sink).await?;
        return match lost {
            Some(error) => Err(Failure::new(format!("the output cannot be written: {error}"))),
            None => Ok(Exit::Ok),
        };
    }
    let found = cluster.last_lines(&selector, lines).await?;
    if found.is_empty() {
        return Err(Failure::new(format!("the pods of app `{}` wrote nothing yet", options.app))
            .help("`norn status` shows what runs, `--step build` prints what a step wrote"));
    }
    let several = found.iter().any(|line| line.pod != found[0].pod);
    let text = |line: &Line| match several {
        true => format!("{} | {}\n", line.pod, line.text),
        false => format!("{}\n", line.text),
    };
    printer.data(&found.iter().map(text).collect::<String>());
    Ok(Exit::Ok)
}

/// What the containers on an engine of another host write.
async fn container_logs(
    place: &RemoteEngine,
    project: &Project,
    options: &Logs,
    printer: Printer,
) -> Result<Exit, Failure> {
    let (engine, now) = engines::reach(&Address::of(Some(&place.address))).await?;
    let lines = u32::try_from(options.lines).unwrap_or(u32::MAX);
    if !place.is(&now) {
        return Err(Failure::new(format!(
            "app `{}` is on {place}, which is another engine now",
            options.app
        ))
        .help("`norn status` shows what runs; reach the engine it is on at that address"));
    }
    let own = project.store.known_key().await.map_err(store_failure)?.as_ref().map(store_id);
    let labels = Labels::new(&project.scope, &options.app).of_store(own.as_deref().unwrap_or_default());
    let containers = engine.serving(&labels).await?;
    // What never proved fit has something to say where nothing serves.
    let Sorted { live, left, .. } = sort(&containers);
    let serving = if live.is_empty() { left } else { live };
    let several = serving.len() > 1;
    let named = |container: &Container, line: &str| match several {
        true => format!("{} | {line}", container.replica),
        false => line.to_owned(),
    };
    if options.follow {
        let streams = serving.iter().map(|container| {
            let said = engine.follow(&container.id, lines).map(move |part| (*container, part));
            Box::pin(said)
        });
        let mut said = futures_util::stream::select_all(streams);
        let mut rest: BTreeMap<&str, String> = BTreeMap::new();
        while let Some((container, part)) = said.next().await {
            let part = part.map_err(|error| {
                Failure::new(format!("{place} broke off: {error}"))
                    .help("run `norn logs` again once it is there")
            })?;
            let rest = rest.entry(&container.id).or_default();
            rest.push_str(&String::from_utf8_lossy(part.as_ref()));
            while let Some(end) = rest.find('\n') {
                let line: String = rest.drain(..=end).collect();
                let lost = |error: io::Error| Failure::new(format!("the output cannot be written: {error}"));
                if printer.follow(&named(container, line.trim_end())).map_err(lost)? == Reader::Gone {
                    return Ok(Exit::Ok);
                }
            }
        }
        return Ok(Exit::Ok);
    }
    let mut text = String::new();
    for container in serving {
        for line in engine.last_lines(&container.id, lines).await? {
            text += &format!("{}\n", named(container, &line));
        }
    }
    if text.is_empty() {
        return Err(Failure::new(format!("the containers of app `{}` wrote nothing yet", options.app))
            .help("`norn status` shows what runs, `--step build` prints what a step wrote"));
    }
    printer.data(&text);
    Ok(Exit::Ok)
}

async fn app_logs(project: &Project, options: &Logs, printer: Printer) -> Result<Exit, Failure> {
    let folder = project.folders.logs().join(options.app.as_str());
    let logs = replica_logs(&folder);
    if logs.is_empty() && !options.follow {
        return Err(Failure::new(format!("app `{}` has no logs here", options.app))
            .help("`norn status` shows what runs, `--step build` prints what a step wrote"));
    }
    let mut positions = BTreeMap::new();
    for path in logs {
        let failure = |error: io::Error| Failure::new(format!("{}: {error}", path.display()));
        let (text, end) = tail(&path, options.lines).map_err(failure)?;
        if print(&path, &text, several(&folder), printer)? == Reader::Gone {
            return Ok(Exit::Ok);
        }
        positions.insert(path, end);
    }
    if !options.follow {
        return Ok(Exit::Ok);
    }
    loop {
        tokio::time::sleep(LOOK).await;
        for path in replica_logs(&folder) {
            let from = positions.entry(path.clone()).or_insert(0);
            // A log that was rotated is written from its start again.
            let length = fs::metadata(&path).map_or(0, |data| data.len());
            if length < *from {
                *from = 0;
            }
            if let Ok((text, end)) = read_from(&path, *from)
                && !text.is_empty()
            {
                if print(&path, &text, several(&folder), printer)? == Reader::Gone {
                    return Ok(Exit::Ok);
                }
                *from = end;
            }
        }
    }
}

/// The logs of the replicas: `0.log`, `1.log`, ...
fn replica_logs(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut logs: Vec<(u32, PathBuf)> = entries
        .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .filter_map(|path| Some((path.file_stem()?.to_str()?.parse().ok()?, path)))
        .collect();
    logs.sort();
    logs.into_iter().map(|(_, path)| path).collect()
}

fn several(folder: &Path) -> bool {
    replica_logs(folder).len() > 1
}

fn print(path: &Path, text: &str, named: bool, printer: Printer) -> Result<Reader, Failure> {
    let lost = |error: io::Error| Failure::new(format!("the output cannot be written: {error}"));
    if text.is_empty() {
        return Ok(Reader::There);
    }
    if !named {
        return printer.follow(text).map_err(lost);
    }
    let replica = path.file_stem().unwrap_or_default().to_string_lossy();
    let lines: Vec<String> = text.lines().map(|line| format!("{replica} | {line}")).collect();
    printer.follow(&lines.join("\n")).map_err(lost)
}

/// The last lines of a file, and where it ends.
fn tail(path: &Path, lines: usize) -> io::Result<(String, u64)> {
    const CHUNK: u64 = 64 << 10;
    let mut file = File::open(path)?;
    let end = file.metadata()?.len();
    let mut start = end;
    // The last first.
    let mut chunks: Vec<Vec<u8>> = Vec::new();
    let mut newlines = 0;
    // One newline more than lines: the first of them may be cut.
    while start > 0 && newlines <= lines {
        let from = start.saturating_sub(CHUNK);
        let mut chunk = vec![0; usize::try_from(start - from).unwrap_or(0)];
        file.seek(SeekFrom::Start(from))?;
        file.read_exact(&mut chunk)?;
        newlines += chunk.iter().filter(|byte| **byte == b'\n').count();
        chunks.push(chunk);
        start = from;
    }
    chunks.reverse();
    let text = String::from_utf8_lossy(&chunks.concat()).into_owned();
    let skip = text.lines().count().saturating_sub(lines);
    let kept: Vec<&str> = text.lines().skip(skip).collect();
    Ok((kept.join("\n"), end))
}

/// The complete lines behind a position, and where they end.
fn read_from(path: &Path, from: u64) -> io::Result<(String, u64)> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.take(1 << 20).read_to_end(&mut bytes)?;
    let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    // A line that never ends is shown in parts.
    let whole = if whole == 0 && bytes.len() >= 64 << 10 { bytes.len() } else { whole };
    Ok((String::from_utf8_lossy(&bytes[..whole]).into_owned(), from + whole as u64))
}

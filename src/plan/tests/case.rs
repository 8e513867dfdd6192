//! One case: its sections, and what is planned for them.

use std::collections::BTreeMap;

use super::world::World;
use crate::desired::{self, Desired};
use crate::plan::rollback::{self, NoTarget};
use crate::plan::{Facts, Options, Plan, Rollback, plan};
use crate::render::plan::Header;
use crate::render::{markdown, plan_json};
use crate::spec::engine::Site;
use crate::spec::load::{self, Files};
use crate::spec::model::Project;
use crate::spec::name::StageName;
use crate::spec::reference::{Absent, AppField, Reference};
use crate::spec::shape::{Lookup, Use};
use crate::spec::value::Complaint;
use crate::spec::way;
use crate::state::Scope;

pub struct Case {
    /// Name and text of each section, in order.
    sections: Vec<(String, String)>,
}

impl Case {
    pub fn parse(name: &str, text: &str) -> Self {
        let mut sections: Vec<(String, String)> = Vec::new();
        for line in text.split_inclusive('\n') {
            let title = line.strip_prefix("-- ").and_then(|rest| rest.trim_end().strip_suffix(" --"));
            match (title, sections.last_mut()) {
                (Some(title), _) => sections.push((title.to_owned(), String::new())),
                (None, Some((_, text))) => text.push_str(line),
                (None, None) => panic!("{name} does not begin with a section"),
            }
        }
        Self { sections }
    }

    fn section(&self, title: &str) -> &str {
        self.sections.iter().find(|(name, _)| name == title).map_or("", |(_, text)| text)
    }

    /// The whole file, with what is planned in the place of what was expected.
    ///
    /// # Errors
    /// Why a spec in it cannot be read.
    pub fn expected(&self) -> Result<String, String> {
        let (scope, plan, resources) = self.planned()?;
        let header = Header::usual(&scope, resources);
        let mut out = String::new();
        let mut shown = false;
        let human = || match self.refused() {
            Some(why) => format!("{why}\n{}\n", why.help()),
            None => crate::render::plan::human(&header, &plan, false),
        };
        for (title, text) in &self.sections {
            let text = match title.as_str() {
                "plan" => {
                    shown = true;
                    human()
                }
                "json" => {
                    let document = plan_json::document(&header, &plan);
                    format!("{:#}\n", serde_json::to_value(document).expect("it has text keys only"))
                }
                "markdown" => markdown::plan(&header, &plan),
                _ => text.clone(),
            };
            out += &format!("-- {title} --\n{text}");
        }
        if !shown {
            out += &format!("-- plan --\n{}", human());
        }
        Ok(out)
    }

    /// The plan of the case, for what it is and among how many resources.
    ///
    /// # Errors
    /// Why a spec in it cannot be read.
    pub fn planned(&self) -> Result<(Scope, Plan, usize), String> {
        let (desired, world, facts, options) = self.known()?;
        let plan = plan(&desired, &world.snapshot, &facts, &options);
        let scope = Scope { project: desired.project.clone(), stage: self.stage() };
        Ok((scope, plan, world.snapshot.resources.len()))
    }

    /// Why there is nothing to go back to, where that is asked for.
    fn refused(&self) -> Option<NoTarget> {
        let (_, world, facts, options) = self.known().ok()?;
        rollback::target(&options.rollback?, &world.snapshot, &facts).err()
    }

    fn stage(&self) -> Option<StageName> {
        match self.section("stage").trim() {
            "" => None,
            name => Some(name.parse().expect("a stage")),
        }
    }

    /// All that the plan is made of.
    fn known(&self) -> Result<(Desired, World, Facts, Options), String> {
        let stage = self.stage();
        let env = env(self.section("env"));
        let mut world = World::default();
        for (_, text) in self.sections.iter().filter(|(title, _)| title == "applied") {
            let mut files = self.files();
            files.insert("infraspec.yaml".into(), text.clone());
            let said: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("#! ")).collect();
            let (asked, said): (Vec<&str>, Vec<&str>) =
                said.into_iter().partition(|line| line.starts_with("rollback "));
            let (variables, facts): (Vec<&str>, Vec<&str>) =
                said.iter().partition(|line| line.split(' ').next().is_some_and(|word| word.contains('=')));
            let mut old_env = env.clone();
            old_env.extend(self::env(&variables.join("\n")));
            let desired = read(&files, stage.as_ref(), &old_env)?;
            world.apply_with(&desired, &facts.join("\n"), &options(&asked.join("\n")));
        }
        let desired = read(&self.files(), stage.as_ref(), &env)?;
        world.stored(self.section("stored"), &desired);
        let options = options(self.section("options"));
        let facts = world.facts(&desired, self.section("facts"));
        world.settle(&facts);
        Ok((desired, world, facts, options))
    }

    fn files(&self) -> BTreeMap<String, String> {
        self.sections.iter().filter(|(title, _)| title.ends_with(".yaml")).cloned().collect()
    }
}

/// What a spec wants.
pub fn read(
    files: &BTreeMap<String, String>,
    stage: Option<&StageName>,
    env: &BTreeMap<String, String>,
) -> Result<Desired, String> {
    let document = load::read(&Given(files), "infraspec.yaml");
    let plain = document.stage(stage, None);
    let project = plain.project.as_ref();
    let staged = document.stage(stage, Some(&|used: &Use| lookup(used, env, project)));
    let problems = document.problems.iter().chain(&staged.problems);
    let errors: Vec<String> =
        problems.filter(|p| p.is_error()).map(|problem| problem.message.clone()).collect();
    if !errors.is_empty() {
        return Err(errors.join("; "));
    }
    desired::from_spec(&document, &staged, stage, &|name| env.get(name).cloned())
        .map_err(|problems| problems.iter().map(|p| p.message.clone()).collect::<Vec<_>>().join("; "))
}

fn lookup(used: &Use, env: &BTreeMap<String, String>, project: Option<&Project>) -> Lookup {
    match &used.reference {
        Reference::Variable { name, absent } => match (env.get(name), absent) {
            (Some(value), _) => Lookup::Value(value.clone()),
            (None, Absent::Default(value)) => Lookup::Value(value.clone()),
            (None, Absent::Error | Absent::Message(_)) => {
                Lookup::Missing(Complaint { message: format!("{name} is not set"), help: String::new() })
            }
        },
        Reference::App { app, field } => {
            let project = project.expect("a spec with references to apps is read");
            let way = way::way(project, Site::of(project), &used.path[1], app)
                .expect("it has a port")
                .expect("there is a way");
            Lookup::Value(match field {
                AppField::Host => way.host,
                AppField::Port => way.port.to_string(),
                AppField::Url => way.url(),
            })
        }
    }
}

struct Given<'a>(&'a BTreeMap<String, String>);

impl Files for Given<'_> {
    fn read(&self, path: &str) -> Result<Vec<u8>, String> {
        self.0
            .get(path.trim_start_matches("./"))
            .map(|text| text.clone().into_bytes())
            .ok_or_else(|| "it is not there".into())
    }

    fn matching(&self, pattern: &str) -> Result<Vec<String>, String> {
        let matcher = globset::Glob::new(pattern).map_err(|error| error.to_string())?.compile_matcher();
        Ok(self.0.keys().filter(|path| matcher.is_match(path)).cloned().collect())
    }

    fn shown(&self, path: &str) -> String {
        path.to_owned()
    }
}

fn env(text: &str) -> BTreeMap<String, String> {
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// `target X`, `exclude X`, `redeploy APP`, `rollback APP [TO]`, `destroy`.
fn options(text: &str) -> Options {
    let mut options = Options::default();
    for line in text.lines() {
        match line.split_once(' ').unwrap_or((line, "")) {
            ("target", name) => options.selection.targets.push(name.parse().expect("a selector")),
            ("exclude", name) => options.selection.excluded.push(name.parse().expect("a selector")),
            ("redeploy", name) => options.redeploy.push(name.parse().expect("an app")),
            ("destroy", "") => options.destroy = true,
            ("rollback", text) => {
                let (app, to) = text.split_once(' ').map_or((text, None), |(app, to)| (app, Some(to)));
                let app = app.parse().expect("an app");
                options.rollback = Some(Rollback { app, to: to.map(str::to_owned) });
            }
            _ => panic!("there is no option {line:?}"),
        }
    }
    options
}

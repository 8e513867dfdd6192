//! The JSON Schemas of an infraspec, made from the types of `model`.
//!
//! Three are used by `shape` to read files, and one, which joins them, is published for editors.
//! A patch (a stage, `defaults`) is the same shape with nothing required and null allowed.

use std::collections::BTreeSet;
use std::sync::OnceLock;

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::mend::types;
use super::model::Project;

/// The schemas that files and merged documents are read with.
pub struct Schemas {
    /// A root file in the project form.
    pub project_file: Value,
    /// A root file in the app form, or one that a project includes.
    pub app_file: Value,
    /// The document after include, stage and defaults.
    pub merged: Value,
    /// A project file that needs none of these: file and document at once.
    pub alone: Value,
    /// What the references of all three point to.
    pub defs: Map<String, Value>,
}

/// The fields of a project that a root in the app form has beside those of its app.
pub const OF_THE_PROJECT: [&str; 8] =
    ["project", "state", "docker", "registry", "kubernetes", "postgres", "defaultStage", "stages"];
const APP_FORM_ONLY: [&str; 2] = ["core", "target"];
const DEFS: &str = "#/$defs/";
/// What no stage can change: it is read before a stage is chosen.
const BEFORE_STAGES: [&str; 5] = ["version", "project", "defaultStage", "include", "stages"];

/// The schemas, made once.
pub fn schemas() -> &'static Schemas {
    static SCHEMAS: OnceLock<Schemas> = OnceLock::new();
    SCHEMAS.get_or_init(make)
}

/// The schema that editors and `norn schema` use: either form.
pub fn published() -> Value {
    let schemas = schemas();
    let mut defs = schemas.defs.clone();
    defs.insert("ProjectFile".into(), schemas.project_file.clone());
    defs.insert("AppFile".into(), schemas.app_file.clone());
    // What editors do not know is for `shape` alone.
    let mut used = BTreeSet::new();
    used_by("ProjectFile", &defs, &mut used);
    used_by("AppFile", &defs, &mut used);
    defs.retain(|name, _| used.contains(name));
    let mut defs = Value::Object(defs);
    visit(&mut defs, &mut |object| object.retain(|key, _| !key.starts_with("x-")));
    defs.as_object_mut().into_iter().flat_map(|defs| defs.values_mut()).for_each(take_spellings);
    defs["Reference"] = json!({
        "description": "A reference such as ${NAME}, ${NAME:-default}, ${NAME:?message} or ${apps.NAME.url}.",
        "type": "string",
        "pattern": r"\$\{",
    });
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "infraspec",
        "description": "What norn makes so: a project (project form), or one app (app form).",
        "type": "object",
        "if": { "required": ["app"] },
        "then": { "$ref": "#/$defs/AppFile" },
        "else": { "$ref": "#/$defs/ProjectFile" },
        "$defs": defs,
    })
}

/// A schema, or the one that it refers to.
pub fn resolve(schema: &Value) -> &Value {
    match schema.get("$ref").and_then(Value::as_str) {
        Some(reference) => {
            let name = reference.trim_start_matches(DEFS);
            resolve(schemas().defs.get(name).expect("a reference of the schema names a definition"))
        }
        None => schema,
    }
}

fn make() -> Schemas {
    let settings = SchemaSettings::draft2020_12().for_deserialize();
    let root = settings.into_generator().into_root_schema_for::<Project>();
    let mut merged = root.to_value();
    let mut defs = match merged["$defs"].take() {
        Value::Object(defs) => defs,
        _ => unreachable!("the project refers to its parts"),
    };
    let object = merged.as_object_mut().expect("a schema is an object");
    object.remove("$defs");
    object.remove("$schema");

    // In files `role` may come from `defaults`, so only the merged document requires it.
    let mut app_v1 = defs["App"].clone();
    app_v1.as_object_mut().expect("a schema is an object").remove("required");
    defs.insert("AppV1".into(), app_v1.clone());
    let mut project_app = app_v1.clone();
    for field in APP_FORM_ONLY {
        remove_property(&mut project_app, field);
    }
    let mut repo = defs["Repo"].clone();
    remove_property(&mut repo, "repoWeb");
    defs.insert("ProjectRepo".into(), repo);
    rename_reference(&mut project_app, "Repo", "ProjectRepo");
    defs.insert("ProjectApp".into(), project_app);

    let mut project_file = merged.clone();
    rename_reference(&mut project_file["properties"]["apps"], "App", "ProjectApp");

    let mut stage = project_file.clone();
    for field in BEFORE_STAGES {
        remove_property(&mut stage, field);
    }
    stage["description"] = "A stage: a merge patch over the project, and what it says of itself.".into();
    for (name, schema) in defs["StageRules"]["properties"].as_object().expect("it has fields") {
        stage["properties"][name] = schema.clone();
    }
    defs.insert("Stage".into(), stage);
    make_patch("Stage", &mut defs);
    make_patch("ProjectApp", &mut defs);
    project_file["properties"]["defaults"] = json!({ "description": "Merged under every app, included ones too.", "$ref": "#/$defs/ProjectAppPatch" });
    rename_reference(&mut project_file["properties"]["stages"], "StageRules", "StagePatch");
    defs["StagePatch"]["properties"]["defaults"] = project_file["properties"]["defaults"].clone();
    defs.remove("Stage");

    let mut app_file = app_v1;
    app_file["title"] = "App".into();
    app_file["properties"]["app"] = merged["properties"]["project"].clone();
    app_file["properties"]["app"]["description"] = "The app's name, a lowercase DNS label.".into();
    for field in OF_THE_PROJECT {
        app_file["properties"][field] = project_file["properties"][field].clone();
    }
    app_file["required"] = json!(["app"]);
    defs.retain(|name, _| name != "AppV1");
    let mut lone_app = defs["ProjectApp"].clone();
    lone_app["required"] = defs["App"]["required"].clone();
    defs.insert("LoneApp".into(), lone_app);
    let mut alone = project_file.clone();
    rename_reference(&mut alone["properties"]["apps"], "ProjectApp", "LoneApp");
    Schemas { project_file, app_file, merged, alone, defs }
}

/// Adds a definition, and all that it refers to, to `used`.
fn used_by(name: &str, defs: &Map<String, Value>, used: &mut BTreeSet<String>) {
    if !used.insert(name.to_owned()) {
        return;
    }
    let mut references = Vec::new();
    visit(&mut defs[name].clone(), &mut |object| {
        if let Some(Value::String(reference)) = object.get("$ref") {
            references.push(reference.trim_start_matches(DEFS).to_owned());
        }
    });
    references.iter().for_each(|reference| used_by(reference, defs, used));
}

fn remove_property(schema: &mut Value, name: &str) {
    if let Some(properties) = schema["properties"].as_object_mut() {
        properties.shift_remove(name);
    }
    if let Some(required) = schema.get_mut("required").and_then(Value::as_array_mut) {
        required.retain(|field| field != name);
    }
}

fn rename_reference(schema: &mut Value, from: &str, to: &str) {
    visit(schema, &mut |object| {
        if object.get("$ref").is_some_and(|r| *r == format!("{DEFS}{from}")) {
            object.insert("$ref".into(), format!("{DEFS}{to}").into());
        }
    });
}

/// Adds `<name>Patch`, and the patches of all that it refers to.
fn make_patch(name: &str, defs: &mut Map<String, Value>) {
    let patch_name = format!("{name}Patch");
    if defs.contains_key(&patch_name) {
        return;
    }
    let mut patch = defs[name].clone();
    let mut references = Vec::new();
    visit(&mut patch, &mut |object| {
        // A list, so that a field which is called `required` stays.
        if object.get("required").is_some_and(Value::is_array) {
            object.remove("required");
        }
        if let Some(Value::String(reference)) = object.get_mut("$ref") {
            let target = reference.trim_start_matches(DEFS).to_owned();
            *reference = format!("{DEFS}{target}Patch");
            references.push(target);
        }
        for key in ["properties", "patternProperties"] {
            if let Some(Value::Object(properties)) = object.get_mut(key) {
                properties.values_mut().for_each(allow_null);
            }
        }
    });
    defs.insert(patch_name, patch);
    for reference in references {
        make_patch(&reference, defs);
    }
}

fn allow_null(schema: &mut Value) {
    let nothing = json!({ "type": "null" });
    if let Some(Value::Array(options)) = schema.get_mut("anyOf") {
        if !options.contains(&nothing) {
            options.push(nothing);
        }
        return;
    }
    let nullable = schema["type"].as_array().is_some_and(|types| types.contains(&json!("null")));
    if !nullable {
        let mut inner = schema.take();
        let description = inner.as_object_mut().and_then(|object| object.shift_remove("description"));
        *schema = json!({ "anyOf": [inner, nothing] });
        if let Some(description) = description {
            schema["description"] = description;
        }
    }
}

/// Lets a schema take what norn takes beside its own type: a reference for every value, and a
/// number or a switch where their spelling is meant.
fn take_spellings(schema: &mut Value) {
    match schema {
        Value::Array(items) => items.iter_mut().for_each(take_spellings),
        Value::Object(object) => {
            for key in ["properties", "patternProperties", "$defs"] {
                let inner = object.get_mut(key).and_then(Value::as_object_mut);
                inner.into_iter().flat_map(|inner| inner.values_mut()).for_each(take_spellings);
            }
            for key in ["anyOf", "items", "additionalProperties"] {
                object.get_mut(key).into_iter().for_each(take_spellings);
            }
            take_own_spellings(schema);
        }
        _ => {}
    }
}

fn take_own_spellings(schema: &mut Value) {
    let nullable = schema["type"].as_array().is_some_and(|types| types.contains(&json!("null")));
    let Some(kind) = types(schema).find(|kind| *kind != "null").map(str::to_owned) else { return };
    let choices = schema.get("enum").is_some();
    if kind == "string" && !choices {
        let format = schema["format"].as_str().unwrap_or_default();
        let spelled: &[&str] = match format {
            "" if schema.get("minLength").is_none() => &["number", "boolean"],
            "duration" | "memory" | "label" | "path" | "ref-name" => &["number"],
            _ => &[],
        };
        let all = ["string"].into_iter().chain(nullable.then_some("null")).chain(spelled.iter().copied());
        let all: Vec<&str> = all.collect();
        schema["type"] = if let [only] = all[..] { only.into() } else { all.into() };
        if let Some(pattern) = schema["pattern"].as_str().map(str::to_owned) {
            schema["pattern"] = format!(r"{pattern}|\$\{{").into();
        }
    } else if ["integer", "number", "boolean"].contains(&kind.as_str()) || choices {
        let mut inner = schema.take();
        let description = inner.as_object_mut().and_then(|object| object.shift_remove("description"));
        *schema = json!({ "anyOf": [inner, { "$ref": format!("{DEFS}Reference") }] });
        if let Some(description) = description {
            schema["description"] = description;
        }
    }
}

/// Calls `edit` on every object of a schema, outer ones first.
fn visit(schema: &mut Value, edit: &mut dyn FnMut(&mut Map<String, Value>)) {
    match schema {
        Value::Object(object) => {
            edit(object);
            object.values_mut().for_each(|value| visit(value, edit));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| visit(item, edit)),
        _ => {}
    }
}

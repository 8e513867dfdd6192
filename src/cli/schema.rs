//! `norn schema`: the JSON Schemas.

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::Value;

use super::args::{Schema, SchemaName};
use super::failure::{Exit, Failure};
use crate::render::{Printer, problems};
use crate::spec::schema;

pub fn run(options: &Schema, printer: Printer) -> Result<Exit, Failure> {
    printer.data(&text(options.name));
    Ok(Exit::Ok)
}

/// A schema as it stands in `schemas/`.
pub fn text(name: SchemaName) -> String {
    let schema = match name {
        SchemaName::Infraspec => schema::published(),
        SchemaName::Validate => of_output::<problems::Report>(),
    };
    format!("{schema:#}\n")
}

fn of_output<T: JsonSchema>() -> Value {
    SchemaSettings::draft2020_12().for_serialize().into_generator().into_root_schema_for::<T>().to_value()
}

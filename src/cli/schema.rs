//! `norn schema`: the JSON Schemas.

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::Value;

use super::args::{Schema, SchemaName};
use super::failure::{Exit, Failure};
use crate::plan::saved::SealedV1;
use crate::render::{Printer, events_json, lock, plan_json, problems, records, status};
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
        SchemaName::Plan => of_output::<plan_json::PlanV1>(),
        SchemaName::PlanFile => of_output::<SealedV1>(),
        SchemaName::Status => of_output::<status::StatusV1>(),
        SchemaName::History => of_output::<status::HistoryV1>(),
        SchemaName::Lock => of_output::<lock::LockV1>(),
        SchemaName::State => of_output::<records::StateV1>(),
        SchemaName::Apply => of_output::<events_json::EventV1>(),
    };
    format!("{schema:#}\n")
}

fn of_output<T: JsonSchema>() -> Value {
    SchemaSettings::draft2020_12().for_serialize().into_generator().into_root_schema_for::<T>().to_value()
}

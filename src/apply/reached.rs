//! Where an app is reached, for readers.

use crate::desired::{Definition, Front};
use crate::spec::engine::host_name;

/// Where an app is reached from this machine, or from the world.
pub fn reached(definition: &Definition) -> Option<String> {
    if definition.runtime.is_kubernetes() {
        return Some(format!("http://{}", definition.ingress.as_ref()?.host));
    }
    let port = definition.port.filter(|_| definition.replicas > 0)?;
    let host = match (&definition.engine, definition.front) {
        (Some(engine), _) => host_name(engine).to_owned(),
        (None, Front::On(address)) if !address.is_unspecified() => address.to_string(),
        (None, Front::On(_) | Front::Off) => "127.0.0.1".to_owned(),
    };
    let host = if host.contains(':') { format!("[{host}]") } else { host };
    Some(format!("http://{host}:{port}"))
}

/// What runs of an app, in a word: where it is reached, or how many replicas there are.
pub fn runs(definition: &Definition) -> String {
    reached(definition).unwrap_or_else(|| match definition.replicas {
        1 => "1 replica runs".to_owned(),
        n => format!("{n} replicas run"),
    })
}

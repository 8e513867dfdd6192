//! References in the texts of a spec: `${NAME}`, `${NAME:-default}`, `${NAME:?message}`,
//! `${apps.web.url}`. `$$` is a dollar, a bare `$` stands for itself.

use std::str::FromStr;

use super::name::AppName;
use super::value::Complaint;

/// A text taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    Text(String),
    Reference(Reference),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reference {
    /// A variable of norn's environment or of `--env-file`.
    Variable { name: String, absent: Absent },
    /// Where another app of the project is reached.
    App { app: AppName, field: AppField },
}

/// What happens when a variable is not set (or empty, as in a shell's `:-`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Absent {
    Error,
    Default(String),
    Message(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AppField {
    Url,
    Host,
    Port,
}

/// Takes a text apart.
///
/// # Errors
/// A reference that is not closed, has no name, or names no field of an app.
pub fn parse(text: &str) -> Result<Vec<Part>, Complaint> {
    let mut parts = Vec::new();
    let mut literal = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        literal.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            literal.push('$');
            rest = after;
        } else if let Some(after) = rest.strip_prefix('{') {
            let end = after.find('}').ok_or_else(|| Complaint {
                message: "the reference `${` is not closed".into(),
                help: "close it with `}`, or write `$${` for the two characters themselves".into(),
            })?;
            if !literal.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut literal)));
            }
            parts.push(Part::Reference(after[..end].parse()?));
            rest = &after[end + 1..];
        } else {
            literal.push('$');
        }
    }
    literal.push_str(rest);
    if !literal.is_empty() {
        parts.push(Part::Text(literal));
    }
    Ok(parts)
}

/// Whether a text holds a reference, well spelled or not.
pub fn present(text: &str) -> bool {
    text.replace("$$", "").contains("${")
}

impl FromStr for Reference {
    type Err = Complaint;

    fn from_str(inner: &str) -> Result<Self, Complaint> {
        if let Some(path) = inner.strip_prefix("apps.") {
            return app_reference(path);
        }
        let end = inner.find(':').unwrap_or(inner.len());
        let (name, tail) = inner.split_at(end);
        let first = name.chars().next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
        if !first || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
            return Err(no_variable(inner));
        }
        if name.eq_ignore_ascii_case("env") && tail.len() > 1 {
            return Err(no_variable(inner));
        }
        let absent = match tail {
            "" => Absent::Error,
            _ => {
                if let Some(default) = tail.strip_prefix(":-") {
                    Absent::Default(default.to_owned())
                } else if let Some(message) = tail.strip_prefix(":?") {
                    Absent::Message(message.to_owned())
                } else {
                    return Err(Complaint {
                        message: format!("`{tail}` in `${{{inner}}}` is no operator"),
                        help: "norn knows `:-` for a default and `:?` for a message".into(),
                    });
                }
            }
        };
        Ok(Self::Variable { name: name.to_owned(), absent })
    }
}

/// Says what is wrong with a reference, and how what other tools write is written here.
fn no_variable(inner: &str) -> Complaint {
    if inner.starts_with('{') {
        return Complaint {
            message: "`${{` begins no reference of norn".into(),
            help: "write ${NAME}, and let the CI set NAME in norn's environment".into(),
        };
    }
    let plain = |name: &str| {
        !name.is_empty()
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
            && !name.starts_with(char::is_numeric)
    };
    let of_environment = ["env.", "env:", "ENV.", "ENV:", "secrets.", "vars.", "var."];
    let mended =
        of_environment.iter().find_map(|prefix| inner.strip_prefix(prefix)).filter(|name| plain(name));
    let mended = match (mended, inner.strip_prefix("app."), inner.split_once(['-', '?'])) {
        (Some(name), ..) => Some(format!("${{{name}}}")),
        (None, Some(path), _) => Some(format!("${{apps.{path}}}")),
        // A shell knows the operators without `:` too.
        (None, None, Some((name, rest))) if plain(name) => {
            let operator = &inner[name.len()..=name.len()];
            let joined = format!("{name}_{rest}");
            let other = if plain(&joined) { format!(" or ${{{joined}}}") } else { String::new() };
            Some(format!("${{{name}:{operator}{rest}}}{other}"))
        }
        _ => None,
    };
    Complaint {
        message: format!("`${{{inner}}}` names no environment variable"),
        help: match mended {
            Some(mended) => format!("did you mean {mended}?"),
            None => "write ${NAME}, ${NAME:-default}, ${NAME:?message} or ${apps.NAME.url}".into(),
        },
    }
}

fn app_reference(path: &str) -> Result<Reference, Complaint> {
    let complaint = |message: String| Complaint {
        message,
        help: "write ${apps.NAME.url}, ${apps.NAME.host} or ${apps.NAME.port}".into(),
    };
    let (name, field) = path
        .split_once('.')
        .ok_or_else(|| complaint(format!("`${{apps.{path}}}` names no field of an app")))?;
    let app = name.parse().map_err(|error| {
        complaint(format!("`{name}` in `${{apps.{path}}}` is no name of an app: {error}"))
    })?;
    let field = match field {
        "url" => AppField::Url,
        "host" => AppField::Host,
        "port" => AppField::Port,
        other => return Err(complaint(format!("an app has no field `{other}` to refer to"))),
    };
    Ok(Reference::App { app, field })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variable(name: &str, absent: Absent) -> Part {
        Part::Reference(Reference::Variable { name: name.into(), absent })
    }

    #[test]
    fn references_and_dollars() {
        assert_eq!(parse("a$b $$ $${x} $"), Ok(vec![Part::Text("a$b $ ${x} $".into())]));
        assert_eq!(
            parse("x-${A}${B:-b c}${C:?set C}"),
            Ok(vec![
                Part::Text("x-".into()),
                variable("A", Absent::Error),
                variable("B", Absent::Default("b c".into())),
                variable("C", Absent::Message("set C".into())),
            ])
        );
        assert!(matches!(
            parse("${apps.web.url}").as_deref(),
            Ok([Part::Reference(Reference::App { field: AppField::Url, .. })])
        ));
        for bad in
            ["${", "${}", "${1A}", "${A:+b}", "${apps.web}", "${apps.Web.url}", "${apps.web.ip}", "${A B}"]
        {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}

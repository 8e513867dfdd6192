//! The user's word before something is done: at a terminal a question, elsewhere options.

use std::io::{self, BufRead, IsTerminal, Write};

use super::args::Doing;
use super::failure::{Exit, Failure};

/// What is asked.
pub struct Question<'a> {
    /// Such as `apply` or `restart web`.
    pub command: &'a str,
    /// What is typed back for a plan that weighs much: the stage's name, without stages the project's.
    pub name: &'a str,
    /// How many operations of the plan destroy.
    pub destroys: usize,
    pub protection: Protection,
    /// What the user said already.
    pub said: &'a Doing,
}

/// What a protected stage takes where nobody can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protection {
    /// The stage is not protected.
    None,
    /// Its name, by an option.
    Name,
    /// A plan that was saved and approved, and nothing else.
    SavedPlan,
    /// Nothing: it is asked for at a terminal.
    Terminal,
}

/// How the user agreed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Agreed {
    AtTerminal,
    /// By an option, or there was nothing to ask.
    Beforehand,
}

/// Returns once the user agreed.
///
/// # Errors
/// Without a terminal, the command that needs no question; at one, that the answer was no.
pub fn ask(question: &Question<'_>) -> Result<Agreed, Failure> {
    let Question { command, name, destroys, protection, said } = *question;
    let protected = protection != Protection::None;
    let weighty = destroys > 0 || protected;
    let by_option = matches!(protection, Protection::None | Protection::Name);
    if by_option && said.yes && (!weighty || said.confirm.as_deref() == Some(name)) {
        return Ok(Agreed::Beforehand);
    }
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        let why = match (destroys, protected) {
            (_, true) => format!("stage `{name}` is protected"),
            (0, false) => "there is no terminal to ask at".to_owned(),
            (n, false) => format!("the plan destroys {n} {}", if n == 1 { "thing" } else { "things" }),
        };
        let instead = match protection {
            Protection::SavedPlan => Some(format!(
                "save a plan with `norn plan --stage {name} --out FILE`; once it is approved, `norn apply FILE`"
            )),
            Protection::Terminal => Some(format!("run it at a terminal, where `{name}` is to be typed")),
            Protection::None | Protection::Name => None,
        };
        if let Some(instead) = instead {
            return Err(Failure::new(format!("{why}, so nothing was applied")).help(instead));
        }
        let why = match &said.confirm {
            Some(other) if weighty && other != name => format!("{why} and `{other}` is not `{name}`"),
            _ => why,
        };
        let confirm = weighty.then_some(name);
        let typed = std::env::args_os().skip(1).map(|argument| argument.to_string_lossy().into_owned());
        return Err(Failure::new(format!("{why}, so nothing was applied"))
            .help(format!("to go on without asking: {}", unasked(typed, confirm))));
    }
    let question =
        if weighty { format!("Type {name} to {command}: ") } else { "Apply this plan? [y/N] ".to_owned() };
    let mut stderr = io::stderr();
    let _ = write!(stderr, "{question}");
    let _ = stderr.flush();
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).map_err(|error| Failure::new(format!("no answer: {error}")))?;
    let answer = answer.trim();
    let yes =
        if weighty { answer == name } else { ["y", "yes"].contains(&answer.to_ascii_lowercase().as_str()) };
    if yes {
        Ok(Agreed::AtTerminal)
    } else {
        let why = match answer {
            typed if weighty && !typed.is_empty() => format!("you typed `{typed}`, not `{name}`"),
            _ => "you did not say yes".to_owned(),
        };
        Err(Failure::new(format!("nothing was applied: {why}")).exit(Exit::Cancelled))
    }
}

/// The command that was typed, as it runs without asking.
fn unasked(typed: impl Iterator<Item = String>, confirm: Option<&str>) -> String {
    let mut words = vec!["norn".to_owned()];
    let mut typed = typed;
    while let Some(word) = typed.next() {
        match word.as_str() {
            "--yes" | "-y" => {}
            "--confirm" => drop(typed.next()),
            _ if word.starts_with("--confirm=") => {}
            _ => words.push(quoted(&word)),
        }
    }
    words.push("--yes".into());
    words.extend(confirm.map(|name| format!("--confirm {name}")));
    words.join(" ")
}

/// A word as a shell reads it back.
pub fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

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
    /// A plan that was made by this command, saved and approved, and nothing else.
    SavedPlan(&'static str),
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
    if !at_terminal() {
        let why = match (destroys, protected) {
            (_, true) => format!("stage `{name}` is protected"),
            (0, false) => "there is no terminal to ask at".to_owned(),
            (n, false) => format!("the plan destroys {n} {}", if n == 1 { "thing" } else { "things" }),
        };
        let instead = match protection {
            Protection::SavedPlan(plan) => Some(format!(
                "save a plan with `{plan} --stage {name} --out FILE`; once it is approved, `norn apply FILE`; or run it at a terminal"
            )),
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
        return Err(Failure::new(format!("{why}, so nothing was applied"))
            .help(format!("to go on without asking: {}", unasked(typed(), confirm))));
    }
    let prompt =
        if weighty { format!("Type {name} to {command}: ") } else { "Apply this plan? [y/N] ".to_owned() };
    let answer = answer(&prompt)?;
    let yes =
        if weighty { answer == name } else { ["y", "yes"].contains(&answer.to_ascii_lowercase().as_str()) };
    if yes {
        Ok(Agreed::AtTerminal)
    } else {
        let why = match answer.as_str() {
            typed if weighty && !typed.is_empty() => format!("you typed `{typed}`, not `{name}`"),
            _ => "you did not say yes".to_owned(),
        };
        Err(Failure::new(format!("nothing was applied: {why}")).exit(Exit::Cancelled))
    }
}

/// Has a word typed back before something that is no plan is done, such as to `break the lock`;
/// `nothing` says what was not done without it.
///
/// # Errors
/// As [`ask`].
pub fn ask_word(to: &str, word: &str, nothing: &str) -> Result<(), Failure> {
    if !at_terminal() {
        return Err(Failure::new(format!("there is no terminal to ask at, so {nothing}"))
            .help(format!("to go on without asking: {}", unasked(typed(), None))));
    }
    match answer(&format!("Type {word} to {to}: "))? {
        answer if answer == word => Ok(()),
        answer if answer.is_empty() => {
            Err(Failure::new(format!("{nothing}: you did not say yes")).exit(Exit::Cancelled))
        }
        answer => {
            Err(Failure::new(format!("{nothing}: you typed `{answer}`, not `{word}`")).exit(Exit::Cancelled))
        }
    }
}

fn at_terminal() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// The line that the user types behind a question.
fn answer(prompt: &str) -> Result<String, Failure> {
    let mut stderr = io::stderr();
    let _ = write!(stderr, "{prompt}");
    let _ = stderr.flush();
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).map_err(|error| Failure::new(format!("no answer: {error}")))?;
    Ok(answer.trim().to_owned())
}

/// The words of this command, without the program's.
fn typed() -> impl Iterator<Item = String> {
    std::env::args_os().skip(1).map(|argument| argument.to_string_lossy().into_owned())
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

//! When a cron app runs: cron expressions that every scheduler knows, and time zones.

use croner::parser::{CronParser, Seconds, Year};

use super::problem::did_you_mean;
use super::value::Complaint;

const HELP: &str =
    "write minute, hour, day of month, month and day of week, such as \"0 6 * * 1-5\", or @daily";

pub fn read_cron(text: &str) -> Result<(), Complaint> {
    const NAMES: [&str; 7] =
        ["@hourly", "@daily", "@midnight", "@weekly", "@monthly", "@yearly", "@annually"];
    if text.starts_with('@') {
        if NAMES.contains(&text) {
            return Ok(());
        }
        let help = match text.strip_prefix("@every").map(str::trim).and_then(|every| every.strip_suffix('m'))
        {
            Some(minutes) if minutes.parse().is_ok_and(|m: u8| (1..60).contains(&m)) => {
                format!("write it as \"*/{minutes} * * * *\"")
            }
            _ => format!("norn knows {}, and five fields such as \"*/5 * * * *\"", NAMES.join(", ")),
        };
        return Err(Complaint::new(format!("there is no schedule `{text}`"), help));
    }
    let fields = text.split_ascii_whitespace().count();
    if fields != 5 {
        let message = format!("a cron expression has 5 fields, `{text}` has {fields}");
        // Some tools begin with the seconds.
        let without_seconds = text.split_once(' ').filter(|(seconds, _)| fields == 6 && *seconds == "0");
        let help = match without_seconds {
            Some((_, rest)) => format!("leave the seconds out: \"{rest}\""),
            None => HELP.to_owned(),
        };
        return Err(Complaint::new(message, help));
    }
    // Kubernetes knows none of these, so a schedule with them could not move there.
    if let Some(letter) = text.chars().find(|c| matches!(c, '#' | '?')) {
        return Err(Complaint::new(
            format!("`{letter}` in `{text}` is an extension that not every scheduler knows"),
            HELP,
        ));
    }
    let upper = text.to_ascii_uppercase();
    let without_names = ["JUL", "WED"].iter().fold(upper, |t, name| t.replace(name, ""));
    if let Some(letter) = without_names
        .split(|c: char| !c.is_ascii_alphanumeric())
        .find(|w| w.trim_start_matches(|c: char| c.is_ascii_digit()).eq("L") || w.ends_with('W'))
    {
        return Err(Complaint::new(
            format!("`{letter}` in `{text}` is an extension that not every scheduler knows"),
            HELP,
        ));
    }
    let parser = parser();
    // The parser takes `,` for a field of no values, and looks for its time until the end of days.
    let whole = text.split_ascii_whitespace().all(|field| field.split(',').all(|value| !value.is_empty()));
    let cron = whole.then(|| parser.parse(text).ok()).flatten();
    let cron = cron.ok_or_else(|| {
        Complaint::new(format!("`{text}` is no cron expression: {}", wrong_field(&parser, text)), HELP)
    })?;
    // A 31 February parses, but no such day comes.
    let from = jiff::civil::date(2024, 1, 1).at(0, 0, 0, 0).to_zoned(jiff::tz::TimeZone::UTC);
    let from = from.map_err(|error| Complaint::new(error.to_string(), HELP))?;
    cron.find_next_occurrence(&from, true).map(drop).map_err(|_| {
        Complaint::new(
            format!("the schedule `{text}` never comes"),
            "check the day of month against the month",
        )
    })
}

/// Five fields, from the minute to the day of week.
pub(super) fn parser() -> CronParser {
    CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build()
}

/// Which field of a cron expression is wrong.
fn wrong_field(parser: &CronParser, text: &str) -> String {
    const FIELDS: [(&str, &str); 5] = [
        ("minute", "0 to 59"),
        ("hour", "0 to 23"),
        ("day of month", "1 to 31"),
        ("month", "1 to 12, or JAN to DEC"),
        ("day of week", "0 to 7, or SUN to SAT"),
    ];
    for (index, (field, (name, range))) in text.split_ascii_whitespace().zip(FIELDS).enumerate() {
        let mut alone = ["*"; 5];
        alone[index] = field;
        let empty = field.split(',').any(str::is_empty);
        if empty || parser.parse(&alone.join(" ")).is_err() {
            return format!("the {name} is {range}, not `{field}`");
        }
    }
    "its fields do not fit together".into()
}

pub fn read_zone(text: &str) -> Result<(), Complaint> {
    if jiff::tz::db().get(text).is_ok() {
        return Ok(());
    }
    let names: Vec<String> = jiff::tz::db().available().map(|name| name.as_str().to_owned()).collect();
    // Who writes a city alone means its zone.
    let city = names.iter().find(|name| {
        name.rsplit_once('/').is_some_and(|(_, city)| city.eq_ignore_ascii_case(&text.replace(' ', "_")))
    });
    let near = city.map(String::as_str).or_else(|| did_you_mean(text, names.iter().map(String::as_str)));
    let help = near.map_or_else(
        || "write a name of the IANA time zone database, such as Europe/Berlin or UTC".to_owned(),
        |name| format!("did you mean `{name}`?"),
    );
    Err(Complaint::new(format!("there is no time zone `{text}`"), help))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_that_every_scheduler_knows() {
        for good in ["0 6 * * 1-5", "*/5 * * * *", "@daily", "0 0 1 JAN-JUL WED", "0 0 29 2 *"] {
            assert_eq!(read_cron(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "* * * *",
            "0 0 0 * * *",
            "61 * * * *",
            "0 0 L * *",
            "0 0 15W * *",
            "0 0 * * 5#2",
            "0 0 31 2 *",
            "@reboot",
            "0 25 * * *",
            "0 , * * *",
            "0 0 * * 5L",
        ] {
            assert!(read_cron(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_field_without_a_value_is_no_field() {
        let complaint = read_cron("0 1,,2 * * *").unwrap_err();
        assert!(complaint.message.ends_with("the hour is 0 to 23, not `1,,2`"), "{complaint}");
    }

    #[test]
    fn a_time_zone_is_named_or_guessed() {
        assert_eq!(read_zone("Europe/Berlin"), Ok(()));
        assert_eq!(read_zone("Europe/Berln").unwrap_err().help, "did you mean `Europe/Berlin`?");
    }
}

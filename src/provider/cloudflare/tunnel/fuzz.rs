//! Whatever the text: a rule is refused, or it is there then, and taken out again it leaves every byte
//! as it was.

use super::{Mark, rule, with_rule, without_rule};

/// Puts a rule into a configuration of cloudflared, and takes it out again.
pub fn tunnel(input: &[u8]) -> bool {
    const HOST: &str = "shop.example.com";
    let Ok(text) = std::str::from_utf8(input) else { return false };
    let mark = Mark::read("norn shop/prod web").expect("it is one");
    let with = |text| with_rule(text, HOST, "http://web", &mark);
    let new = rule(text, HOST) == Ok(None);
    match with(text) {
        Err(refused) => {
            assert!(!refused.to_string().is_empty());
            let _either = without_rule(text, HOST, &mark);
            false
        }
        Ok(None) => true,
        Ok(Some(after)) => {
            assert_eq!(with(&after), Ok(None), "{text:?}");
            let before = without_rule(&after, HOST, &mark);
            assert!(!new || before == Ok(Some(text.to_owned())), "{text:?}: {before:?}");
            true
        }
    }
}

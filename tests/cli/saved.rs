//! `norn plan --out`, `norn show FILE`, `norn apply FILE`: a plan that is approved before it is
//! applied, and what is refused.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use crate::run::Ran;
use crate::sandbox::{Sandbox, free_port, get};
use crate::snapshot;

/// What several commands said, as a snapshot keeps it.
#[derive(Default)]
struct Story(String);

impl Story {
    fn tell(&mut self, title: &str, ran: &Ran) {
        self.0 += &format!("=== {title}\n{}", ran.redacted());
    }

    fn check(&self, name: &str, port: u16) {
        snapshot::check(name, &self.0.replace(&port.to_string(), "<port>"));
    }
}

#[test]
fn a_saved_plan_is_shown_applied_and_then_done() {
    let port = free_port();
    let sandbox = Sandbox::hello(port);
    let mut story = Story::default();
    for (line, code) in [
        // Beside the spec, in the folder that is the app's source.
        ("plan --out plan.norn --detailed-exitcode", 2),
        ("show plan.norn", 0),
        ("apply plan.norn", 0),
        ("plan --detailed-exitcode", 0),
        ("apply plan.norn", 0),
        ("plan --out plan.norn --valid-for 1d12h", 0),
        ("apply plan.norn --yes", 0),
    ] {
        story.tell(&format!("norn {line}"), &sandbox.norn(line).exits(code));
    }
    story.check("saved-story", port);
    assert_eq!(get(port, "/").as_deref(), Ok("one"));
}

#[test]
fn every_output_of_a_saved_plan_is_that_of_its_making() {
    let sandbox = Sandbox::hello(free_port());
    let made = sandbox.norn("plan --json --out ../plan.norn --markdown-out ../made.md").ok();
    // It needs neither the spec nor the state.
    let shown = sandbox.norn("show --json plan.norn --markdown-out shown.md").within(sandbox.folder()).ok();
    assert_eq!(made.out, shown.out);
    assert_eq!(sandbox.read("../made.md"), sandbox.read("../shown.md"));
    let id = made.json()["planId"].as_str().expect("an id").to_owned();
    let applied = sandbox.norn("apply ../plan.norn --json").ok();
    let first: serde_json::Value =
        serde_json::from_str(applied.out.lines().next().expect("an event")).expect("JSON");
    assert_eq!(first["plan"]["planId"], id.as_str());
    let again = sandbox.norn("apply ../plan.norn --json").ok();
    for event in [r#""event":"operation-skipped""#, r#""address":"deploy/hello""#, r#""result":"unchanged""#]
    {
        again.prints(event);
    }
}

#[test]
fn the_file_is_private_whole_and_no_other() {
    let sandbox = Sandbox::hello(free_port());
    sandbox.write("out/old.norn", "what was there before");
    sandbox.norn("plan --out out/old.norn").ok();
    let mode = fs::metadata(sandbox.path("out/old.norn")).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    sandbox.norn("show out/old.norn").ok();
    let files = fs::read_dir(sandbox.path("out")).expect("the folder is read").count();
    assert_eq!(files, 1, "nothing is left beside it");
    let spec = sandbox.read("infraspec.yaml");
    fs::create_dir(sandbox.path("sub")).expect("the folder is made");
    std::os::unix::fs::symlink(".", sandbox.path("link")).expect("the link is made");
    for (line, why) in [
        ("plan --out out", "out is a folder"),
        ("plan --out /dev/null", "/dev/null is no file"),
        ("plan --out infraspec.yaml", "is a file of the spec or of the state"),
        ("plan --out .norn/state.db", "is a file of the spec or of the state"),
        ("plan --out sub/../infraspec.yaml", "is a file of the spec or of the state"),
        ("plan --out link/infraspec.yaml", "is a file of the spec or of the state"),
        ("plan --out .norn/stages/prod/state.db", "is a file of the spec or of the state"),
        ("plan --json-out infraspec.yaml", "is a file of the spec or of the state"),
        ("apply --yes --markdown-out sub/../infraspec.yaml", "is a file of the spec or of the state"),
        ("apply out/old.norn --json-out infraspec.yaml", "is a file of the spec or of the state"),
        ("plan --out no/such/folder/plan.norn", "cannot be written"),
        ("plan --out x.norn --valid-for 9999999999999999d", "--valid-for"),
        ("plan --valid-for 1h", "--out"),
    ] {
        sandbox.norn(line).exits(1).one_error().says(why);
    }
    assert_eq!(sandbox.read("infraspec.yaml"), spec);
}

#[test]
fn two_outputs_are_two_files() {
    let sandbox = Sandbox::hello(free_port());
    sandbox.norn("plan --out ../plan.norn").ok();
    let plan = sandbox.read("../plan.norn");
    fs::create_dir(sandbox.path("../sub")).expect("the folder is made");
    for (link, to) in [("../link", "sub"), ("../dangling", "sub/../a"), ("../loop", "loop")] {
        std::os::unix::fs::symlink(to, sandbox.path(link)).expect("the link is made");
    }
    for (line, names) in [
        ("plan --out ../a --json-out ../a", "--out and --json-out"),
        ("plan --out ../a --json-out ../b --markdown-out ../sub/../a", "--out and --markdown-out"),
        ("plan --json-out ../link/a --markdown-out ../sub/a", "--json-out and --markdown-out"),
        ("plan --json-out ../dangling --markdown-out ../a", "--json-out and --markdown-out"),
        ("plan --out a --json-out ./a", "--out and --json-out"),
        ("apply --yes --json-out ../a --markdown-out ../a", "--json-out and --markdown-out"),
        ("apply ../plan.norn --json-out ../link/../plan.norn", "the plan and --json-out"),
        ("show ../plan.norn --markdown-out ../plan.norn", "the plan and --markdown-out"),
    ] {
        sandbox.norn(line).exits(1).one_error().says(&format!("{names} are one file"));
    }
    assert_eq!(sandbox.read("../plan.norn"), plan);
    for file in ["../a", "../b", "../sub/a", "a"] {
        assert!(!sandbox.path(file).exists(), "{file} was written");
    }
    sandbox.norn("plan --json-out /dev/null --markdown-out /dev/null").ok();
    sandbox.norn("plan --out ../loop --markdown-out ../a").ok();
}

#[test]
fn a_file_that_is_no_plan_is_told_what_it_is() {
    let port = free_port();
    let sandbox = Sandbox::hello(port);
    sandbox.norn("plan --out ../plan.norn").ok();
    let text = sandbox.read("../plan.norn");
    let json = sandbox.norn("plan --json").ok().out;
    fs::create_dir(sandbox.path("../folder")).expect("the folder is made");
    for (name, text) in [
        ("empty", String::new()),
        ("letter", "Dear norn,\nplease apply this.\n".into()),
        ("printed", json),
        ("cut", text[..1000].to_owned()),
        ("broken", text.replace("\"planId\":", "\"planId\"")),
        ("newer", text.replace("\"format\":1", "\"format\":2")),
        ("unknown", text.replace("\"plan\":{", "\"plan\":{\"more\":true,")),
        ("edited", text.replace("\"replicas\":1", "\"replicas\":2")),
    ] {
        sandbox.write(&format!("../{name}"), &text);
    }
    let mut story = Story::default();
    for name in ["missing", "folder", "empty", "letter", "printed", "cut", "broken", "newer", "unknown"] {
        let applied = sandbox.norn(&format!("apply ../{name}")).exits(1);
        let shown = sandbox.norn(&format!("show ../{name}")).exits(1);
        assert_eq!(applied.all(), shown.all());
        story.tell(name, applied.one_error());
    }
    story.tell("edited", sandbox.norn("apply ../edited").exits(1).one_error());
    story.tell("the spec", sandbox.norn("apply infraspec.yaml").exits(1).one_error());
    story.tell("with --target", sandbox.norn("apply ../plan.norn --target hello").exits(1).one_error());
    story.check("saved-no-plan", port);
    assert!(get(port, "/").is_err());

    // What anyone may have written steers no terminal.
    let red = r"\u001b[31m\u202e";
    for (name, from) in [("state", ".norn/state.db"), ("word", "role"), ("version", "0.1.0")] {
        sandbox.write(&format!("../{name}"), &text.replace(from, &format!("{red}{from}")));
        let shown = sandbox.norn(&format!("show ../{name}")).run();
        assert!(shown.code.is_some() && !shown.all().contains(['\u{1b}', '\u{202e}']), "{}", shown.all());
    }

    // Larger than any plan, with and without a size that is told beforehand.
    let large = fs::File::create(sandbox.path("../large")).expect("the file is made");
    large.set_len(1 << 30).expect("it has holes");
    let begun = Instant::now();
    for name in ["../large", "/dev/zero"] {
        sandbox.norn("show").arg(name).exits(1).one_error().says("more than 64 MiB");
    }
    assert!(begun.elapsed() < Duration::from_secs(10), "it took {:?}", begun.elapsed());
}

#[test]
fn a_plan_that_is_out_of_date_is_refused_with_what_moved() {
    let port = free_port();
    let mut sandbox = Sandbox::hello(port);
    let more = "env: {GREETING: \"${WORD}\", BOTH: \"${WORD}-${OTHER}\"}\nsecrets: [KEY]\n";
    sandbox.hello_with(port, more);
    for (name, value) in [("WORD", "Hi"), ("OTHER", "there"), ("KEY", "sk-12345678")] {
        sandbox.set(name, value);
    }
    let mut story = Story::default();
    sandbox.norn("apply --yes").ok();
    sandbox.write("greeting.txt", "two");
    sandbox.norn("plan --out ../plan.norn").ok();
    sandbox.norn("plan --out ../brief.norn --valid-for 1ms").ok();
    let mut refused = |title: &str, run: crate::run::Run| {
        let ran = run.exits(5);
        story.tell(title, ran.one_error());
    };
    let apply = |sandbox: &Sandbox| sandbox.norn("apply ../plan.norn");

    refused("expired", sandbox.norn("apply ../brief.norn"));
    refused("another stage", sandbox.norn("apply ../plan.norn --stage prod"));
    refused("another value", apply(&sandbox).env("OTHER", "x").env("KEY", "another-key"));
    refused("no state", sandbox.norn("apply ../plan.norn --state ../other.db"));
    let remembered = sandbox.read(".norn/store");
    sandbox.norn("plan --out ../other.norn --state ../other.db").ok();
    refused("another state", sandbox.norn("apply ../plan.norn --state ../other.db"));
    // Where a state is that nobody named is an error of the place, for every command.
    let elsewhere = apply(&sandbox).exits(1);
    elsewhere.one_error().says("the state was in").says("name the one you mean with --state");
    sandbox.write(".norn/store", &remembered);
    assert!(!sandbox.path("../other.db.d/releases").exists());

    let spec = sandbox.read("infraspec.yaml");
    sandbox.edit("infraspec.yaml", "project: greeter", "project: other");
    refused("another project", apply(&sandbox));
    sandbox.write("infraspec.yaml", &spec.replace("version: 1", "version: 1\ninclude: [more/*.yaml]"));
    sandbox.write("more/second.yaml", "app: second\nrole: worker\ncommand: sleep 9\n");
    refused("another spec", apply(&sandbox));
    sandbox.norn("plan --out ../both.norn").ok();
    sandbox.write("infraspec.yaml", &spec);
    refused("a file less", sandbox.norn("apply ../both.norn"));

    assert_eq!(get(port, "/").as_deref(), Ok("Hi one"));
    sandbox.norn("apply --yes").ok();
    refused("another apply in between", apply(&sandbox));
    assert_eq!(get(port, "/").as_deref(), Ok("Hi two"));
    sandbox.norn("destroy --yes --confirm greeter").ok();
    refused("gone", apply(&sandbox));
    story.check("saved-outdated", port);
}

#[test]
fn a_plan_is_for_the_stage_that_it_names() {
    let (one, two) = (free_port(), free_port());
    let sandbox = Sandbox::hello(one);
    let spec = sandbox.read("infraspec.yaml");
    let stages = format!("stages:\n  test: {{}}\n  prod: {{apps: {{hello: {{port: {two}}}}}}}\n");
    sandbox.write("infraspec.yaml", &format!("{spec}{stages}defaultStage: test\n"));
    sandbox.norn("plan --stage prod --out ../plan.norn").ok();
    let refused = sandbox.norn("apply ../plan.norn").env("NORN_STAGE", "test").exits(5);
    refused.one_error().says("the plan is for stage `prod`, and stage `test` is named");
    // The stage is gone, and later the spec is none at all.
    let whole = sandbox.read("infraspec.yaml");
    for other in [whole.replace("  prod:", "  other:"), "version: 1\napps: [".into()] {
        sandbox.write("infraspec.yaml", &other);
        let refused = sandbox.norn("apply ../plan.norn").exits(5);
        refused
            .one_error()
            .says("the spec is another than the plan was made of")
            .says("infraspec.yaml changed");
    }
    sandbox.write("infraspec.yaml", &whole);
    sandbox.norn("apply ../plan.norn").ok();
    assert_eq!((get(one, "/").is_err(), get(two, "/").as_deref()), (true, Ok("one")));
}

#[test]
fn a_protected_stage_is_destroyed_by_a_saved_plan() {
    let port = free_port();
    let sandbox = Sandbox::hello(port);
    sandbox.hello_with(port, "env: {GREETING: \"${WORD}\"}\nsecrets: [TOKEN]\n");
    let spec = sandbox.read("infraspec.yaml");
    sandbox.write("infraspec.yaml", &format!("{spec}stages: {{prod: {{protected: true}}}}\n"));
    let with = |line: &str| sandbox.norn(line).env("WORD", "Hi").env("TOKEN", "a long enough secret");
    with("plan --stage prod --out ../plan.norn").ok();
    with("apply ../plan.norn").ok();
    assert_eq!(get(port, "/").as_deref(), Ok("Hi one"));

    let refused = sandbox.norn("destroy --stage prod --yes --confirm prod").exits(1);
    refused.one_error().says("norn plan --destroy --stage prod --out FILE").says("norn apply FILE");
    // Without the values, which are not there to tear down.
    let mut story = Story::default();
    story.tell("plan", &sandbox.norn("plan --destroy --stage prod --out ../end.norn").ok());
    assert_eq!(get(port, "/").as_deref(), Ok("Hi one"));
    // What moved since is not torn down unseen.
    let stale = sandbox.read("../end.norn");
    with("plan --stage prod --redeploy hello --out ../plan.norn").ok();
    with("apply ../plan.norn").ok();
    sandbox.norn("apply ../end.norn").exits(5).one_error();
    sandbox.write("../stale.norn", &stale.replace(",\"destroy\":true", ""));
    with("apply ../stale.norn").exits(1).one_error().says("its seal is broken");
    sandbox.norn("plan --destroy --stage prod --out ../end.norn").ok();
    story.tell("apply", &sandbox.norn("apply ../end.norn").ok());
    assert!(get(port, "/").is_err());
    story.tell("apply again", &sandbox.norn("apply ../end.norn").ok());
    story.check("saved-destroy", port);
}

#[test]
fn a_locked_stage_has_no_plan_to_destroy_it() {
    let sandbox = Sandbox::hello(free_port());
    let spec = sandbox.read("infraspec.yaml");
    sandbox
        .write("infraspec.yaml", &format!("{spec}stages: {{prod: {{locked: true}}}}\ndefaultStage: prod\n"));
    sandbox.norn("plan --destroy --out ../end.norn").exits(1).one_error().says("stage `prod` is locked");
    assert!(!sandbox.path("../end.norn").exists());
}

#[test]
fn what_cannot_be_applied_is_refused_in_a_file_too() {
    let port = free_port();
    let sandbox = Sandbox::hello(port);
    sandbox.hello_with(port, "protected: true\n");
    sandbox.norn("apply --yes").ok();
    sandbox.edit("infraspec.yaml", "  hello:", "  bonjour:");
    sandbox.norn("plan --out ../plan.norn").ok();
    let refused = sandbox.norn("apply ../plan.norn").exits(1);
    refused.one_error().says("forge/hello").says("norn plan --exclude");
    assert_eq!(get(port, "/").as_deref(), Ok("one"));
}

#[test]
fn who_planned_cannot_be_asked_whether_the_spec_is_good() {
    let port = free_port();
    let sandbox = Sandbox::hello(port);
    sandbox.hello_with(port, "env: {GREETING: \"${WORD}\"}\n");
    sandbox.norn("plan --out ../plan.norn").env("WORD", "Hi").ok();
    // A value that is not set at all is an error like any other.
    sandbox.norn("apply ../plan.norn").exits(1).one_error().says("WORD");
    assert!(get(port, "/").is_err());
    sandbox.norn("apply ../plan.norn").env("WORD", "Hi").ok();
    assert_eq!(get(port, "/").as_deref(), Ok("Hi one"));
}

#[test]
fn a_source_that_changed_is_refused_before_anything_starts() {
    let port = free_port();
    let sandbox = Sandbox::hello(port);
    let mut spec = sandbox.read("infraspec.yaml");
    let mended = format!("test -e {}", sandbox.folder().join("mended").display());
    for (name, build) in [("first", "true"), ("second", &mended), ("third", "true")] {
        sandbox.write(&format!("{name}/file"), "one");
        spec += &format!(
            "  {name}:\n    role: worker\n    path: ./{name}\n    command: exec tail -f /dev/null\n    \
             healthcheck: {{command: 'true'}}\n    build: {{command: {build}}}\n"
        );
    }
    sandbox.write("infraspec.yaml", &spec);
    sandbox.norn("plan --out ../plan.norn").ok();
    sandbox.write("greeting.txt", "two");
    sandbox.write("third/file", "two");
    let refused = sandbox.norn("apply ../plan.norn").exits(5);
    refused.one_error().says("local sources are not as planned");
    let line = |app: &str| {
        let found = refused.err.lines().find(|line| line.trim_start().starts_with(app)).map(str::to_owned);
        found.unwrap_or_else(|| panic!("nothing is said of {app}: {}", refused.all()))
    };
    for (app, folder) in [("hello:", "project"), ("third:", "third")] {
        let line = line(app);
        assert!(line.contains(folder) && line.matches("local:").count() == 2, "{line}");
    }
    assert!(!refused.err.contains("first:") && !refused.err.contains("second:"), "{}", refused.all());
    assert!(!sandbox.path(".norn/releases").exists(), "nothing was begun");
    let history = sandbox.norn("history --json").ok().json();
    assert_eq!(history["deployments"], serde_json::json!([]));

    // What the plan did already is not built of its source again, whatever became of that.
    sandbox.write("greeting.txt", "one");
    sandbox.write("third/file", "one");
    sandbox.norn("apply ../plan.norn").exits(3).says("deploy/second build: FAILED");
    sandbox.write("first/file", "two");
    sandbox.write("../mended", "");
    fs::rename(sandbox.path("second"), sandbox.path("aside")).expect("it is there");
    let gone = sandbox.norn("apply ../plan.norn").exits(5);
    gone.one_error().says("second: there is no folder");
    fs::rename(sandbox.path("aside"), sandbox.path("second")).expect("it is there");
    sandbox.norn("apply ../plan.norn").ok();
}

#[test]
fn a_plan_may_be_saved_where_no_state_is() {
    let sandbox = Sandbox::hello(free_port());
    sandbox.norn("plan").ok();
    assert!(!sandbox.path(".norn").exists());
    sandbox.norn("plan --out ../plan.norn").ok();
    assert!(sandbox.path(".norn/state.db").exists(), "it holds the key of the seal");
    sandbox.norn("plan").ok().prints("(0 resources)");
    sandbox.norn("status").ok();
    sandbox.norn("show ../plan.norn --quiet").ok().prints("(0 resources)");
}

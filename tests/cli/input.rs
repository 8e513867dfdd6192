//! What norn is given and cannot use: one clear error, and nothing is lost.

use crate::sandbox::{Sandbox, free_port};
use crate::snapshot;

#[test]
fn a_spec_that_cannot_be_read_is_one_error() {
    let sandbox = Sandbox::new();
    let deep = (0..200).map(|level| format!("{}a:\n", " ".repeat(level))).collect::<String>();
    let bomb = "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: &f [*e,*e,*e,*e,*e,*e,*e,*e,*e]\ng: [*f,*f,*f,*f,*f,*f,*f,*f,*f]\n";
    let large = "# a long comment, over and over\n".repeat(1_600_000);
    let cases: [(&str, &[u8]); 9] = [
        ("empty", b""),
        ("a list", b"- web\n- api\n"),
        ("not YAML", b"app: [web\nport: 80\n"),
        ("not UTF-8", b"app: \xff\xfe\n"),
        ("NUL bytes", b"app: we\0b\n"),
        ("an alias bomb", bomb.as_bytes()),
        ("200 levels", deep.as_bytes()),
        ("50 MB", large.as_bytes()),
        ("a key twice", b"app: web\ncommand: a\ncommand: b\n"),
    ];
    let mut text = String::new();
    for (name, bytes) in cases {
        std::fs::write(sandbox.path("infraspec.yaml"), bytes).expect("the spec is written");
        let begun = std::time::Instant::now();
        let ran = sandbox.norn("plan").exits(1);
        ran.one_error();
        assert!(begun.elapsed().as_secs() < 10, "{name} takes too long");
        text += &format!("=== {name}\n{}", ran.redacted());
    }
    snapshot::check("unreadable", &text);
    assert!(!sandbox.path(".norn").exists());
}

#[test]
fn a_project_without_apps_is_an_error() {
    let sandbox = Sandbox::new();
    sandbox.write("infraspec.yaml", "version: 1\nproject: shop\n");
    sandbox.norn("plan").exits(1).one_error().says("apps");
    sandbox.write("infraspec.yaml", "version: 1\nproject: shop\napps: {}\n");
    sandbox.norn("plan").exits(1).one_error().says("apps");
}

#[test]
fn a_spec_that_is_not_there_is_an_error_with_a_way_on() {
    let sandbox = Sandbox::new();
    let folder = sandbox.path("");
    for line in ["plan", "apply --yes", "status", "history", "logs web", "destroy --yes", "validate", "spec"]
    {
        sandbox.norn(line).exits(1).one_error().says("there is no infraspec.yaml").says("norn init");
    }
    sandbox.norn("plan -f nowhere.yaml").exits(1).one_error().says("nowhere.yaml");
    sandbox.norn("plan -f").arg(folder).exits(1).one_error().says("there is no infraspec.yaml");
}

#[test]
fn an_included_pipe_is_not_waited_for() {
    let sandbox = Sandbox::new();
    sandbox.write("infraspec.yaml", "version: 1\nproject: shop\ninclude: [apps/*.yaml]\n");
    std::fs::create_dir(sandbox.path("apps")).expect("the folder is made");
    let made = std::process::Command::new("mkfifo").arg(sandbox.path("apps/web.yaml")).status();
    assert!(made.expect("mkfifo runs").success());
    sandbox.norn("plan").exits(1).says("apps/web.yaml cannot be read: it is no file");
}

#[test]
fn a_part_of_a_project_is_no_root() {
    let sandbox = Sandbox::hello(free_port());
    sandbox.write("infraspec.yaml", "version: 1\nproject: shop\ninclude: [services/*/infraspec.yaml]\n");
    sandbox.write("services/web/infraspec.yaml", "app: web\ncommand: sleep 1\nrole: worker\n");
    for line in ["plan -f services/web", "apply --yes -f services/web/infraspec.yaml"] {
        sandbox.norn(line).exits(1).one_error().says("is a part of the project").says("--target web");
    }
    let folder = sandbox.path("services/web");
    sandbox.norn("status").within(&folder).exits(1).one_error().says("is a part of the project");
}

#[test]
fn every_variable_that_is_missing_is_told_at_once() {
    let sandbox = Sandbox::hello(free_port());
    let spec = sandbox.read("infraspec.yaml");
    let more = "    secrets: [STRIPE_KEY, SMTP_PASSWORD]\n    env: {URL: \"${DATABASE_URL}\", HOST: \"${HOST_NAME:?who are we}\"}\n";
    sandbox.write("infraspec.yaml", &format!("{spec}{more}"));
    let ran = sandbox.norn("apply --yes").exits(1);
    ran.one_error();
    snapshot::check(
        "missing-variables",
        &ran.redacted().replace(&format!("port: {}", spec_port(&spec)), "port: <port>"),
    );
    assert!(!sandbox.path(".norn").exists());

    sandbox.write("../vars.env", "# for tests\nexport STRIPE_KEY='sk_12345678'\nSMTP_PASSWORD=\"geheimwort\"\nDATABASE_URL=x\nHOST_NAME=y\n");
    sandbox.norn("plan --env-file ../vars.env").ok();
    let clean = sandbox.norn("plan --env-file ../vars.env").ok();
    assert!(!clean.all().contains("geheimwort"), "{}", clean.all());
    // The environment is stronger than a file, and a variable that is empty is set.
    sandbox.norn("plan --env-file ../vars.env").env("DATABASE_URL", "").ok();
}

fn spec_port(spec: &str) -> &str {
    spec.split_once("port: ").expect("a port").1.lines().next().expect("a line")
}

#[test]
fn a_file_of_variables_that_cannot_be_used_is_an_error() {
    let sandbox = Sandbox::hello(free_port());
    sandbox.norn("plan --env-file nowhere.env").exits(1).one_error().says("nowhere.env cannot be read");
    sandbox.write("../a.env", "A=1\nthis is no line of it\n");
    sandbox.norn("plan --env-file ../a.env").exits(1).one_error().says("a.env:2 is no NAME=value line");
    sandbox.write("../b.env", "A B=1\n");
    sandbox.norn("plan --env-file ../b.env").exits(1).one_error().says("b.env:1").says("A B");
    sandbox.write("../c.env", "KEY=\"begins and does not end\n");
    sandbox.norn("plan --env-file ../c.env").exits(1).one_error().says("c.env:1");
    std::fs::write(sandbox.path("../d.env"), b"A=\xff\n").expect("the file is written");
    sandbox.norn("plan --env-file ../d.env").exits(1).one_error().says("d.env");
    sandbox.norn("plan --env-file .").exits(1).one_error();
}

#[test]
fn secrets_too_short_to_find_in_logs_are_a_warning() {
    let sandbox = Sandbox::hello(free_port());
    let spec = sandbox.read("infraspec.yaml");
    sandbox.write("infraspec.yaml", &format!("{spec}    secrets: [PIN]\n"));
    let ran = sandbox.norn("apply --yes").env("PIN", "1234").ok();
    ran.says("warning: PIN of app `hello` has fewer than 8 bytes");
}

#[test]
fn fields_for_later_are_one_warning() {
    let sandbox = Sandbox::hello(free_port());
    let spec = sandbox.read("infraspec.yaml");
    sandbox.write(
        "infraspec.yaml",
        &format!("{spec}  nightly:\n    role: cron\n    command: ./run\n    schedule: \"0 3 * * *\"\n"),
    );
    let ran = sandbox.norn("plan").ok();
    ran.says("nightly").prints("deploy/hello");
    assert!(!ran.out.contains("deploy/nightly"), "{}", ran.all());
}

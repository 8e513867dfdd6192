//! norn's runtime docker as its user meets it: the binary, a spec, and what the engine then has.

mod away;
mod checks;
mod classic;
mod context;
mod crash;
mod deploys;
mod health;
mod pulled;
mod push;
mod remote;
#[cfg(feature = "failpoints")]
pub mod struck;
mod tls;
mod twice;
mod volumes;

use std::ops::Deref;
use std::sync::{Mutex, PoisonError};

use crate::engine::Engine;
use crate::sandbox::{Ran, Sandbox, get, until};
use crate::shared::free_port;

const WHAT: &str = "norn on a Docker engine";
const BASE: &str = "norn-base:1";

/// Answers every request with what it was built and started with. One connection is one shell.
const SERVE: &str = r#"if [ "$1" != one ]; then
    trap 'exit 0' TERM
    echo "starts $VERSION"
    nc -ll -p "$PORT" -e sh /serve one &
    wait
    exit
fi
over=
while read -r line; do
    line=${line%?}
    [ "$line" = "Connection: close" ] && over=1
    [ -n "$line" ] && continue
    body="$VERSION $COLOUR $(cat /release)"
    printf 'HTTP/1.1 200 OK\r\nContent-Length: %s\r\n\r\n%s' ${#body} "$body"
    [ -n "$over" ] && exit
done
"#;

const DOCKERFILE: &str = "FROM norn-base:1
ARG COLOUR=grey
ENV COLOUR=$COLOUR
COPY serve release /
CMD [\"sh\", \"/serve\"]
";

/// A project of its own name on an engine, where others are at work too.
struct Shop<'a> {
    engine: &'a Engine,
    sandbox: Sandbox,
    project: String,
    /// Where its webserver is reached.
    port: u16,
}

impl Deref for Shop<'_> {
    type Target = Sandbox;

    fn deref(&self) -> &Sandbox {
        &self.sandbox
    }
}

impl Shop<'static> {
    /// None where there is no engine.
    fn new() -> Option<Self> {
        Engine::shared(WHAT).map(Shop::on)
    }
}

impl<'a> Shop<'a> {
    fn on(engine: &'a Engine) -> Self {
        static BUILDING: Mutex<()> = Mutex::new(());
        let building = BUILDING.lock().unwrap_or_else(PoisonError::into_inner);
        if engine.docker(&format!("image inspect {BASE}")).is_err() {
            engine.build_base(BASE);
        }
        drop(building);
        let mut sandbox = Sandbox::new();
        sandbox.env.extend(engine.env().into_iter().map(|(name, value)| (name.to_owned(), value)));
        let id = uuid::Uuid::new_v4().simple().to_string();
        let project = format!("shop-{}", &id[..8]);
        let shop = Self { engine, sandbox, project, port: free_port() };
        shop.write("web/Dockerfile", DOCKERFILE);
        shop.write("web/serve", SERVE);
        shop.write("web/release", "one");
        shop
    }

    /// Writes the spec of the apps, in YAML, indented by two.
    fn apps(&self, apps: &str) {
        let text = format!("version: 1\nproject: {}\nruntime: docker\napps:\n{apps}", self.project);
        self.write("infraspec.yaml", &text);
    }

    /// One webserver `web`, of which `more` says more, a line a field.
    fn web(&self, more: &str) {
        let more: String = more.lines().map(|line| format!("    {line}\n")).collect();
        let health = if more.contains("healthcheck:") {
            ""
        } else {
            "    healthcheck: {path: /, interval: 1s, startup: 20s}\n"
        };
        self.apps(&format!(
            "  web:\n    role: webserver\n    path: ./web\n    port: {}\n    rollout: {{drain: 4s}}\n{health}{more}",
            self.port
        ));
    }

    /// What the webserver answers.
    fn get(&self) -> std::io::Result<String> {
        get(self.port, "/")
    }

    /// What the engine has with this project's label: `ps --all` or `images`.
    fn of_engine(&self, list: &str, format: &str) -> Vec<String> {
        let filter = format!("label=dev.norn.project={}", self.project);
        let mut command = self.engine.command(&format!("{list} --filter {filter} --format"));
        let output = command.arg(format).output().expect("docker runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let mut lines: Vec<String> =
            String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect();
        lines.sort();
        lines
    }

    fn containers(&self) -> Vec<String> {
        self.of_engine("ps --all", "{{.ID}}")
    }

    fn images(&self) -> Vec<String> {
        self.of_engine("images", "{{.Repository}}:{{.Tag}}")
    }

    fn inspect(&self, container: &str, what: &str) -> String {
        let mut command = self.engine.command(&format!("inspect {container} --format"));
        crate::world::run(command.arg(format!("{{{{{what}}}}}"))).expect("it is there")
    }

    fn destroy(&self) {
        self.ok(&format!("destroy --yes --confirm {}", self.project));
    }

    /// An apply that fails, if a definition alone was stored in part, and leaves so much.
    fn apply_fails(&self, containers: usize, images: usize) -> Ran {
        let ran = self.run("apply --yes");
        assert!([1, 3].contains(&ran.code), "{}: {}", ran.code, ran.err);
        self.comes_to(containers, images);
        ran
    }

    /// What is left once all that ends has ended.
    fn comes_to(&self, containers: usize, images: usize) {
        until(&format!("{containers} containers are left, not {:?}", self.containers()), || {
            self.containers().len() == containers
        });
        until(&format!("{images} images are left, not {:?}", self.images()), || {
            self.images().len() == images
        });
    }
}

fn has(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "`{word}` is not in:\n{text}");
    }
}

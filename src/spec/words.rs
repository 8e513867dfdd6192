//! The words of other tools, and norn's own for the same thing.
//!
//! Keys are looked up with the part of a spec that they stand in. A word is folded: lowercase,
//! without `_` and `-`.

/// What the key of another tool is called here, as the help of an unknown key. `part` is
/// `project`, `app`, or the key of the map that holds the word, such as `build`.
pub fn known_elsewhere(part: &str, word: &str) -> Option<&'static str> {
    let word = fold(word);
    let words = KEYS.iter().find(|(name, _)| *name == part).map(|(_, words)| *words)?;
    words.iter().find(|(other, _)| *other == word).map(|(_, mend)| *mend)
}

/// What a value of another tool is called here.
pub fn value_elsewhere(field: &str, value: &str) -> Option<&'static str> {
    let value = fold(value);
    VALUES
        .iter()
        .find(|(name, _, theirs)| *name == field && theirs.contains(&value.as_str()))
        .map(|(_, here, _)| *here)
}

fn fold(word: &str) -> String {
    word.chars().filter(|c| *c != '_' && *c != '-').flat_map(char::to_lowercase).collect()
}

type Words = &'static [(&'static str, &'static str)];

const KEYS: &[(&str, Words)] = &[
    ("project", PROJECT),
    ("app", APP),
    ("build", BUILD),
    ("repo", REPO),
    ("healthcheck", HEALTHCHECK),
    ("services", SERVICES),
    ("postgres", POSTGRES),
    ("database", DATABASE_OF_APP),
    ("state", STATE),
    ("secret", SECRET),
    ("hosts", HOSTS),
    ("rollout", ROLLOUT),
    ("volume", VOLUME),
    ("migrations", MIGRATIONS),
    ("front", FRONT),
    ("cloudflare", CLOUDFLARE),
];

const AN_APP_IS_A_KEY: &str = "every app is a key under `apps`, such as `apps: {web: {role: webserver}}`";
const STAGES: &str = "they are called `stages` here";
const NO_SERVERS: &str = "norn does not manage servers yet; apps run where norn runs";
const COMMAND: &str = "it is called `command` here";
const REPLICAS: &str = "it is called `replicas` here";
const ENV: &str = "it is called `env` here";
const DEPENDS: &str = "it is called `dependsOn` here";
const WORK_FOLDER: &str = "the code's folder is `path`; commands start in it";
const SOURCE: &str = "a local folder is `path`, a git repository is `repo`";
const MIGRATION: &str = "it is `migrations.command` here";
const EXTERNAL: &str = "it is called `hosts.external` here";
const RESTART: &str = "norn restarts what crashes by itself: take it out";
const NO_LIMITS: &str = "what a replica may use is `resources: {cpu: 500m, memory: 256Mi}`";
const NO_IMAGE: &str = "an image that is pulled is the app's `image`";
const AS_USER: &str = "apps run as the user who runs norn: take it out";
const COMMENT: &str = "norn keeps no notes on it: write it as a comment behind `#`";
const NETWORK: &str = "apps on one machine reach each other as ${apps.NAME.url}: take it out";
const DATABASE: &str = "an app's database is `services.postgres.database`";

const PROJECT: Words = &[
    ("apiversion", "it is called `version` here"),
    ("application", AN_APP_IS_A_KEY),
    ("applications", "the apps stand under `apps`"),
    ("backend", "where norn keeps what it knows is `state.path`"),
    ("cluster", NO_SERVERS),
    ("containers", "the apps stand under `apps`"),
    ("database", DATABASE),
    ("databases", DATABASE),
    ("deployments", "the apps stand under `apps`"),
    ("environments", STAGES),
    ("envs", STAGES),
    ("extends", "what apps share is `defaults`; files in the app form are named by `include`"),
    ("imports", "it is called `include` here"),
    ("jobs", "the apps stand under `apps`; a job with a schedule has `role: cron`"),
    ("kind", "a spec has no kind: take it out"),
    ("metadata", "the project's name is `project`, an app's is its key under `apps`"),
    ("modules", "files in the app form are named by `include`"),
    ("name", "the project's name is `project`, an app's is its key under `apps`"),
    ("networks", NETWORK),
    ("nodes", NO_SERVERS),
    ("processes", AN_APP_IS_A_KEY),
    ("profiles", STAGES),
    ("provider", NO_SERVERS),
    ("providers", NO_SERVERS),
    ("resources", "the apps stand under `apps`"),
    ("servers", NO_SERVERS),
    ("service", "the apps stand under `apps`"),
    ("services", "the apps stand under `apps`; what an app uses is its own `services`"),
    ("spec", "the apps stand under `apps` at the top of the file"),
    ("store", "where norn keeps what it knows is `state.path`"),
    ("variables", "refer to norn's environment as ${NAME}; an app's own variables are its `env`"),
    ("vars", "refer to norn's environment as ${NAME}; an app's own variables are its `env`"),
    ("volume", "an app's folders are its `volumes`"),
    ("workers", "the apps stand under `apps`; a worker has `role: worker`"),
    ("workspaces", STAGES),
];

const APP: Words = &[
    ("after", DEPENDS),
    ("annotations", COMMENT),
    ("apiversion", "an app has no version of its format: take it out"),
    ("args", "its arguments belong to `command`"),
    ("autorollback", "norn keeps the old release until the new one is healthy: take it out"),
    ("autoscaling", "it is a fixed number here: `replicas`"),
    ("bind", "it is `front.bind` here"),
    ("buildcommand", "it is `build.command` here"),
    ("capadd", AS_USER),
    ("buildpack", "what makes a release is `build.command`"),
    ("cmd", COMMAND),
    ("containername", "an app's name is its key under `apps`"),
    ("containerport", "it is called `port` here"),
    ("containers", "each is an app of its own under `apps`"),
    ("count", REPLICAS),
    ("cpu", NO_LIMITS),
    ("cpus", NO_LIMITS),
    ("cron", "the role is `cron`, the expression goes to `schedule`"),
    ("cronexpression", "it is called `schedule` here"),
    ("cwd", WORK_FOLDER),
    ("database", DATABASE),
    ("databases", DATABASE),
    ("db", DATABASE),
    ("dependencies", DEPENDS),
    ("deps", DEPENDS),
    ("description", COMMENT),
    ("dir", "it is called `path` here"),
    ("directory", "it is called `path` here"),
    ("disabled", "`deploy: false` leaves an app as it is, `replicas: 0` stops it"),
    ("domain", EXTERNAL),
    ("domains", EXTERNAL),
    ("enabled", "`deploy: false` leaves an app as it is, `replicas: 0` stops it"),
    ("endpoints", EXTERNAL),
    ("entrypoint", "how the app starts is `command`"),
    ("environment", ENV),
    ("environmentvariables", ENV),
    ("envfile", "give norn `--env-file FILE` and refer to a value as ${NAME}"),
    ("envfrom", "name the values under `secrets`, or refer to them in `env` as ${NAME}"),
    ("envs", ENV),
    ("envvars", ENV),
    ("exec", COMMAND),
    ("expose", "it is called `port` here"),
    ("folder", "it is called `path` here"),
    ("formation", REPLICAS),
    ("git", "it is called `repo` here"),
    ("health", "it is called `healthcheck` here"),
    ("healthcheckpath", "it is called `healthcheck` here"),
    ("host", EXTERNAL),
    ("hostname", "it is called `hosts.internal` here"),
    ("hooks", "what runs before a release goes live is `migrations.command`"),
    ("httpport", "it is called `port` here"),
    ("httpservice", "clients reach a webserver at `port`"),
    ("infrastructure", "what an app uses is its `services`"),
    ("ingress", EXTERNAL),
    ("instances", REPLICAS),
    ("interval", "it is `healthcheck.interval` here; a cron app has a `schedule`"),
    ("internalport", "it is called `port` here: the app itself listens on $PORT"),
    ("keep", "it is `artifacts.retain` here"),
    ("kind", "it is called `role` here"),
    ("labels", COMMENT),
    ("links", NETWORK),
    ("listen", "where clients reach it is `port`, the address is `front.bind`"),
    ("livenessprobe", "it is `healthcheck.live` here"),
    ("log", "norn keeps the output itself: take it out"),
    ("logging", "norn keeps the output itself: take it out"),
    ("logs", "norn keeps the output itself: take it out"),
    ("machines", REPLICAS),
    ("memory", NO_LIMITS),
    ("metadata", "an app's name is its key under `apps`"),
    ("migrate", MIGRATION),
    ("migrationcommand", MIGRATION),
    ("minmachines", REPLICAS),
    ("minmachinesrunning", REPLICAS),
    ("mounts", "it is called `volumes` here"),
    ("name", "an app's name is its key under `apps`, in the app form it is `app`"),
    ("network", NETWORK),
    ("networks", NETWORK),
    ("ports", "an app has one `port` here; the app itself listens on $PORT"),
    ("postdeploy", "norn runs nothing after a release; what runs before is `migrations.command`"),
    ("predeploy", MIGRATION),
    ("predeploycommand", MIGRATION),
    ("privileged", AS_USER),
    ("process", "the program is `command`; `runtime: process` runs it"),
    ("processes", "each process is an app of its own under `apps`"),
    ("procfile", "each of its lines is an app of its own under `apps`, with `command`"),
    ("program", COMMAND),
    ("proxy", "norn's own is `front`"),
    ("readinessprobe", "it is `healthcheck.path` here"),
    ("region", NO_SERVERS),
    ("regions", NO_SERVERS),
    ("releasecommand", "what runs before a release goes live is `migrations.command`"),
    ("repository", "it is called `repo.url` here"),
    ("requires", DEPENDS),
    ("restart", RESTART),
    ("restartpolicy", RESTART),
    ("retention", "it is `artifacts.retain` here"),
    ("root", "it is called `path` here"),
    ("rootdir", "it is called `path` here"),
    ("run", COMMAND),
    ("runcommand", COMMAND),
    ("scale", REPLICAS),
    ("script", COMMAND),
    ("secretrefs", "it is called `secrets` here"),
    ("selector", "norn finds an app by its name: take it out"),
    ("shell", "a `command` that is text goes through `sh -c`"),
    ("size", NO_LIMITS),
    ("source", SOURCE),
    ("sourcedir", "it is called `path` here"),
    ("spec", "its fields stand directly under the app's name"),
    ("src", SOURCE),
    ("start", COMMAND),
    ("startcommand", COMMAND),
    ("startupprobe", "it is `healthcheck.startup` here"),
    ("strategy", "how a release takes over is `rollout`"),
    ("tags", COMMENT),
    ("testcommand", "it is `build.test` here"),
    ("tests", "it is `build.test` here"),
    ("title", COMMENT),
    ("tz", "it is called `timezone` here"),
    ("type", "it is called `role` here"),
    ("url", "a repository's is `repo.url`, the app's own is `hosts.external`"),
    ("user", AS_USER),
    ("variables", ENV),
    ("vars", ENV),
    ("volumemounts", "it is called `volumes` here"),
    ("waitfor", DEPENDS),
    ("workdir", WORK_FOLDER),
    ("workingdir", WORK_FOLDER),
    ("workingdirectory", WORK_FOLDER),
];

const BUILD: Words = &[
    ("cmd", COMMAND),
    ("commands", "it is one `command` here, with `&&` between its parts"),
    ("docker", "a Dockerfile is named by `dockerfile`"),
    ("exclude", "it is called `ignore` here"),
    ("image", NO_IMAGE),
    ("make", "write `command: make`"),
    ("output", "the release is the whole folder after the build"),
    ("run", COMMAND),
    ("script", COMMAND),
    ("steps", "it is one `command` here, with `&&` between its parts"),
];

const REPO: Words = &[
    ("commit", "it is called `ref` here"),
    ("depth", "norn fetches what it needs: take it out"),
    ("dir", "it is called `path` here"),
    ("directory", "it is called `path` here"),
    ("folder", "it is called `path` here"),
    ("git", "it is called `url` here"),
    ("password", "git's own credentials are used: take it out"),
    ("rev", "it is called `ref` here"),
    ("revision", "it is called `ref` here"),
    ("sha", "it is called `ref` here"),
    ("source", "it is called `url` here"),
    ("sshkey", "git's own credentials are used: take it out"),
    ("submodules", "norn clones submodules as git does: take it out"),
    ("subdir", "it is called `path` here"),
    ("tag", "it is called `ref` here"),
    ("token", "git's own credentials are used: take it out"),
    ("version", "it is called `ref` here"),
];

const HEALTHCHECK: Words = &[
    ("cmd", COMMAND),
    ("delay", "it is called `startup` here: how long the app may take to become healthy"),
    ("endpoint", "it is called `path` here"),
    ("exec", COMMAND),
    ("graceperiod", "it is called `startup` here: how long the app may take to become healthy"),
    ("httpget", "it is called `path` here"),
    ("initialdelayseconds", "it is called `startup` here: how long the app may take to become healthy"),
    ("liveness", "it is called `live` here"),
    ("period", "it is called `interval` here"),
    ("periodseconds", "it is called `interval` here"),
    ("port", "the app's own port is asked: take it out"),
    ("readiness", "it is called `path` here"),
    ("retries", "an app has until `startup` to become healthy: take it out"),
    ("startperiod", "it is called `startup` here: how long the app may take to become healthy"),
    ("test", COMMAND),
    ("uri", "it is called `path` here"),
    ("url", "it is called `path` here: the part behind host and port"),
];

const SERVICES: Words = &[
    ("bucket", "it is `storage.bucket` here"),
    ("cache", "it is called `kv` here"),
    ("database", "it is `postgres.database` here"),
    ("db", "it is `postgres.database` here"),
    ("kafka", "it is called `events` here"),
    ("mysql", "norn looks after PostgreSQL databases only; give the app a URL in `secrets`"),
    ("minio", "it is called `storage` here"),
    ("pg", "it is called `postgres` here"),
    ("postgresql", "it is called `postgres` here"),
    ("queue", "it is called `events` here"),
    ("redis", "it is called `kv` here"),
    ("redpanda", "it is called `events` here"),
    ("s3", "it is called `storage` here"),
    ("valkey", "it is called `kv` here"),
];

const SERVER_URL: &str = "it is a part of `url`: postgres://user:password@host:port";
const POSTGRES: Words = &[
    ("database", "an app's database is `services.postgres.database`; `url` is the server's"),
    ("db", "an app's database is `services.postgres.database`; `url` is the server's"),
    ("host", SERVER_URL),
    ("password", SERVER_URL),
    ("port", SERVER_URL),
    ("server", SERVER_URL),
    ("user", SERVER_URL),
    ("username", SERVER_URL),
];

const OF_SERVER: &str = "the server is the project's: `postgres: {url: ..}` at the top of the file";
const DATABASE_OF_APP: Words = &[
    ("db", "it is called `database` here"),
    ("host", OF_SERVER),
    ("name", "it is called `database` here"),
    ("password", OF_SERVER),
    ("port", OF_SERVER),
    ("url", OF_SERVER),
    ("user", OF_SERVER),
    ("username", OF_SERVER),
    ("version", OF_SERVER),
];

const STATE: Words = &[
    (
        "backend",
        "norn keeps it in a PostgreSQL database, which is `url`, or in a SQLite file, which is `path`",
    ),
    ("dir", "it is called `path` here, and is a file"),
    ("directory", "it is called `path` here, and is a file"),
    ("file", "it is called `path` here"),
    ("location", "it is called `path` here"),
    ("type", "norn keeps it in a PostgreSQL database, which is `url`, or in a SQLite file, which is `path`"),
];

const SECRET: Words = &[
    ("default", "a secret has no value in the spec; what may be absent is `required: false`"),
    ("from", "norn takes it from the variable of its own name: take it out"),
    ("kind", "it is called `type` here"),
    ("optional", "write `required: false`"),
    ("value", "a secret has no value in the spec; norn takes it from its environment"),
];

const HOSTS: Words = &[
    ("domain", "it is called `external` here"),
    ("public", "it is called `external` here"),
    ("private", "it is called `internal` here"),
];

const ROLLOUT: Words = &[
    ("deadline", "it is called `timeout` here"),
    ("graceperiod", "it is called `drain` here"),
    ("maxsurge", "norn starts every new replica beside the old ones: take it out"),
    ("maxunavailable", "norn keeps the old replicas until the new ones are healthy: take it out"),
    ("strategy", "norn starts the new release beside the old one: take it out"),
    ("terminationgraceperiod", "it is called `drain` here"),
    ("type", "norn starts the new release beside the old one: take it out"),
];

const VOLUME: Words = &[
    ("destination", "it is called `mountPath` here"),
    ("mount", "it is called `mountPath` here"),
    ("path", "it is called `mountPath` here"),
    ("source", "a folder of the host is `hostPath`"),
    ("target", "it is called `mountPath` here"),
];

const MIGRATIONS: Words = &[
    ("cmd", COMMAND),
    ("db", "it is called `database` here"),
    ("path", "norn runs a `command`, which finds the files itself"),
    ("run", COMMAND),
];

const FRONT: Words = &[
    ("address", "it is called `bind` here"),
    ("host", "it is called `bind` here, and is an IP address"),
    ("listen", "it is called `bind` here"),
    ("port", "it is the app's own `port`"),
];

const CLOUDFLARE: Words = &[
    ("apikey", "it is called `token` here"),
    ("apitoken", "it is called `token` here"),
    ("domain", "it is called `zone` here"),
    ("tunnelid", "it is called `tunnel` here"),
    ("zoneid", "norn looks it up by the zone's name: write `zone: example.com`"),
];

/// A field, a value of it, and what other tools call that.
const VALUES: &[(&str, &str, &[&str])] = &[
    (
        "role",
        "webserver",
        &["web", "http", "https", "server", "service", "site", "api", "app", "frontend", "backend"],
    ),
    ("role", "worker", &["background", "bg", "consumer", "daemon", "process", "queue"]),
    ("role", "cron", &["cronjob", "job", "periodic", "schedule", "scheduled", "task", "timer"]),
    ("role", "function", &["faas", "lambda", "serverless"]),
    ("runtime", "process", &["bare", "exec", "host", "local", "native", "raw", "systemd"]),
    ("runtime", "docker", &["compose", "container", "containerd", "image", "oci", "podman"]),
    ("runtime", "kubernetes", &["k3s", "k8s", "kube", "kubectl", "openshift"]),
    ("overlap", "skip", &["deny", "forbid", "never", "no"]),
    ("overlap", "allow", &["always", "parallel", "yes"]),
    ("overlap", "replace", &["cancel", "kill", "restart"]),
    ("type", "api_key", &["apikey", "key", "token"]),
    ("type", "connection_string", &["connectionstring", "dsn", "uri", "url"]),
    ("type", "string", &["plain", "text"]),
];

/// How a field is written, as an example. `field` may be named with the map it is in.
pub fn example(part: &str, field: &str) -> Option<&'static str> {
    let full = format!("{part}.{field}");
    let find = |name: &str| EXAMPLES.iter().find(|(other, _)| *other == name).map(|(_, example)| *example);
    find(&full).or_else(|| find(field))
}

const EXAMPLES: Words = &[
    ("alerts", "alerts: {window: 5m, threshold: 3}"),
    ("app", "app: web"),
    ("apps", "apps: {web: {role: webserver, port: 8080, command: ./server}}"),
    ("artifacts", "artifacts: {retain: 5}"),
    ("build", "build: {command: make}"),
    ("cache", "cache: [target]"),
    ("cloudflare", "cloudflare: {zone: example.com, tunnel: TUNNEL_ID, token: \"${CLOUDFLARE_API_TOKEN}\"}"),
    ("command", "command: ./server"),
    ("concurrency", "concurrency: 4"),
    ("database", "database: shop"),
    ("defaults", "defaults: {env: {LOG: info}}"),
    ("dependsOn", "dependsOn: [api]"),
    ("env", "env: {LOG: info}"),
    ("events", "events: {topics: [orders]}"),
    ("front", "front: {bind: 0.0.0.0}"),
    ("function", "function: {timeout: 30s, memory: 256m}"),
    ("healthcheck", "healthcheck: /healthz"),
    ("hosts", "hosts: {external: shop.example.com}"),
    ("ignore", "ignore: [uploads]"),
    ("include", "include: [\"apps/*/infraspec.yaml\"]"),
    ("kv", "kv: {namespace: shop}"),
    ("migrations", "migrations: {command: ./migrate}"),
    ("migrations.command", "command: ./migrate"),
    ("namespace", "namespace: shop"),
    ("port", "port: 8080"),
    ("postgres", "postgres: {url: \"${PG_ADMIN_URL}\"}"),
    ("postgres.url", "url: \"${PG_ADMIN_URL}\""),
    ("project", "project: shop"),
    ("replicas", "replicas: 2"),
    ("repo", "repo: {url: https://example.com/shop.git, branch: main}"),
    ("repo.url", "url: https://example.com/shop.git"),
    ("retain", "retain: 5"),
    ("role", "role: webserver"),
    ("rollout", "rollout: {timeout: 10m, drain: 30s}"),
    ("secrets", "secrets: [API_KEY]"),
    ("services", "services: {postgres: {database: shop}}"),
    ("services.postgres", "postgres: {database: shop}"),
    ("stages", "stages: {dev: {}, prod: {protected: true}}"),
    ("state", "state: {path: .norn/state.db}"),
    ("state.path", "path: .norn/state.db"),
    ("storage", "storage: {bucket: shop}"),
    ("target", "target: {worker: any}"),
    ("threshold", "threshold: 3"),
    ("topics", "topics: [orders]"),
    ("version", "version: 1"),
    ("volumes", "volumes: [{name: data, mountPath: /data}]"),
    ("was", "was: [old-name]"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_folded_and_there_once() {
        for (part, words) in KEYS {
            for (word, _) in *words {
                assert!(word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit()), "{part} {word}");
                assert_eq!(words.iter().filter(|(other, _)| other == word).count(), 1, "{part} {word}");
            }
        }
        assert!(known_elsewhere("app", "env_vars").is_some());
        assert!(known_elsewhere("app", "port").is_none());
        assert!(known_elsewhere("secret", "kind").is_some_and(|mend| mend.contains("type")));
        assert_eq!(value_elsewhere("role", "Web"), Some("webserver"));
        assert_eq!(value_elsewhere("role", "webserver"), None);
        assert_eq!(example("repo", "url"), Some("url: https://example.com/shop.git"));
    }
}

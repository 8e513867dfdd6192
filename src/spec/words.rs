//! The words of other tools, and norn's own for the same thing.

/// What a key of another tool is called here, as a sentence for the help of an unknown key.
pub fn known_elsewhere(word: &str) -> Option<&'static str> {
    let folded: String =
        word.chars().filter(|c| *c != '_' && *c != '-').flat_map(char::to_lowercase).collect();
    WORDS.iter().find(|(word, _)| *word == folded).map(|(_, mend)| *mend)
}

/// Keys are folded: lowercase, without `_` and `-`.
const WORDS: &[(&str, &str)] = &[
    ("branches", "the branch is `repo.branch`"),
    ("buildpack", "what makes a release is `build.command`"),
    ("cmd", "it is called `command` here"),
    ("containers", "the apps stand under `apps`"),
    ("count", "it is called `replicas` here"),
    ("cron", "the role is `cron`, the expression goes to `schedule`"),
    ("cronexpression", "it is called `schedule` here"),
    ("cwd", "the code's folder is `path`; commands start in it"),
    ("deployments", "the apps stand under `apps`"),
    ("deps", "it is called `dependsOn` here"),
    ("dependencies", "it is called `dependsOn` here"),
    ("directory", "it is called `path` here"),
    ("dir", "it is called `path` here"),
    ("domain", "it is called `hosts.external` here"),
    ("domains", "it is called `hosts.external` here"),
    ("entrypoint", "how the app starts is `command`"),
    ("environment", "it is called `env` here"),
    ("environments", "they are called `stages` here"),
    ("envfile", "give norn `--env-file FILE` and refer to a value as ${NAME}"),
    ("envfrom", "name the values under `secrets`, or refer to them in `env` as ${NAME}"),
    ("envs", "it is called `env` here"),
    ("envvars", "it is called `env` here"),
    ("expose", "it is called `port` here"),
    ("git", "it is called `repo` here"),
    ("health", "it is called `healthcheck` here"),
    ("host", "it is called `hosts.internal` or `hosts.external` here"),
    ("hostname", "it is called `hosts.internal` here"),
    ("instances", "it is called `replicas` here"),
    ("kind", "it is called `role` here"),
    ("livenessprobe", "it is `healthcheck.live` here"),
    ("metadata", "names are keys here: the app's under `apps`, the project's is `project`"),
    ("migrate", "it is `migrations.command` here"),
    ("migration", "it is `migrations.command` here"),
    ("migrationcommand", "it is `migrations.command` here"),
    ("name", "an app's name is its key under `apps` (in the app form `app`), the project's is `project`"),
    ("ports", "an app has one `port` here"),
    ("process", "the program is `command`; `runtime: process` runs it"),
    ("processes", "each process is an app of its own under `apps`"),
    ("profiles", "they are called `stages` here"),
    ("proxy", "norn's own is `front`"),
    ("readinessprobe", "it is `healthcheck.path` here"),
    ("releasecommand", "what runs before a release goes live is `migrations.command`"),
    ("repository", "it is called `repo.url` here"),
    ("restart", "norn restarts what crashes by itself"),
    ("restartpolicy", "norn restarts what crashes by itself"),
    ("retention", "it is `artifacts.retain` here"),
    ("run", "it is called `command` here"),
    ("runcommand", "it is called `command` here"),
    ("scale", "it is called `replicas` here"),
    ("script", "it is called `command` here"),
    ("secretrefs", "it is called `secrets` here"),
    ("servers", "norn does not manage servers yet; apps run where norn runs"),
    ("service", "the apps stand under `apps`"),
    ("source", "a local folder is `path`, a git repository is `repo`"),
    ("src", "a local folder is `path`, a git repository is `repo`"),
    ("start", "it is called `command` here"),
    ("startcommand", "it is called `command` here"),
    ("startupprobe", "it is `healthcheck.startup` here"),
    ("tests", "it is `build.test` here"),
    ("testcommand", "it is `build.test` here"),
    ("type", "it is called `role` here"),
    ("variables", "it is called `env` here"),
    ("vars", "it is called `env` here"),
    ("volumemounts", "it is called `volumes` here"),
    ("workdir", "the code's folder is `path`; commands start in it"),
    ("workingdir", "the code's folder is `path`; commands start in it"),
    ("workingdirectory", "the code's folder is `path`; commands start in it"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_folded_and_sorted_once() {
        for (word, _) in WORDS {
            assert!(word.chars().all(|c| c.is_ascii_lowercase()), "{word}");
            assert_eq!(WORDS.iter().filter(|(other, _)| other == word).count(), 1, "{word}");
        }
        assert!(known_elsewhere("env_vars").is_some());
        assert!(known_elsewhere("port").is_none());
    }
}

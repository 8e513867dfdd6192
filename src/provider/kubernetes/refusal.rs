//! What a cluster's refusals mean, and how each is mended.

use std::error::Error;

use kube::client::AuthError;
use kube::core::Status;

use super::kinds::Address;
use crate::provider::causes::chain;

/// The manager that norn applies as. Norn before server-side apply updated under the same name.
pub const MANAGER: &str = "norn";

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClusterError {
    #[error(
        "there is no kubeconfig (looked at {looked}): name one with KUBECONFIG, or put it at ~/.kube/config"
    )]
    NoKubeconfig { looked: String },
    #[error("the kubeconfig cannot be used: {why}")]
    BadKubeconfig { why: String },
    #[error(
        "norn is in a pod and has no account there: {why}, looked for in /var/run/secrets/kubernetes.io/serviceaccount; set `automountServiceAccountToken: true` for the pod, or name a kubeconfig with KUBECONFIG"
    )]
    NoAccount { why: String },
    #[error(
        "the kubeconfig has no current context: name one with `kubernetes.context` (there {})",
        listed(known)
    )]
    NoContext { known: Vec<String> },
    #[error(
        "the kubeconfig has no context `{context}` (there {}): correct `kubernetes.context`",
        listed(known)
    )]
    UnknownContext { context: String, known: Vec<String> },
    #[error(
        "the cluster at {server} does not answer: {why}; look whether it runs and this machine reaches it"
    )]
    Unreachable { server: String, why: String },
    #[error(
        "the certificate of {server} is not trusted: {why}; put its authority into the kubeconfig's `certificate-authority-data`"
    )]
    Untrusted { server: String, why: String },
    #[error(
        "the cluster at {server} does not take the login of the kubeconfig: {why}; renew its token or certificate"
    )]
    Login { server: String, why: String },
    /// `program` is such as `` `/usr/bin/aws` ``.
    #[error(
        "the login for the cluster at {server} is not to be had: {program}, which the kubeconfig names for it, {why}; see that it works by itself, or name another one there"
    )]
    LoginProgram { server: String, program: String, why: String },
    /// `resource` is such as `deployments.apps`.
    #[error(
        "the cluster could not {doing}: {} may not {verb} {resource} in the namespace {namespace}: let an administrator run `kubectl create role norn --namespace {namespace} --verb {verb} --resource {resource}` and bind it with `kubectl create rolebinding`",
        quoted(user)
    )]
    Forbidden { doing: String, user: String, verb: String, resource: String, namespace: String },
    #[error(
        "the cluster could not {doing}: a rule of the cluster forbids it: {why}; change the app or the rule"
    )]
    Admission { doing: String, why: String },
    #[error(
        "the cluster could not {doing}: the quota of the namespace {namespace} is used up: {why}; ask for less, or have the quota raised"
    )]
    Quota { doing: String, namespace: String, why: String },
    /// Managers and their fields.
    #[error(
        "the cluster could not {doing}: others have set fields that norn sets, too: {}; take them out there, or take them over",
        told(claims)
    )]
    Conflict { doing: String, claims: Vec<(String, String)> },
    #[error(
        "the cluster could not {doing}: {field} cannot be changed once it is there ({why}); the object has to be replaced"
    )]
    Immutable { doing: String, field: String, why: String },
    #[error(
        "there is no namespace {namespace} at {server}: `kubectl create namespace {namespace}`, or correct `kubernetes.namespace`"
    )]
    NoNamespace { server: String, namespace: String },
    /// `whose` is such as `project shop, stage prod`.
    #[error(
        "{object} in the namespace {namespace} is not of this project and stage ({whose}): rename the app, take another namespace, or take it over"
    )]
    Foreign { object: Address, namespace: String, whose: String },
    #[error("the cluster could not {doing}: {why}")]
    Refused { doing: String, why: String },
}

impl ClusterError {
    /// Whether a cluster that was reached refuses an object for what it is, whoever puts it.
    pub fn is_of_the_object(&self) -> bool {
        matches!(
            self,
            ClusterError::Admission { .. }
                | ClusterError::Quota { .. }
                | ClusterError::Conflict { .. }
                | ClusterError::Immutable { .. }
                | ClusterError::Foreign { .. }
                | ClusterError::Refused { .. }
        )
    }
}

/// What an error means that came when the cluster was asked to do something.
pub(super) fn read(server: &str, namespace: &str, doing: &str, error: kube::Error) -> ClusterError {
    let server = server.to_owned();
    match error {
        kube::Error::Api(status) => answer(&server, namespace, doing, &status),
        kube::Error::Auth(error) => login(&server, None, &error),
        other => {
            let why = chain(&other);
            // An exec plugin that fails while a token is renewed comes as a failed service.
            if let Some(error) = found::<AuthError>(&other) {
                return login(&server, None, error);
            }
            // Rustls has a kind for it, but hyper hands it on as text.
            if why.contains("invalid peer certificate") || why.contains("UnknownIssuer") {
                return ClusterError::Untrusted { server, why };
            }
            match other {
                kube::Error::HyperError(_)
                | kube::Error::Service(_)
                | kube::Error::ReadEvents(_)
                | kube::Error::HttpError(_) => ClusterError::Unreachable { server, why },
                _ => ClusterError::Refused { doing: doing.to_owned(), why },
            }
        }
    }
}

/// A program that gives logins, as far as it is known.
pub(super) fn program(name: Option<&str>) -> String {
    name.map_or_else(|| "the program".to_owned(), |name| format!("`{name}`"))
}

/// Why no login was to be had. Nothing is shown of what an exec plugin gave, or was given: those may be
/// tokens.
pub(super) fn login(server: &str, program: Option<&str>, error: &AuthError) -> ClusterError {
    let server = server.to_owned();
    let why = match error {
        AuthError::AuthExecRun { out, .. } => {
            let said = String::from_utf8_lossy(&out.stderr);
            format!("failed ({}): {}", out.status, said.trim())
        }
        AuthError::AuthExecStart(error) => format!("cannot be started: {error}"),
        AuthError::AuthExecParse(_) | AuthError::ExecPluginFailed => "gives no ExecCredential".to_owned(),
        other => return ClusterError::Login { server, why: chain(other) },
    };
    ClusterError::LoginProgram { server, program: self::program(program), why }
}

fn found<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    let mut error = Some(error);
    while let Some(one) = error {
        if let Some(wanted) = one.downcast_ref::<E>() {
            return Some(wanted);
        }
        error = one.source();
    }
    None
}

fn answer(server: &str, namespace: &str, doing: &str, status: &Status) -> ClusterError {
    let (server, doing) = (server.to_owned(), doing.to_owned());
    let why = status.message.trim().to_owned();
    let causes = status.details.as_ref().map_or(&[][..], |details| &details.causes);
    if status.code == 401 {
        return ClusterError::Login { server, why };
    }
    if why.contains("exceeded quota: ") || why.contains("failed quota: ") {
        return ClusterError::Quota { doing, namespace: namespace.to_owned(), why };
    }
    if let Some((_, after)) = why.split_once(" cannot ").filter(|_| status.code == 403)
        && let Some(verb) = after.split(' ').next()
        && let Some(resource) = between(after, "resource \"", "\"")
    {
        let group = between(after, "API group \"", "\"").filter(|group| !group.is_empty());
        let resource = group.map_or_else(|| resource.to_owned(), |group| format!("{resource}.{group}"));
        let user = between(&why, "User \"", "\"").unwrap_or("this user").to_owned();
        return ClusterError::Forbidden {
            doing,
            user,
            verb: verb.to_owned(),
            resource,
            namespace: namespace.to_owned(),
        };
    }
    let claims: Vec<(String, String)> = causes
        .iter()
        .filter(|cause| cause.reason == "FieldManagerConflict")
        .map(|cause| {
            let manager = between(&cause.message, "conflict with \"", "\"").unwrap_or(&cause.message);
            (manager.to_owned(), cause.field.clone())
        })
        .collect();
    if !claims.is_empty() {
        return ClusterError::Conflict { doing, claims };
    }
    if status.code == 404 && why.starts_with("namespaces ") {
        return ClusterError::NoNamespace { server, namespace: namespace.to_owned() };
    }
    let fixed =
        ["is immutable", "may not change once set", "immutable after creation", "field can not be less"];
    if let Some(cause) = causes.iter().find(|cause| fixed.iter().any(|word| cause.message.contains(word))) {
        let (field, why) = (cause.field.clone(), cause.message.clone());
        return ClusterError::Immutable { doing, field, why };
    }
    let rules = ["admission webhook", "ValidatingAdmissionPolicy", "violates PodSecurity", "is forbidden: "];
    if rules.iter().any(|rule| why.contains(rule)) {
        return ClusterError::Admission { doing, why };
    }
    ClusterError::Refused { doing, why }
}

/// What stands between two words, if both are there.
fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    text.split_once(before)?.1.split_once(after).map(|(inside, _)| inside)
}

fn listed(names: &[String]) -> String {
    match names {
        [] => "is none".to_owned(),
        [one] => format!("is {one}"),
        all => format!("are {}", all.join(", ")),
    }
}

fn quoted(user: &str) -> String {
    if user == "this user" { user.to_owned() } else { format!("the user `{user}`") }
}

fn told(claims: &[(String, String)]) -> String {
    let each = claims.iter().map(|(manager, field)| format!("{manager} {}", field.trim_start_matches('.')));
    each.collect::<Vec<_>>().join(", ")
}

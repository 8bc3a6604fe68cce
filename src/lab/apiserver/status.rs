//! Refusals, in the form the Kubernetes API gives them (`metav1.Status`).

use serde_json::{Value, json};

/// A request that is refused.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Failure {
    /// The HTTP status.
    pub(super) code: u16,
    /// The machine-readable word that clients switch on.
    reason: &'static str,
    /// The sentence.
    message: String,
    /// `details`, if there are any.
    details: Option<Value>,
    /// The `Retry-After` header, in seconds.
    pub(super) retry_after: Option<u32>,
}

impl Failure {
    fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into(), details: None, retry_after: None }
    }

    /// The body.
    pub(super) fn body(&self) -> Value {
        let mut details = self.details.clone();
        if let Some(seconds) = self.retry_after {
            let details = details.get_or_insert_with(|| json!({}));
            details["retryAfterSeconds"] = json!(seconds);
        }
        let mut body = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "reason": self.reason, "code": self.code,
        });
        if let Some(details) = details {
            body["details"] = details;
        }
        body
    }

    /// 400.
    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    /// 404 for an object.
    pub(super) fn no_object(plural: &str, name: &str) -> Self {
        let details = Some(json!({ "name": name, "kind": plural }));
        Self { details, ..Self::new(404, "NotFound", format!("{plural} \"{name}\" not found")) }
    }

    /// 404 for a path.
    pub(super) fn no_path() -> Self {
        Self::new(404, "NotFound", "the server could not find the requested resource")
    }

    /// 405.
    pub(super) fn no_method() -> Self {
        Self::new(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")
    }

    /// 409, the name is taken.
    pub(super) fn exists(plural: &str, name: &str) -> Self {
        let details = Some(json!({ "name": name, "kind": plural }));
        Self { details, ..Self::new(409, "AlreadyExists", format!("{plural} \"{name}\" already exists")) }
    }

    /// 409, somebody was faster.
    pub(super) fn conflict(plural: &str, name: &str) -> Self {
        let message = format!(
            "Operation cannot be fulfilled on {plural} \"{name}\": the object has been modified; please apply your \
             changes to the latest version and try again"
        );
        let details = Some(json!({ "name": name, "kind": plural }));
        Self { details, ..Self::new(409, "Conflict", message) }
    }

    /// 410, a revision that history does not reach back to.
    pub(super) fn expired(asked: u64, oldest: u64) -> Self {
        Self::new(410, "Expired", format!("too old resource version: {asked} ({oldest})"))
    }

    /// 410, a page of a list that history does not reach back to.
    pub(super) fn expired_page() -> Self {
        let message = "The provided continue parameter is too old to display a consistent list result. You must \
                       start a new list without the continue parameter.";
        Self::new(410, "Expired", message)
    }

    /// 504, a revision of the future.
    pub(super) fn too_new(asked: u64, current: u64) -> Self {
        let message = format!("Timeout: Too large resource version: {asked}, current: {current}");
        let cause = json!({ "reason": "ResourceVersionTooLarge", "message": "Too large resource version" });
        let details = Some(json!({ "causes": [cause] }));
        Self { details, retry_after: Some(1), ..Self::new(504, "Timeout", message) }
    }

    /// 415; `accepted` are the types that would do.
    pub(super) fn unsupported(content_type: &str, accepted: &[&str]) -> Self {
        let accepted = accepted.join(", ");
        let message = format!(
            "the body of the request was in an unknown format - accepted media types include: {accepted} (got \
             {content_type:?})"
        );
        Self::new(415, "UnsupportedMediaType", message)
    }

    /// 422.
    pub(super) fn invalid(kind: &str, name: &str, problem: &str) -> Self {
        let details = Some(json!({ "name": name, "kind": kind }));
        Self { details, ..Self::new(422, "Invalid", format!("{kind} \"{name}\" is invalid: {problem}")) }
    }

    /// Any status, for injected faults.
    pub(super) fn injected(code: u16, retry_after: Option<u32>) -> Self {
        let reason = match code {
            401 => "Unauthorized",
            403 => "Forbidden",
            410 => "Expired",
            422 => "Invalid",
            429 => "TooManyRequests",
            503 => "ServiceUnavailable",
            504 => "Timeout",
            _ => "InternalError",
        };
        Self { retry_after, ..Self::new(code, reason, format!("injected fault: {code}")) }
    }
}

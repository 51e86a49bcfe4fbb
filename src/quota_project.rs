//! The project to bill: Google's `x-goog-user-project`, which is sent together with a token.
//!
//! Knows what a project's name looks like and where the environment specifies one. Does not know when a
//! request is stamped.

use std::env;

use http::header::{HeaderMap, HeaderName, HeaderValue, MaxSizeReached};

use crate::config_error::ConfigError;

/// Built once, so that stamping costs two clones that allocate nothing.
#[derive(Clone)]
pub(crate) struct QuotaProject {
    name: HeaderName,
    value: HeaderValue,
}

/// The variable that Google's own libraries also read.
const VARIABLE: &str = "GOOGLE_CLOUD_QUOTA_PROJECT";

/// An ID has 6 to 30 characters, optionally preceded by a domain.
const LONGEST: usize = 256;

impl QuotaProject {
    /// `what` is the caller's name for the setting.
    pub(crate) fn new(what: &'static str, project: &str) -> Result<Self, ConfigError> {
        let wrong = |reason| ConfigError::new(what, project, reason);
        if project.is_empty() {
            return Err(wrong("it is empty; leave it out to have none"));
        }
        if project.len() > LONGEST {
            return Err(wrong("it is longer than a project's id (256 characters)"));
        }
        let odd = |c: char| !c.is_ascii_alphanumeric() && !matches!(c, '-' | '_' | '.' | ':');
        let reason = "expected the id or the number of a project";
        if let Some(at) = project.chars().position(odd) {
            return Err(wrong(reason).at(at));
        }
        Ok(Self {
            name: HeaderName::from_static("x-goog-user-project"),
            value: HeaderValue::from_str(project).map_err(|_| wrong(reason))?,
        })
    }

    /// `None` if the variable is not set.
    pub(crate) fn from_env() -> Result<Option<Self>, ConfigError> {
        match env::var(VARIABLE) {
            Ok(project) => Self::new(VARIABLE, &project).map(Some),
            Err(env::VarError::NotPresent) => Ok(None),
            Err(env::VarError::NotUnicode(project)) => {
                let project = project.to_string_lossy();
                Err(ConfigError::new(
                    VARIABLE,
                    &project,
                    "it is not valid UTF-8",
                ))
            }
        }
    }

    /// Inserts the header; the caller's own value is kept. An error if the request has no room for it.
    pub(crate) fn put(&self, headers: &mut HeaderMap) -> Result<(), MaxSizeReached> {
        if headers.contains_key(&self.name) {
            return Ok(());
        }
        let put = headers.try_insert(&self.name, self.value.clone());
        put.map(drop)
    }

    pub(crate) fn as_str(&self) -> &str {
        self.value.to_str().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_project_is_an_error_where_it_stands() {
        for project in ["my-project", "123456789012", "example.com:my-project"] {
            let made = QuotaProject::new("quota project", project).unwrap();
            assert_eq!(made.as_str(), project);
        }
        for (project, at) in [
            ("", None),
            ("a b", Some(1)),
            ("a\r\nX-Evil: 1", Some(1)),
            ("é", Some(0)),
            ("projects/x", Some(8)),
            (&"x".repeat(257), None),
        ] {
            let error = QuotaProject::new("quota project", project).err().unwrap();
            assert_eq!(error.position(), at, "{error}");
            assert_eq!(error.to_string().lines().count(), 1);
        }
    }

    #[test]
    fn it_is_put_once_and_never_over_the_callers_own() {
        let project = QuotaProject::new("quota project", "ours").unwrap();
        let mut headers = HeaderMap::new();
        project.put(&mut headers).unwrap();
        project.put(&mut headers).unwrap();
        let values: Vec<_> = headers.get_all("x-goog-user-project").iter().collect();
        assert_eq!(values, ["ours"]);
        headers.insert("x-goog-user-project", HeaderValue::from_static("theirs"));
        project.put(&mut headers).unwrap();
        assert_eq!(headers["x-goog-user-project"], "theirs");
    }
}

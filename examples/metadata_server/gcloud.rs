//! What gcloud knows: whether it can get a token, which project, which account.

use std::{
    error::Error,
    iter::successors,
    process::{Command, Stdio},
};

use tower_scoped_auth::{ConfigError, Scopes, TokenRequest, TokenSource, sources::GcloudCli};

pub(crate) fn source(impersonate: Option<&str>) -> Result<GcloudCli, ConfigError> {
    let builder = GcloudCli::builder();
    match impersonate {
        Some(account) => builder.impersonate(account).build(),
        None => builder.build(),
    }
}

/// Fetches one token, so that a gcloud that is missing or not logged in is noticed now.
pub(crate) async fn try_out(source: &GcloudCli) -> Result<(), String> {
    let request = TokenRequest::access_token(Scopes::default());
    match source.fetch(request).await {
        Ok(_token) => Ok(()),
        Err(error) => Err(on_one_line(&error)),
    }
}

fn on_one_line(error: &dyn Error) -> String {
    let causes = successors(Some(error), |&error| error.source());
    let texts: Vec<_> = causes.map(ToString::to_string).collect();
    texts.join(": ").replace(['\n', '\r'], " ")
}

/// One of gcloud's settings, such as `project`.
pub(crate) fn value(name: &str) -> Option<String> {
    let mut gcloud = Command::new(if cfg!(windows) {
        "gcloud.cmd"
    } else {
        "gcloud"
    });
    gcloud.args(["config", "get-value", name, "--quiet"]);
    let output = gcloud
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let text = text.trim();
    (output.status.success() && !text.is_empty() && text != "(unset)").then(|| text.to_owned())
}

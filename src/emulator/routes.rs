//! From a request's head to the response: the rules of the metadata server.
//!
//! Pure except for the mint, which is given the time, and the key, which is generated on first use.
//! Knows HTTP semantics and the protocol's rules; does no I/O and knows no faults.

use std::{
    sync::OnceLock,
    time::{Instant, SystemTime},
};

use http::{Method, header::HOST};
use serde_json::{Value, json};

use super::{
    answer::Answer,
    head::Head,
    identity,
    key::Key,
    mint::{Mint, ScopeSet, Want},
    site::{Node, Site},
    target::{Path, parameter},
};
use crate::{
    config_error::ConfigError,
    token::request::{Audience, Scopes, TokenRequest},
};

/// The kind of a request, for counting and for faults.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Token,
    Identity,
    Other,
}

pub(super) struct Routes {
    site: Site,
    tree: Node,
    /// The inner `None` means that it could not be generated.
    key: OnceLock<Option<Key>>,
}

/// Where Google publishes the keys of its ID tokens (at www.googleapis.com).
pub(super) const KEYS: &str = "/oauth2/v3/certs";

const FLAVOR: &str = "metadata-flavor";
const FORWARDED: &str = "x-forwarded-for";
/// The real server's wording.
const FLAVOR_MISSING: &str = r#"Missing required header "Metadata-Flavor": "Google""#;

impl Routes {
    pub(super) fn new(site: Site) -> Self {
        let tree = site.tree();
        Self {
            site,
            tree,
            key: OnceLock::new(),
        }
    }

    /// The value of the `Server` header. One of the two servers honours `?scopes=`, the other does not.
    pub(super) fn server(&self) -> &'static str {
        match self.site.honour_scopes {
            true => "Metadata Server for Serverless",
            false => "Metadata Server for VM",
        }
    }

    /// Prepares whatever the response to this request needs and that takes time to create.
    pub(super) fn prepare(&self, head: &Head) {
        let audience = parameter(head.uri.query(), "audience");
        if self.kind(head) == Kind::Identity && audience.is_some() {
            self.key();
        }
    }

    /// Generates the key if there is none yet.
    fn key(&self) -> Option<&Key> {
        self.key.get_or_init(Key::generate).as_ref()
    }

    /// The public halves of the existing keys, as a JWK set.
    pub(super) fn jwks(&self) -> String {
        let keys: Vec<Value> = self.key().map(Key::jwk).into_iter().collect();
        json!({ "keys": keys }).to_string()
    }

    pub(super) fn kind(&self, head: &Head) -> Kind {
        let path = Path::parse(head.uri.path());
        match path
            .as_ref()
            .and_then(|path| self.tree.find(path.segments()))
        {
            Some(Node::Token) => Kind::Token,
            Some(Node::Identity) => Kind::Identity,
            _ => Kind::Other,
        }
    }

    pub(super) fn answer(
        &self,
        head: &Head,
        mint: &mut Mint,
        now: Instant,
        wall: SystemTime,
    ) -> Answer {
        match self.admit(head) {
            Err(answer) => answer,
            Ok(Node::Token) => self.token(head, mint, now),
            Ok(Node::Identity) => self.identity(head, mint, now, wall),
            Ok(node @ Node::Directory(_)) => directory(head, node),
            Ok(value) => Answer::text(value.text()),
        }
    }

    /// The token that a request asks for, if it asks for one and follows the rules.
    pub(super) fn asked(&self, head: &Head) -> Option<Result<TokenRequest, ConfigError>> {
        match self.admit(head).ok()? {
            Node::Token => {
                let scopes = self.scopes(head);
                Some(Scopes::new(scopes).map(TokenRequest::access_token))
            }
            Node::Identity => {
                let audience = parameter(head.uri.query(), "audience").unwrap_or_default();
                Some(Audience::new(audience).map(TokenRequest::id_token))
            }
            _ => None,
        }
    }

    /// Applies the rules that hold for every request, and returns the node it asks for.
    fn admit(&self, head: &Head) -> Result<&Node, Answer> {
        if head.method != Method::GET && head.method != Method::HEAD {
            return Err(Answer::status(405).with_header("Allow", "GET, HEAD"));
        }
        if head.uri.path() == KEYS {
            let an_hour = "public, max-age=3600";
            return Err(Answer::foreign(self.jwks()).with_header("Cache-Control", an_hour));
        }
        if head.headers.contains_key(FORWARDED) {
            return Err(Answer::status(403));
        }
        let path = Path::parse(head.uri.path()).ok_or_else(|| Answer::status(404))?;
        // Clients use the root to find out whether this is a metadata server at all.
        if path.segments().next().is_some() {
            match head.headers.get(FLAVOR).map(|flavor| flavor.as_bytes()) {
                Some(b"Google") => {}
                Some(_) => return Err(Answer::status(404)),
                None => return Err(Answer::status(403).with_body(FLAVOR_MISSING)),
            }
        }
        let node = self.tree.find(path.segments());
        let node = node.ok_or_else(|| Answer::status(404))?;
        match (node, path.is_directory()) {
            (Node::Directory(_), false) => Err(to_the_slash(head)),
            (Node::Directory(_), true) | (_, false) => Ok(node),
            // A value is not a directory.
            (_, true) => Err(Answer::status(404)),
        }
    }

    fn scopes(&self, head: &Head) -> ScopeSet {
        let asked = parameter(head.uri.query(), "scopes").filter(|_| self.site.honour_scopes);
        let asked = asked.unwrap_or_default();
        let each = asked.split(',').filter(|scope| !scope.is_empty());
        each.map(str::to_owned).collect()
    }

    fn token(&self, head: &Head, mint: &mut Mint, now: Instant) -> Answer {
        let served = mint.serve(self.scopes(head), now);
        Answer::token(&served.secret, served.left)
    }

    fn identity(&self, head: &Head, mint: &mut Mint, now: Instant, wall: SystemTime) -> Answer {
        let asked = |name| parameter(head.uri.query(), name).unwrap_or_default();
        let audience = asked("audience");
        if audience.is_empty() {
            return Answer::status(400).with_body("non-empty audience parameter required");
        }
        let Some(key) = self.key() else {
            return Answer::status(500).with_body("no key could be made");
        };
        let full = asked("format").eq_ignore_ascii_case("full");
        // Licences are part of the full format only.
        let licenses = full && asked("licenses").eq_ignore_ascii_case("true");
        let want = Want::Id {
            audience: audience.clone(),
            full,
            licenses,
        };
        let served = mint.serve_made(want, now, |number, lifetime| {
            let mut claims = identity::claims(&audience, number, wall, lifetime);
            if full {
                claims.extend(identity::of_the_instance(&self.site, licenses));
            }
            key.sign(&Value::Object(claims)).unwrap_or_default()
        });
        Answer::id_token(served.secret)
    }
}

fn to_the_slash(head: &Head) -> Answer {
    let host = head
        .headers
        .get(HOST)
        .and_then(|host| host.to_str().ok())
        .unwrap_or_default();
    let query = head
        .uri
        .query()
        .map(|query| format!("?{query}"))
        .unwrap_or_default();
    let location = format!("http://{host}{}/{query}", head.uri.path());
    Answer::status(301).with_header("Location", location)
}

fn directory(head: &Head, node: &Node) -> Answer {
    let recursive = parameter(head.uri.query(), "recursive");
    match recursive.is_some_and(|value| value.eq_ignore_ascii_case("true")) {
        true => Answer::tree(node.json().unwrap_or_default().to_string()),
        false => Answer::text(node.text()),
    }
}

//! The emulated machine: its project, its account, and the tree of values that describes them.
//!
//! Pure data. Knows names and how a directory is written as text and as JSON; knows no HTTP.

use serde_json::{Map, Value, json};

/// The facts of one machine.
#[derive(Clone, Debug)]
pub(super) struct Site {
    pub(super) project_id: String,
    pub(super) email: String,
    pub(super) scopes: Vec<String>,
    pub(super) universe_domain: String,
    pub(super) honour_scopes: bool,
}

/// A place in the tree.
pub(super) enum Node {
    /// Sorted by name, as the real server lists them.
    Directory(Vec<(String, Node)>),
    Text(String),
    Number(u64),
    Lines(Vec<String>),
    /// Minted on request; listed, but left out of recursive responses.
    Token,
    Identity,
}

/// Any number will do; a real one has 12 digits.
pub(super) const PROJECT_NUMBER: u64 = 123_456_789_012;
pub(super) const INSTANCE_ID: u64 = 1_234_567_890_123_456_789;
pub(super) const INSTANCE: &str = "emulated";
pub(super) const ZONE: &str = "us-central1-a";

/// The name of an account besides its e-mail address.
const DEFAULT_ACCOUNT: &str = "default";

impl Default for Site {
    fn default() -> Self {
        let scopes = ["cloud-platform", "userinfo.email"];
        Self {
            project_id: "test-project".to_owned(),
            email: format!("{PROJECT_NUMBER}-compute@developer.gserviceaccount.com"),
            scopes: scopes
                .map(|scope| format!("https://www.googleapis.com/auth/{scope}"))
                .into(),
            universe_domain: "googleapis.com".to_owned(),
            honour_scopes: true,
        }
    }
}

impl Site {
    /// The root of the tree.
    pub(super) fn tree(&self) -> Node {
        let project = &self.project_id;
        let instance = directory([
            ("attributes", directory([])),
            (
                "hostname",
                Node::Text(format!("{INSTANCE}.c.{project}.internal")),
            ),
            ("id", Node::Number(INSTANCE_ID)),
            ("name", Node::Text(INSTANCE.to_owned())),
            (
                "region",
                Node::Text(format!("projects/{PROJECT_NUMBER}/regions/us-central1")),
            ),
            (
                "service-accounts",
                directory([
                    (self.email.as_str(), self.account()),
                    (DEFAULT_ACCOUNT, self.account()),
                ]),
            ),
            (
                "zone",
                Node::Text(format!("projects/{PROJECT_NUMBER}/zones/{ZONE}")),
            ),
        ]);
        let project = directory([
            ("attributes", directory([])),
            ("numeric-project-id", Node::Number(PROJECT_NUMBER)),
            ("project-id", Node::Text(project.clone())),
        ]);
        let universe = directory([("universe-domain", Node::Text(self.universe_domain.clone()))]);
        let v1 = directory([
            ("instance", instance),
            ("project", project),
            ("universe", universe),
        ]);
        directory([("computeMetadata", directory([("v1", v1)]))])
    }

    fn account(&self) -> Node {
        directory([
            ("aliases", Node::Lines(vec![DEFAULT_ACCOUNT.to_owned()])),
            ("email", Node::Text(self.email.clone())),
            ("identity", Node::Identity),
            ("scopes", Node::Lines(self.scopes.clone())),
            ("token", Node::Token),
        ])
    }
}

fn directory<const N: usize>(entries: [(&str, Node); N]) -> Node {
    Node::Directory(entries.map(|(name, node)| (name.to_owned(), node)).into())
}

impl Node {
    pub(super) fn find<'a>(&self, path: impl Iterator<Item = &'a str>) -> Option<&Self> {
        let mut node = self;
        for name in path {
            let Self::Directory(entries) = node else {
                return None;
            };
            node = entries
                .iter()
                .find(|(entry, _)| entry == name)
                .map(|(_, node)| node)?;
        }
        Some(node)
    }

    /// A value's text, or a directory's list: one entry a line, directories with a slash.
    pub(super) fn text(&self) -> String {
        let lines = |lines: Vec<String>| lines.iter().map(|line| format!("{line}\n")).collect();
        match self {
            Self::Text(text) => text.clone(),
            Self::Number(number) => number.to_string(),
            Self::Lines(list) => lines(list.clone()),
            Self::Token | Self::Identity => String::new(),
            Self::Directory(entries) => lines(
                entries
                    .iter()
                    .map(|(name, node)| match node {
                        Self::Directory(_) => format!("{name}/"),
                        _ => name.clone(),
                    })
                    .collect(),
            ),
        }
    }

    /// The node as `?recursive=true` shows it: names in camel case, lists as arrays. `None` for minted
    /// tokens.
    pub(super) fn json(&self) -> Option<Value> {
        Some(match self {
            Self::Text(text) => json!(text),
            Self::Number(number) => json!(number),
            Self::Lines(lines) => json!(lines),
            Self::Token | Self::Identity => return None,
            Self::Directory(entries) => {
                let entries = entries
                    .iter()
                    .filter_map(|(name, node)| Some((camel_case(name), node.json()?)));
                Value::Object(entries.collect::<Map<_, _>>())
            }
        })
    }
}

/// Turns `service-accounts` into `serviceAccounts`; an e-mail address stays as it is.
fn camel_case(name: &str) -> String {
    if name.contains('@') {
        return name.to_owned();
    }
    let mut words = name.split('-');
    let mut camel = words.next().unwrap_or_default().to_owned();
    for word in words {
        let mut letters = word.chars();
        camel.extend(letters.next().map(|letter| letter.to_ascii_uppercase()));
        camel.push_str(letters.as_str());
    }
    camel
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_account_is_found_by_name_and_by_address() {
        let site = Site::default();
        let tree = site.tree();
        for account in ["default", &site.email] {
            let path = [
                "computeMetadata",
                "v1",
                "instance",
                "service-accounts",
                account,
            ];
            let node = tree.find(path.into_iter()).unwrap();
            assert_eq!(node.text(), "aliases\nemail\nidentity\nscopes\ntoken\n");
            let json = node.json().unwrap();
            assert_eq!(json["email"], site.email);
            assert_eq!(json["aliases"], json!(["default"]));
            assert_eq!(json["scopes"][0], site.scopes[0]);
            assert!(json.get("token").is_none());
        }
        assert!(
            tree.find(["computeMetadata", "v1", "nothing"].into_iter())
                .is_none()
        );
    }

    #[test]
    fn recursive_names_are_in_camel_case() {
        let json = Site::default().tree().json().unwrap();
        let v1 = &json["computeMetadata"]["v1"];
        assert_eq!(v1["project"]["projectId"], "test-project");
        assert!(v1["project"]["numericProjectId"].is_u64());
        assert_eq!(v1["universe"]["universeDomain"], "googleapis.com");
        assert!(v1["instance"]["serviceAccounts"]["default"].is_object());
    }
}

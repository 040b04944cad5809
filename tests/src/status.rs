//! `mesh status --json` and `mesh builds --json` as a test reads them: by name, with an error that shows the whole.

use serde_json::Value;
use std::fmt;

/// What a daemon says of its mesh.
#[derive(Clone, PartialEq)]
pub struct Status(pub Value);

impl Status {
    pub fn parse(text: &str) -> Self {
        let value: Value = serde_json::from_str(text).unwrap_or_else(|e| panic!("status is not JSON: {e}\n{text}"));
        assert_eq!(value["version"], 1, "status has a version that the tests do not know");
        Status(value)
    }

    /// The name of the host that leads, if there is one.
    pub fn leader(&self) -> Option<&str> {
        self.0["leader"]["host"].as_str()
    }

    /// One host's row.
    pub fn host(&self, name: &str) -> Option<&Value> {
        self.hosts().find(|h| h["name"] == name)
    }

    pub fn hosts(&self) -> impl Iterator<Item = &Value> {
        self.0["hosts"].as_array().into_iter().flatten()
    }

    /// `alive`, `suspect`, `down` or `left`; empty when the host is not listed.
    pub fn state(&self, name: &str) -> &str {
        self.host(name).and_then(|h| h["state"].as_str()).unwrap_or("")
    }

    /// `self`, `direct`, `relay` or `none`; empty when the host is not listed.
    pub fn path(&self, name: &str) -> &str {
        self.host(name).and_then(|h| h["path"].as_str()).unwrap_or("")
    }

    pub fn alive(&self) -> usize {
        self.hosts().filter(|h| h["state"] == "alive").count()
    }

    pub fn voters(&self) -> usize {
        self.hosts().filter(|h| h["voter"] == true).count()
    }

    /// How many builds are `queued`, `running`, `done`, `failed` or `cancelled`.
    pub fn builds(&self, state: &str) -> u64 {
        self.0["builds"][state].as_u64().unwrap_or_else(|| panic!("no count of {state} builds in {self:?}"))
    }

    /// The warnings with this code.
    pub fn warnings(&self, code: &str) -> Vec<&Value> {
        self.0["warnings"].as_array().into_iter().flatten().filter(|w| w["code"] == code).collect()
    }
}

impl fmt::Debug for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&serde_json::to_string_pretty(&self.0).unwrap_or_default())
    }
}

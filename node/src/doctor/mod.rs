//! `mesh doctor`: what is wrong with this host and its mesh, how bad it is, and what to do.
//!
//! Facts are gathered first ([`gather`], and [`crate::api::types::MeshFacts`] from the daemon), then judged by checks that
//! are plain functions of facts: [`local`] for what can be seen without a daemon, [`mesh`] for what only it knows,
//! [`firewall`] for who lets the port through. Nothing here changes anything. [`crate::cli`] prints the findings.

pub mod firewall;
pub mod gather;
pub mod local;
pub mod mesh;

use crate::api::types::MeshFacts;
use local::LocalFacts;
use serde::{Deserialize, Serialize};

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Something does not work.
    Error,
    /// Something works less well than it should, or soon will not.
    Warning,
    /// Worth knowing.
    Note,
}

/// Something that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// For machines, for example `clock`.
    pub code: String,
    /// How bad it is.
    pub severity: Severity,
    /// Which host, when it is one of the mesh.
    pub host: Option<String>,
    /// What was found.
    pub text: String,
    /// What to do.
    pub advice: String,
}

impl Finding {
    /// Of this host, or of the mesh.
    pub fn new(severity: Severity, code: &str, text: impl Into<String>, advice: impl Into<String>) -> Finding {
        Finding { code: code.into(), severity, host: None, text: text.into(), advice: advice.into() }
    }

    /// Of another host.
    pub fn of(mut self, host: &str) -> Finding {
        self.host = Some(host.to_owned());
        self
    }
}

/// Every finding, the worst first. `mesh` is what the daemon said, when one answers.
pub fn examine(local: &LocalFacts, mesh: Option<&MeshFacts>) -> Vec<Finding> {
    let mut findings = local::findings(local, mesh);
    findings.extend(mesh.map(mesh::findings).unwrap_or_default());
    findings.sort_by_key(|finding| finding.severity); // stable: within a severity in the order of the checks
    findings
}

/// The exit code: 0 when nothing is wrong, 1 when something is, 2 when nobody leads, 3 when no daemon answers.
pub fn exit_code(findings: &[Finding]) -> u8 {
    let code = |finding: &Finding| match (finding.code.as_str(), finding.severity) {
        ("no-folder" | "not-enrolled" | "no-daemon", _) => 3,
        ("no-leader", _) => 2,
        (_, Severity::Error | Severity::Warning) => 1,
        (_, Severity::Note) => 0,
    };
    findings.iter().map(code).max().unwrap_or(0)
}

#[cfg(test)]
mod fixture;
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_finding_is_the_exit_code() {
        let finding = |severity, code: &str| Finding::new(severity, code, "x", "y");
        assert_eq!(exit_code(&[]), 0);
        assert_eq!(exit_code(&[finding(Severity::Note, "version")]), 0);
        let clock = finding(Severity::Warning, "clock");
        assert_eq!(exit_code(&[finding(Severity::Note, "version"), clock.clone()]), 1);
        assert_eq!(exit_code(&[finding(Severity::Error, "no-leader"), clock.clone()]), 2);
        assert_eq!(exit_code(&[clock, finding(Severity::Error, "no-daemon")]), 3);
    }
}

//! `mesh doctor`: gathers facts here and from the daemon, has them judged, and prints what was found with what to do. That
//! no daemon answers is a finding like any other.

use super::{Failure, Out, client, show::plain};
use crate::api::client::ClientError;
use crate::api::types::VERSION;
use crate::doctor::{Finding, Severity, examine, exit_code, gather};
use crate::state_folder::Places;

pub(super) async fn doctor(places: &Places, out: Out) -> Result<u8, Failure> {
    let (mesh, no_daemon) = match client(places, Out { quiet: true, ..out }) {
        Err(_) => (None, None), // no folder: that is found there
        Ok(client) => match client.doctor().await {
            Ok(facts) => (Some(facts), None),
            Err(ClientError::NoDaemon(socket)) => {
                let folder = socket.parent().unwrap_or(&socket);
                let more = gather::why_not_opened(folder).map_or(String::new(), |e| format!(" ({e})"));
                (None, Some(format!("no daemon runs on {}{more}", folder.display())))
            }
            Err(error) => (None, Some(error.to_string())),
        },
    };
    let local = gather::gather(places, no_daemon).await;
    let findings = examine(&local, mesh.as_ref());
    match out.json {
        true => out.json(&serde_json::json!({ "version": VERSION, "findings": findings }))?,
        false => out.line(text(&findings))?,
    }
    Ok(exit_code(&findings))
}

fn text(findings: &[Finding]) -> String {
    if findings.is_empty() {
        return "nothing is wrong".into();
    }
    let line = |finding: &Finding| {
        let word = match finding.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Note => "note",
        };
        format!("{word}: {}\n    do: {}", plain(&finding.text), plain(&finding.advice))
    };
    findings.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_finding_says_how_bad_it_is_and_what_to_do() {
        let found = [
            Finding::new(Severity::Error, "config", "mesh.toml:1:1: x", "mend it"),
            Finding::new(Severity::Note, "version", "b runs \u{1b}[31m", "update"),
        ];
        let expected = "error: mesh.toml:1:1: x\n    do: mend it\nnote: b runs  [31m\n    do: update";
        assert_eq!(text(&found), expected);
        assert_eq!(text(&[]), "nothing is wrong");
    }
}

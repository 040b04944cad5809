//! `mesh recover`: shows what would be done, asks for the recovery key, signs, hands the record over, and waits until the
//! mesh has a leader again. The key stays in this process; which log goes on and what speaks against it, the daemon says.

use super::{EXIT_FAILED, EXIT_NO_LEADER, EXIT_OK, Failure, Out};
use crate::api::client::{Client, ClientError};
use crate::api::types::{HostState, Recovered, RecoveryPlan, VERSION};
use crate::driver::{record_from, record_text, recovery_keys};
use mesh::identity::Keys;
use mesh::roster::Recovery;
use mesh::wire::decode;
use std::fs;
use std::io::{self, IsTerminal, Read};
use std::time::Duration;
use tokio::time::Instant;

/// A key or a record, and what surrounds it.
const TEXT_BYTES_MAX: u64 = 16 << 10;
/// How long the heir may take to start again and to lead.
const LEADS_WITHIN: Duration = Duration::from_secs(60);
/// Between two looks at a daemon that starts again: nobody is there to be asked to wait.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// What was asked for.
pub(super) struct Wish {
    pub key: String,
    pub print: bool,
    pub apply: Option<String>,
    pub dry_run: bool,
    pub force: bool,
}

pub(super) async fn recover(client: &Client, out: Out, wish: Wish) -> Result<u8, Failure> {
    if let Some(record) = &wish.apply {
        let record = if record == "-" { from_stdin()? } else { record.clone() };
        return hand_over(client, out, record.trim().to_owned()).await;
    }
    let plan = client.plan_recovery(wish.force).await?;
    if wish.dry_run && out.json {
        out.json(&plan)?;
    } else {
        show(&plan).into_iter().for_each(|line| out.note(line));
    }
    let Some(record) = &plan.record else {
        let failure = Failure::new(plan.problem.clone().unwrap_or_else(|| "nothing can be recovered here".into()));
        return Err(plan.hint.clone().map_or_else(|| failure.clone(), |hint| failure.clone().hint(hint)));
    };
    if wish.dry_run {
        return Ok(EXIT_OK);
    }
    let bytes = crate::state_folder::unhex(record).unwrap_or_default();
    let record: Recovery = decode(&bytes, <Recovery as mesh::wire::Label>::MAX)
        .map_err(|e| Failure::new(format!("the daemon gave a record that is none: {e}")))?;
    let signed = record_text(&record.seal(&read_key(&wish.key, &plan)?));
    if wish.print {
        out.line(&signed)?;
        out.note(format!(
            "not applied; on {} first, then where it is not heard of: mesh recover --apply RECORD",
            plan.heir
        ));
        return Ok(EXIT_OK);
    }
    hand_over(client, out, signed).await
}

/// What would be done, line by line.
fn show(plan: &RecoveryPlan) -> Vec<String> {
    let mut lines = vec![format!("the log of {} would go on, up to {}, as epoch {}", plan.heir, plan.log, plan.epoch)];
    for host in &plan.hosts {
        let state = match host.state {
            HostState::Alive if host.host == plan.heir => "goes on",
            HostState::Alive => "follows",
            HostState::Suspect => "is not certain to be lost",
            HostState::Down | HostState::Left => "is taken for lost; it follows if it ever comes back",
        };
        let voter = if host.voter { " (voter)" } else { "" };
        let log = host.log.as_ref().map_or(String::new(), |log| format!(", log up to {log}"));
        lines.push(format!("  {}{voter} {state}{log}", host.host));
    }
    lines
}

fn from_stdin() -> Result<String, Failure> {
    let mut text = String::new();
    io::stdin().take(TEXT_BYTES_MAX).read_to_string(&mut text)?;
    Ok(text)
}

fn read_key(from: &str, plan: &RecoveryPlan) -> Result<Keys, Failure> {
    let text = if from != "-" {
        fs::read_to_string(from)
            .map_err(|e| Failure::usage(format!("{from}: {e}")).hint("--key names a file, or is `-`"))?
    } else if io::stdin().is_terminal() {
        eprint!("recovery key of mesh {} (mesh-recovery1-…): ", plan.mesh);
        let mut line = String::new();
        io::stdin().read_line(&mut line)?;
        line
    } else {
        from_stdin()?
    };
    let keys = recovery_keys(&text).ok_or_else(|| {
        Failure::usage("that is no recovery key").hint("it begins with `mesh-recovery1-`, as `mesh init` printed it")
    })?;
    match keys.key() == plan.recovery_key {
        true => Ok(keys),
        false => Err(Failure::new(format!("that is the recovery key of another mesh than {}", plan.mesh))
            .hint("`mesh init` printed the right one when this mesh was founded; it is stored nowhere")),
    }
}

async fn hand_over(client: &Client, out: Out, record: String) -> Result<u8, Failure> {
    let epoch = record_from(&record).and_then(|change| Recovery::of(&change).ok()).map_or(0, |record| record.epoch);
    let text = client.recover(record).await?;
    out.note(&text);
    let deadline = Instant::now() + LEADS_WITHIN;
    loop {
        match client.status().await {
            Ok(status) => {
                if let Some(leader) = status.leader.filter(|leader| leader.epoch >= epoch) {
                    out.note(format!("{} leads (epoch {}, term {})", leader.host, leader.epoch, leader.term));
                    out.note(
                        "next: `mesh status`; `mesh replace NAME` or `mesh evict NAME` for each host that is lost",
                    );
                    if out.json {
                        out.json(&Recovered { version: VERSION, text })?;
                    }
                    return Ok(EXIT_OK);
                }
            }
            Err(ClientError::NoDaemon(_) | ClientError::Broken(_) | ClientError::TimedOut) => {} // it starts again
            Err(error) => return Err(error.into()),
        }
        if Instant::now() >= deadline {
            let code = if epoch == 0 { EXIT_FAILED } else { EXIT_NO_LEADER };
            let what =
                format!("the record is taken, but nobody leads epoch {epoch} after {} s", LEADS_WITHIN.as_secs());
            return Err(Failure { code, ..Failure::new(what) }
                .hint("the heir has to take the record too, and be reachable from here: `mesh status` on both"));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::types::RecoveryHost;

    #[test]
    fn everybody_s_fate_is_told_before_the_key_is_asked_for() {
        let host = |host: &str, state, voter| RecoveryHost { host: host.into(), state, voter, log: None };
        let plan = RecoveryPlan {
            version: VERSION,
            mesh: "m".into(),
            heir: "c".into(),
            epoch: 1,
            log: "0.3.40".into(),
            hosts: vec![
                host("a", HostState::Down, true),
                host("b", HostState::Suspect, true),
                RecoveryHost { log: Some("0.3.40".into()), ..host("c", HostState::Alive, true) },
                host("d", HostState::Alive, false),
            ],
            recovery_key: Keys::from_seed([7; 32]).key(),
            record: None,
            problem: None,
            hint: None,
        };
        let lines = show(&plan);
        assert_eq!(lines[0], "the log of c would go on, up to 0.3.40, as epoch 1");
        assert!(lines[1].contains("a (voter) is taken for lost"), "{lines:?}");
        assert!(lines[2].contains("b (voter) is not certain"), "{lines:?}");
        assert!(lines[3].contains("c (voter) goes on, log up to 0.3.40"), "{lines:?}");
        assert!(lines[4].contains("d follows"), "{lines:?}");
    }
}

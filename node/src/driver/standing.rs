//! What stands for a while, for `mesh status`: a pause before all (incident 5), healing that is frozen, blocks and drains
//! with their ends (incident 4), hosts that are being healed or were handed to a human, orders under way, rests, and
//! reboots that nobody ordered (incident 18). With each, what a person may do about it.

use super::Inner;
use super::cases::{order_word, stage_words};
use super::plan::{left, moment, name};
use crate::api::types::{Level, Standing};
use mesh::blame::Verdict;
use mesh::healing::{Kind, Phase, Rule, Rung, Stage, Stop, Told, storm};
use mesh::ledger::Ledger;

/// For how long an unexplained reboot is told.
const UNEXPLAINED_MS: u64 = 24 * 3_600_000;

impl Inner {
    /// All of it, the weightiest first, and what to do, in the same order.
    pub(super) fn standing(&self, ledger: &Ledger, verdicts: &[Verdict]) -> (Vec<Standing>, Vec<String>) {
        let (record, now) = (ledger.healing(), ledger.time_ms());
        let (mut standing, mut next) = (vec![], vec![]);
        let mut put = |code: &str, level, host: Option<String>, text: String, until_ms: Option<u64>, advice: &str| {
            let left_ms = until_ms.map(|until| until.saturating_sub(now));
            standing.push(Standing { code: code.to_owned(), level, host, text, until_ms, left_ms });
            if !advice.is_empty() {
                next.push(advice.to_owned());
            }
        };
        let mut measures: Vec<_> = record.measures.in_force(now).collect();
        measures.sort_by_key(|m| (m.stop != Stop::Pause, m.until_ms, m.host));
        for m in measures.iter().filter(|m| m.stop == Stop::Pause) {
            let text = self.measure_words(ledger, m);
            put("paused", Level::Warning, None, text, Some(m.until_ms), "`mesh resume` ends the pause before its time");
        }
        if let Some(verdict) = verdicts.iter().find(|v| matches!(v, Verdict::Mesh { .. })) {
            let text = format!("healing is frozen: {}", verdict.text(ledger.roster()));
            let advice = "look at what the builds share: the tree, the network, a mirror; `mesh plan` shows the blame";
            put("frozen", Level::Warning, None, text, None, advice);
        }
        if let Some(rule @ Rule::Storm { left_ms, .. }) = storm(record, now) {
            let until = Some(now + left_ms);
            let advice = "look at the hosts that were healed in vain (`mesh audit`), then `mesh resume`";
            put("frozen", Level::Warning, None, rule.text(ledger.roster()), until, advice);
        }
        if record.policy().heal == 0 {
            let text = "healing is off by policy: hosts that fail are shown and left alone".to_owned();
            put("healing-off", Level::Note, None, text, None, "`mesh policy set heal on` turns healing on");
        }
        for (host, case) in record.cases() {
            let host = name(ledger, host);
            let words = stage_words(case.stage, Some(case));
            // Of one that is down there is no more to say here.
            let text = match case.stage {
                Stage::On(Rung::Aside, Phase::Spent) if case.down => format!("{host}: {words}"),
                _ => format!("{host}: {words} ({})", case.why),
            };
            let advice = match case.stage {
                Stage::Human => format!(
                    "look at {host} (`mesh why {host}`); when it is well: mesh clear {host} --reason \"what was done\""
                ),
                _ => format!("`mesh why {host}` says what was tried, and what holds the next step back"),
            };
            let code = if case.stage == Stage::Human { "human" } else { "healing" };
            // Who was merely down is let back as soon as it stays up: when that is, nobody can say.
            let lapses = matches!(case.stage, Stage::On(_, Phase::CanaryDue)) && case.blamed;
            let until = match &case.order {
                Some(order) => Some(order.until_ms),
                None => lapses.then(|| case.since_ms.saturating_add(record.policy().aside_ms)),
            };
            put(code, Level::Warning, Some(host), text, until, &advice);
        }
        for written in record.orders().filter(|w| w.order.expires_ms > now && w.proof.is_none()) {
            let (order, host) = (&written.order, name(ledger, &written.order.target));
            let text = format!(
                "{host}: {} ({}) by {} until {} ({}), {}: {}",
                order.act,
                order.id,
                name(ledger, &written.by),
                moment(order.expires_ms),
                left(order.expires_ms - now),
                order_word(ledger, written),
                order.reason
            );
            put("order", Level::Warning, Some(host), text, Some(order.expires_ms), "");
        }
        for m in measures.iter().filter(|m| m.stop != Stop::Pause) {
            let text = self.measure_words(ledger, m);
            let host = m.host.as_ref().map(|host| name(ledger, host));
            let (code, verb) = if m.stop == Stop::Block { ("blocked", "unblock") } else { ("drained", "undrain") };
            let advice = format!("`mesh {verb} {}` ends that before its time", host.as_deref().unwrap_or_default());
            put(code, Level::Note, host, text, Some(m.until_ms), &advice);
        }
        for verdict in verdicts {
            if let Verdict::Rest { host, until_ms, .. } = verdict
                && *until_ms > now
            {
                let text = format!("{} until {}", verdict.text(ledger.roster()), moment(*until_ms));
                put("resting", Level::Note, Some(name(ledger, host)), text, Some(*until_ms), "");
            }
        }
        let lately = |line: &&mesh::healing::Line| line.at_ms.saturating_add(UNEXPLAINED_MS) > now;
        for line in record.audit().lines().rev().take_while(lately) {
            if let (Kind::Told(Told::Unexplained), Some(host)) = (line.kind, &line.host) {
                let host = name(ledger, host);
                let text =
                    format!("{host} started anew at {}, and no order says why: {}", moment(line.at_ms), line.text);
                let advice =
                    format!("ask who rebooted {host}, or look at its power (`last -x`, `journalctl -b -1 -e`)");
                let until = Some(line.at_ms.saturating_add(UNEXPLAINED_MS));
                put("unexplained-reboot", Level::Note, Some(host), text, until, &advice);
            }
        }
        (standing, next)
    }
}

//! Whether this host's own firewall lets the mesh's port through, read from what its tool prints; and the lines that
//! open it. Reads rules as far as people write them for one host: what it cannot read it takes for open, for a doctor
//! who cries wolf is not asked again.

/// What a firewall's tool has printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rules {
    /// `ufw status`.
    Ufw(String),
    /// `firewall-cmd --list-ports` of the default zone.
    Firewalld(String),
    /// `nft list ruleset`.
    Nft(String),
    /// `iptables -S INPUT`.
    Iptables(String),
}

/// The protocols that the mesh listens with.
const PROTOCOLS: [&str; 2] = ["tcp", "udp"];

/// Lines that open the port, when these rules close it; empty when they do not.
pub fn closed(rules: &Rules, port: u16) -> Vec<String> {
    match rules {
        Rules::Ufw(text) => ufw(text, port),
        Rules::Firewalld(text) => firewalld(text, port),
        Rules::Nft(text) => nft(text, port),
        Rules::Iptables(text) => iptables(text, port),
    }
}

/// A line of one tool, where nothing is known of which there is.
pub fn example(port: u16) -> String {
    format!("for example `ufw allow {port}`")
}

fn ufw(text: &str, port: u16) -> Vec<String> {
    let mut lines = text.lines().map(str::trim);
    if !lines.any(|line| line == "Status: active") {
        return vec![];
    }
    let allows = |protocol: &str| {
        lines.clone().any(|line| {
            let mut words = line.split_whitespace();
            let to = words.next().unwrap_or_default();
            let hit = to == format!("{port}") || to == format!("{port}/{protocol}") || to == "Anywhere";
            hit && words.any(|word| word == "ALLOW")
        })
    };
    match PROTOCOLS.iter().all(|protocol| allows(protocol)) {
        true => vec![],
        false => vec![format!("ufw allow {port}")],
    }
}

fn firewalld(text: &str, port: u16) -> Vec<String> {
    let open = |protocol: &str| {
        text.split_whitespace()
            .any(|entry| entry.split_once('/').is_some_and(|(ports, of)| of == protocol && holds(ports, port)))
    };
    let missing: Vec<String> =
        PROTOCOLS.iter().filter(|p| !open(p)).map(|p| format!("--add-port={port}/{p}")).collect();
    match missing.is_empty() {
        true => vec![],
        false => vec![format!("firewall-cmd --permanent {}", missing.join(" ")), "firewall-cmd --reload".into()],
    }
}

/// `7400`, `7000-8000`.
fn holds(ports: &str, port: u16) -> bool {
    match ports.split_once(['-', ':']) {
        Some((low, high)) => low.parse().is_ok_and(|l: u16| l <= port) && high.parse().is_ok_and(|h: u16| port <= h),
        None => ports.parse() == Ok(port),
    }
}

/// A chain of an nft ruleset.
#[derive(Default)]
struct Chain<'t> {
    family: &'t str,
    table: &'t str,
    name: &'t str,
    rules: Vec<&'t str>,
}

fn nft(text: &str, port: u16) -> Vec<String> {
    let mut chains: Vec<Chain<'_>> = vec![];
    let (mut family, mut table) = ("", "");
    for line in text.lines().map(str::trim) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["table", f, t, "{"] => (family, table) = (f, t),
            ["chain", name, "{"] => chains.push(Chain { family, table, name, rules: vec![] }),
            _ => chains.last_mut().map(|chain| chain.rules.push(line)).unwrap_or_default(),
        }
    }
    let closes = |chain: &&Chain<'_>| {
        let base = chain.rules.iter().find(|rule| rule.contains("hook input"));
        let last = chain.rules.iter().rev().find(|rule| !rule.is_empty() && **rule != "}");
        base.is_some_and(|base| base.contains("policy drop") || last.is_some_and(|last| ends_all(last)))
    };
    // A chain that the input's jumps to may accept as well.
    let accepts = |protocol: &str| chains.iter().flat_map(|c| &c.rules).any(|rule| nft_accepts(rule, protocol, port));
    let Some(chain) = chains.iter().find(closes) else { return vec![] };
    PROTOCOLS
        .iter()
        .filter(|protocol| !accepts(protocol))
        .map(|protocol| {
            let Chain { family, table, name, .. } = chain;
            format!("nft insert rule {family} {table} {name} {protocol} dport {port} accept")
        })
        .collect()
}

/// A rule without a condition that lets nothing through.
fn ends_all(rule: &str) -> bool {
    let words: Vec<&str> = rule.split_whitespace().filter(|word| *word != "counter").collect();
    matches!(words[..], ["drop" | "reject"] | ["reject", "with", ..])
}

fn nft_accepts(rule: &str, protocol: &str, port: u16) -> bool {
    if !rule.split_whitespace().any(|word| word == "accept") {
        return false;
    }
    let ours = rule.contains(&format!("{protocol} dport")) || rule.contains("th dport");
    let ports = rule.split_once("dport ").map(|(_, rest)| rest).unwrap_or_default();
    let ports = match ports.trim_start().strip_prefix('{') {
        Some(set) => set.split('}').next().unwrap_or_default(),
        None => ports.split_whitespace().next().unwrap_or_default(),
    };
    ours && ports.split(',').any(|entry| holds(entry.trim(), port))
}

fn iptables(text: &str, port: u16) -> Vec<String> {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let ends = |line: &&&str| ["-A INPUT -j DROP", "-A INPUT -j REJECT"].iter().any(|end| line.starts_with(end));
    let closes = lines.contains(&"-P INPUT DROP") || lines.last().iter().any(ends);
    if !closes {
        return vec![];
    }
    let accepts = |protocol: &str| {
        lines.iter().any(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let after = |name: &str| words.iter().position(|w| *w == name).and_then(|at| words.get(at + 1));
            let ports = after("--dport").or(after("--dports"));
            after("-p") == Some(&protocol)
                && after("-j") == Some(&"ACCEPT")
                && ports.is_some_and(|ports| ports.split(',').any(|entry| holds(entry, port)))
        })
    };
    PROTOCOLS
        .iter()
        .filter(|protocol| !accepts(protocol))
        .map(|protocol| format!("iptables -I INPUT -p {protocol} --dport {port} -j ACCEPT"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ufw_closes_what_it_does_not_allow_while_it_is_active() {
        let closed_by = |text: &str| closed(&Rules::Ufw(text.into()), 7400);
        assert!(closed_by("Status: inactive\n").is_empty());
        let active = "Status: active\n\nTo                         Action      From\n--                         ------      ----\n22/tcp                     ALLOW       Anywhere\n";
        assert_eq!(closed_by(active), ["ufw allow 7400"]);
        assert!(closed_by(&format!("{active}7400                       ALLOW       Anywhere\n")).is_empty());
        let half = format!("{active}7400/tcp                   ALLOW       Anywhere\n");
        assert_eq!(closed_by(&half), ["ufw allow 7400"], "QUIC is UDP");
        assert!(closed_by(&format!("{half}7400/udp                   ALLOW       192.168.1.0/24\n")).is_empty());
    }

    #[test]
    fn firewalld_lists_what_is_open() {
        let closed_by = |text: &str| closed(&Rules::Firewalld(text.into()), 7400);
        assert!(closed_by("22/tcp 7400/tcp 7400/udp\n").is_empty());
        assert!(closed_by("7000-8000/tcp 7000-8000/udp\n").is_empty());
        assert_eq!(closed_by("7400/tcp\n"), ["firewall-cmd --permanent --add-port=7400/udp", "firewall-cmd --reload"]);
    }

    #[test]
    fn an_nft_chain_that_drops_names_itself() {
        let ruleset = |chain: &str, rule: &str, end: &str| {
            format!(
                "table inet filter {{\n\tchain input {{\n\t\ttype filter hook input priority filter; policy {chain};\n\t\tct state \
                 established,related accept\n\t\ttcp dport 22 accept\n\t\t{rule}\n\t\t{end}\n\t}}\n\tchain forward {{\n\t\ttype filter \
                 hook forward priority filter; policy drop;\n\t}}\n}}\n"
            )
        };
        let closed_by = |text: &str| closed(&Rules::Nft(text.into()), 7400);
        assert!(closed_by("").is_empty());
        assert!(closed_by(&ruleset("accept", "", "")).is_empty(), "forwarding is none of our business");
        let both = [
            "nft insert rule inet filter input tcp dport 7400 accept",
            "nft insert rule inet filter input udp dport 7400 accept",
        ];
        assert_eq!(closed_by(&ruleset("drop", "", "")), both);
        assert_eq!(closed_by(&ruleset("accept", "", "counter reject with icmpx admin-prohibited")), both);
        assert_eq!(closed_by(&ruleset("drop", "tcp dport { 80, 7400 } accept", "")), both[1..]);
        assert!(closed_by(&ruleset("drop", "meta l4proto { tcp, udp } th dport 7400 accept", "")).is_empty());
        assert!(closed_by(&ruleset("drop", "tcp dport 7000-8000 accept\n\t\tudp dport 7400 accept", "")).is_empty());
        assert_eq!(closed_by(&ruleset("drop", "tcp dport 7400 drop", "")), both, "dropped by name");
    }

    #[test]
    fn iptables_drops_by_policy_or_by_its_last_rule() {
        let closed_by = |text: &str| closed(&Rules::Iptables(text.into()), 7400);
        assert!(closed_by("-P INPUT ACCEPT\n-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT\n").is_empty());
        let both =
            ["iptables -I INPUT -p tcp --dport 7400 -j ACCEPT", "iptables -I INPUT -p udp --dport 7400 -j ACCEPT"];
        assert_eq!(closed_by("-P INPUT DROP\n-A INPUT -i lo -j ACCEPT\n"), both);
        assert_eq!(closed_by("-P INPUT ACCEPT\n-A INPUT -j REJECT --reject-with icmp-port-unreachable\n"), both);
        let open = "-P INPUT DROP\n-A INPUT -p tcp -m tcp --dport 7400 -j ACCEPT\n-A INPUT -p udp -m multiport --dports 53,7400:7402 -j ACCEPT\n";
        assert!(closed_by(open).is_empty());
    }
}

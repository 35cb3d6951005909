//! Whether a firewall of this machine drops what it is not told to forward: Docker and ufw set one up.

use std::process::Command;

use serde_json::Value;

use super::checks::{bad, ok};
use super::{Finding, Level};

/// What is known of the chains that forwarded packets pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Forwarding {
    /// Those among them that drop what no rule accepts, as `FAMILY TABLE CHAIN`.
    Dropping(Vec<String>),
    /// They could not be looked at, for this reason.
    Unseen(&'static str),
}

impl Forwarding {
    /// Asks nft(8), which also shows what `iptables` has set up, unless that is the legacy one.
    pub(super) fn read() -> Self {
        let Some(output) = ["nft", "/usr/sbin/nft", "/sbin/nft"]
            .iter()
            .find_map(|nft| Command::new(nft).args(["-j", "list", "chains"]).output().ok())
        else {
            return Self::Unseen("there is no `nft` to ask");
        };
        if !output.status.success() {
            return Self::Unseen("`nft` may not look: ask as root");
        }
        Self::parse(&output.stdout)
    }

    fn parse(answer: &[u8]) -> Self {
        let Ok(answer) = serde_json::from_slice::<Value>(answer) else {
            return Self::Unseen("`nft` answers in a language of its own");
        };
        let items = answer["nftables"].as_array().into_iter().flatten();
        let drops = |chain: &&Value| chain["hook"] == "forward" && chain["policy"] == "drop";
        let name = |chain: &Value| ["family", "table", "name"].map(|key| chain[key].as_str().unwrap_or("?")).join(" ");
        Self::Dropping(items.map(|item| &item["chain"]).filter(drops).map(name).collect())
    }

    pub(super) fn judge(&self, interface: &str) -> Finding {
        const SUBJECT: &str = "firewall";
        match self {
            Self::Unseen(why) => ok(SUBJECT, format!("not looked at: {why}")),
            Self::Dropping(chains) if chains.is_empty() => {
                ok(SUBJECT, "nft shows no chain that forwards nothing".to_owned())
            }
            Self::Dropping(chains) => {
                let found = format!("drops what it is not told to forward: chain {}", chains.join(", "));
                let rule = |chain: &String| {
                    format!(
                        "nft insert rule {chain} iifname {interface} accept; nft insert rule {chain} oifname {interface} accept"
                    )
                };
                let rules: Vec<_> = chains.iter().map(rule).collect();
                bad(Level::Warn, SUBJECT, found, format!("unless its rules let this through: {}", rules.join("; ")))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_chain_that_drops_what_is_forwarded_is_named() {
        let chain = |name: &str, hook: &str, policy: &str| {
            format!(
                r#"{{"chain": {{"family": "ip", "table": "filter", "name": "{name}", "hook": "{hook}", "policy": "{policy}"}}}}"#
            )
        };
        let chains =
            [chain("FORWARD", "forward", "drop"), chain("INPUT", "input", "drop"), chain("mine", "forward", "accept")];
        let plain = r#"{"chain": {"family": "ip", "table": "filter", "name": "plain"}}"#;
        let answer = format!(r#"{{"nftables": [{{"metainfo": {{}}}}, {plain}, {}]}}"#, chains.join(", "));
        let seen = Forwarding::parse(answer.as_bytes());
        assert_eq!(seen, Forwarding::Dropping(vec!["ip filter FORWARD".to_owned()]));
        let finding = seen.judge("gate");
        assert_eq!(finding.level, Level::Warn);
        assert!(finding.remedy.unwrap().contains("nft insert rule ip filter FORWARD iifname gate accept"));
        assert_eq!(Forwarding::parse(br#"{"nftables": []}"#).judge("gate").level, Level::Ok);
        assert!(matches!(Forwarding::parse(b"table ip"), Forwarding::Unseen(_)));
    }
}

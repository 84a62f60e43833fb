//! Rules of legacy tables as `iptables -S` prints them.

use std::{fmt::Write as _, net::IpAddr};

use super::{AddressMatch, Chain, Rule, Table, Target, Verdict, address::Network};

impl Table {
    /// The rule with this number, from 1, as `iptables -S CHAIN NUMBER` prints it. An extension whose options tracer does not
    /// read is given by name only. `None` if there is no such rule.
    #[must_use]
    pub fn rule_text(&self, chain: &str, number: usize) -> Option<String> {
        let chain = self.chains.iter().find(|known| known.name == chain)?;
        let rule = chain.rules.get(number.checked_sub(1)?)?;
        Some(self.text(chain, rule))
    }

    fn text(&self, chain: &Chain, rule: &Rule) -> String {
        let mut out = format!("-A {}", chain.name);
        rule.address.write(self.is_v6, &mut out);
        for found in &rule.matches {
            let _ = write!(out, " -m {}", found.name);
            if let Some(comment) = found.comment() {
                let _ = write!(out, " --comment \"{comment}\"");
            } else if let Some(port) = found.dport() {
                let _ = write!(out, " --dport {port}");
            }
        }
        let name = |index: usize| self.chains.get(index).map_or("?", |chain| chain.name.as_str());
        let _ = match &rule.target {
            Target::Verdict(Verdict::Accept) => write!(out, " -j ACCEPT"),
            Target::Verdict(Verdict::Drop) => write!(out, " -j DROP"),
            Target::Verdict(Verdict::Return) => write!(out, " -j RETURN"),
            Target::Verdict(Verdict::Other(_)) => write!(out, " -j QUEUE"),
            Target::Jump(to) => write!(out, " -j {}", name(*to)),
            Target::Goto(to) => write!(out, " -g {}", name(*to)),
            Target::Extension(name) => write!(out, " -j {name}"),
            Target::Nothing => Ok(()),
        };
        out
    }
}

impl AddressMatch {
    fn write(&self, is_v6: bool, out: &mut String) {
        let mut add = |inverted: bool, option: &str, value: Option<String>| {
            if let Some(value) = value {
                let not = if inverted { " !" } else { "" };
                let _ = write!(out, "{not} {option} {value}");
            }
        };
        let [source, destination] = self.networks();
        add(source.1, "-s", network(source.0, is_v6));
        add(destination.1, "-d", network(destination.0, is_v6));
        let [input, output] = self.devices();
        add(input.1, "-i", input.0.pattern());
        add(output.1, "-o", output.0.pattern());
        let (protocol, inverted) = self.protocol();
        let protocol = match protocol {
            0 => None,
            1 => Some("icmp".to_owned()),
            6 => Some("tcp".to_owned()),
            17 => Some("udp".to_owned()),
            58 => Some("ipv6-icmp".to_owned()),
            other => Some(other.to_string()),
        };
        add(inverted, "-p", protocol);
    }
}

fn network(network: &Network, is_v6: bool) -> Option<String> {
    let (address, mask) = network.bytes();
    if mask.iter().all(|&byte| byte == 0) {
        return None;
    }
    let length: u32 = mask.iter().map(|byte| byte.count_ones()).sum();
    let address: IpAddr = if is_v6 {
        address.into()
    } else {
        let [a, b, c, d, ..] = address;
        [a, b, c, d].into()
    };
    Some(format!("{address}/{length}"))
}

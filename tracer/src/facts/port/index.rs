//! Finds, for each port, the objects of a network namespace that name it for a service, and how a packet reaches them.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    MAX_OBJECTS, ObjectKind, PortObject, WhyNot,
    walk::{Kept, Matches, NftTable, Walk, place_of_legacy, place_of_nft},
};
use crate::facts::{
    iptables::{self, Packet, Table, Target},
    ipvs::{Listens, Service},
    kube_proxy::{CHAINS, in_chain, in_comment},
    nft::{
        Chain, Family,
        map::Map,
        port_set::SetName,
        rule::{Decides, Rule, dports::Dports, registers::Key},
    },
    port_range::PortRanges,
};

/// `IPPROTO_TCP`.
const TCP: u8 = 6;
/// The netfilter hooks at which destinations are translated: for packets from devices, and from the node itself
/// (`enum nf_inet_hooks`).
const PREROUTING: u32 = 0;
const OUTPUT: u32 = 3;

/// Everything that is searched.
#[derive(Debug, Default)]
pub struct Sources {
    /// Chains of nf_tables.
    pub chains: Vec<Chain>,
    /// Rules of nf_tables.
    pub rules: Vec<Rule>,
    /// Verdict maps of nf_tables.
    pub maps: Vec<Map>,
    /// Legacy tables of iptables.
    pub tables: Vec<Table>,
    /// The ports in sets and maps by which rules match or translate.
    pub port_sets: Vec<(SetName, PortRanges)>,
    /// IP sets of ports: name, whether it is for IPv6, ports.
    pub ip_sets: Vec<(String, bool, BTreeSet<u16>)>,
    /// Virtual services of IPVS.
    pub services: Vec<Service>,
}

/// The objects by port.
#[derive(Debug, Default)]
pub struct PortIndex {
    objects: BTreeMap<(bool, u16), Vec<Indexed>>,
    /// Objects that name several ports, and whether they are for IPv6.
    ranged: Vec<(bool, PortRanges, Indexed)>,
    /// Rules that can end a chain, or exclude a packet from connection tracking.
    rules: Vec<Kept>,
    /// The latter: indices into `rules`, and whether they are for IPv6.
    untracking: Vec<(bool, usize)>,
}

/// An object, and how a packet reaches it.
#[derive(Debug)]
struct Indexed {
    object: PortObject,
    /// Its own conditions, if it is a rule.
    conditions: Option<Matches>,
    /// For a translation: the rules before it that can end its chain, from prerouting and from output; `None` if no rule leads
    /// to it.
    before: [Option<Vec<usize>>; 2],
    translates: bool,
    /// The address of a virtual service.
    address: Option<std::net::IpAddr>,
}

impl Indexed {
    fn new(kind: ObjectKind, place: String, service: Option<String>) -> Self {
        Self {
            object: PortObject {
                kind,
                place,
                service,
                why_not: None,
            },
            conditions: None,
            before: [None, None],
            translates: false,
            address: None,
        }
    }
}

impl PortIndex {
    /// Indexes everything.
    #[must_use]
    pub fn new(sources: &Sources) -> Self {
        let mut index = Self::default();
        index.add_sets(sources);
        index.add_nft(sources);
        for table in &sources.tables {
            index.add_legacy(table);
        }
        index
    }

    /// The objects that name this packet's destination port. With `is_from_node`, the node itself sent the packet.
    #[must_use]
    pub fn objects(&self, packet: &Packet<'_>, is_from_node: bool) -> Vec<PortObject> {
        let key = (packet.destination.is_ipv6(), packet.inner.dport);
        let ranged = self.ranged.iter().filter(|(is_v6, ports, _)| {
            *is_v6 == packet.destination.is_ipv6() && ports.contains(packet.inner.dport)
        });
        let found = self
            .objects
            .get(&key)
            .into_iter()
            .flatten()
            .chain(ranged.map(|(_, _, indexed)| indexed));
        let mut objects: Vec<PortObject> = found
            .map(|indexed| PortObject {
                why_not: self.why_not(indexed, packet, is_from_node),
                ..indexed.object.clone()
            })
            .collect();
        // Those that name the service come first.
        objects.sort_by_key(|object| object.service.is_none());
        objects.truncate(MAX_OBJECTS);
        objects
    }

    /// Rules that may have excluded this packet from connection tracking.
    #[must_use]
    pub fn untracked_by(&self, packet: &Packet<'_>) -> Vec<String> {
        let is_v6 = packet.destination.is_ipv6();
        let rules = self.untracking.iter().filter(|(of_v6, _)| *of_v6 == is_v6);
        rules
            .filter_map(|&(_, rule)| self.rules.get(rule))
            .filter(|rule| rule.conditions.can_fit(packet))
            .map(|rule| rule.place.clone())
            .take(MAX_OBJECTS)
            .collect()
    }

    fn why_not(&self, indexed: &Indexed, packet: &Packet<'_>, is_from_node: bool) -> Option<WhyNot> {
        if let Some(address) = indexed.address {
            return (address != packet.destination).then_some(WhyNot::OtherAddress);
        }
        if !indexed.translates {
            return None;
        }
        let Some(before) = &indexed.before[usize::from(is_from_node)] else {
            return Some(WhyNot::NotReached);
        };
        let mut ends = before.iter().filter_map(|&rule| self.rules.get(rule));
        if let Some(end) = ends.find(|rule| rule.conditions.can_fit(packet)) {
            return Some(WhyNot::EndedBefore(end.place.clone()));
        }
        let fits = indexed
            .conditions
            .as_ref()
            .is_none_or(|conditions| conditions.can_fit(packet));
        (!fits).then_some(WhyNot::NoMatch)
    }

    fn add(&mut self, port: u16, is_v6: bool, indexed: Indexed) {
        self.objects.entry((is_v6, port)).or_default().push(indexed);
    }

    fn add_named(&mut self, ports: Named, is_v6: bool, indexed: Indexed) {
        match ports {
            Named::One(port) => self.add(port, is_v6, indexed),
            Named::Several(ports) => self.ranged.push((is_v6, ports, indexed)),
        }
    }

    fn add_sets(&mut self, sources: &Sources) {
        for (name, is_v6, ports) in &sources.ip_sets {
            for &port in ports {
                let place = format!("IP set {name}");
                self.add(port, *is_v6, Indexed::new(ObjectKind::IpSet, place, None));
            }
        }
        for service in &sources.services {
            if let Listens::Address {
                protocol: TCP,
                address,
            } = service.listens
            {
                let place = format!("IPVS virtual service {address}");
                let mut indexed = Indexed::new(ObjectKind::VirtualService, place, None);
                indexed.address = Some(address.ip());
                self.add(address.port(), address.is_ipv6(), indexed);
            }
        }
    }

    fn add_nft(&mut self, sources: &Sources) {
        let mut tables: BTreeMap<(Family, &str), NftTable<'_>> = BTreeMap::new();
        for chain in &sources.chains {
            let table = tables.entry((chain.family, &chain.table)).or_default();
            table.bases.push(chain);
        }
        for rule in &sources.rules {
            let table = tables.entry((rule.family, &rule.table)).or_default();
            table.rules.entry(&rule.chain).or_default().push(rule);
        }
        for ((family, name), table) in &tables {
            let versions: &[bool] = match family {
                Family::Inet => &[false, true],
                Family::Ip => &[false],
                Family::Ip6 => &[true],
                _ => continue,
            };
            let maps = sources
                .maps
                .iter()
                .filter(|map| map.family == *family && map.table == *name);
            let maps: Vec<&Map> = maps.collect();
            let mut walk = Walk::default();
            for (slot, hook) in [PREROUTING, OUTPUT].into_iter().enumerate() {
                let bases = table.bases.iter().filter(|chain| {
                    let base = chain.base.as_ref();
                    base.is_some_and(|base| base.hook == hook && base.kind == "nat")
                });
                for base in bases {
                    walk.slot = slot;
                    walk.nft(table, &mut self.rules, &base.name, &mut Vec::new(), 0);
                }
                walk.seen.clear();
            }
            for rule in table.rules.values().flatten() {
                for &is_v6 in versions {
                    self.add_nft_rule(rule, is_v6, &walk, &sources.port_sets);
                    self.add_elements(rule, &maps, is_v6, &walk);
                }
            }
            // A map that no rule uses names its ports too.
            let is_used = |map: &Map| {
                let mut rules = table.rules.values().flatten();
                rules.any(|rule| matches!(&rule.decides, Decides::Map(name) if *name == map.name))
            };
            for map in maps.iter().filter(|map| !is_used(map)) {
                for &is_v6 in versions {
                    self.add_map(map, None, is_v6, &[None, None]);
                }
            }
        }
    }

    fn add_nft_rule(&mut self, rule: &Rule, is_v6: bool, walk: &Walk, sets: &[(SetName, PortRanges)]) {
        if rule.untracks
            || matches!(&rule.decides, Decides::Extension(name) if UNTRACKING.contains(&name.as_str()))
        {
            self.untracking.push((is_v6, self.rules.len()));
            self.rules.push(Kept::of_nft(rule));
        }
        let leads_to = match &rule.decides {
            Decides::Verdict(verdict) => verdict.chain(),
            _ => None,
        };
        let Some(ports) = Named::by_nft(rule, sets) else {
            return;
        };
        let comment = rule.comment.as_deref().and_then(in_comment);
        let is_known = CHAINS.contains(&(rule.table.as_str(), rule.chain.as_str()));
        let translates = rule.translation.is_some() || leads_to.is_some_and(is_of_kube_proxy);
        if translates || is_known && comment.is_some() {
            let mut indexed = Indexed::new(ObjectKind::Rule, place_of_nft(rule), comment);
            indexed.translates = translates;
            indexed.before = walk.before(&(rule.chain.clone(), rule.number));
            indexed.conditions = Some(Matches::Nft(rule.conditions.clone()));
            self.add_named(ports, is_v6, indexed);
        }
    }

    /// Adds the elements of the map that this rule uses.
    fn add_elements(&mut self, rule: &Rule, maps: &[&Map], is_v6: bool, walk: &Walk) {
        let Decides::Map(name) = &rule.decides else {
            return;
        };
        for map in maps.iter().filter(|map| map.name == *name) {
            let unit = rule.key.as_ref().and_then(Key::dport_unit);
            self.add_map(map, unit, is_v6, &walk.before(&(rule.chain.clone(), rule.number)));
        }
    }

    /// Adds the elements of a map. `unit` says which 4 bytes of its key hold the port; without it, the keys are protocol
    /// and port.
    fn add_map(&mut self, map: &Map, unit: Option<usize>, is_v6: bool, before: &[Option<Vec<usize>>; 2]) {
        for element in &map.elements {
            let port = element.tcp_port().or_else(|| element.port_at(unit?));
            let Some(port) = port else { continue };
            let service = element.comment.as_deref().and_then(in_comment);
            let chain = element.verdict.chain();
            let service = service.or_else(|| chain.and_then(in_chain));
            let place = format!(
                "map {} of the nf_tables table {} {}",
                map.name, map.family, map.table
            );
            let mut indexed = Indexed::new(ObjectKind::MapElement, place, service);
            // An element that only rejects or drops is for a service without endpoints.
            indexed.translates = chain.and_then(in_chain).is_some();
            indexed.before.clone_from(before);
            self.add(port, is_v6, indexed);
        }
    }

    fn add_legacy(&mut self, table: &Table) {
        let mut walk = Walk::default();
        for (slot, hook) in [PREROUTING, OUTPUT].into_iter().enumerate() {
            let base = table
                .chains
                .iter()
                .position(|chain| chain.base.is_some_and(|(found, _)| found == hook));
            if let Some(base) = base.filter(|_| table.name == "nat") {
                walk.slot = slot;
                walk.legacy(table, &mut self.rules, base, &mut Vec::new(), 0);
                walk.seen.clear();
            }
        }
        for found in table.rules() {
            let iptables::Found { chain, number, rule } = found;
            let untracks =
                matches!(&rule.target, Target::Extension(name) if UNTRACKING.contains(&name.as_str()));
            if untracks {
                self.untracking.push((table.is_v6, self.rules.len()));
                self.rules.push(Kept::of_legacy(table, &found));
            }
            let leads_to = match rule.target {
                Target::Jump(index) | Target::Goto(index) => table.chains.get(index),
                _ => None,
            };
            let Some(ports) = Named::of(rule.dport(), rule.dports()) else {
                continue;
            };
            let comment = rule.comment().as_deref().and_then(in_comment);
            let is_known = CHAINS.contains(&(table.name.as_str(), chain.name.as_str()));
            let translates = table.name == "nat"
                && (rule.translation.is_some()
                    || leads_to.is_some_and(|chain| is_of_kube_proxy(&chain.name)));
            if translates || is_known && comment.is_some() {
                let place = place_of_legacy(table, &found);
                let mut indexed = Indexed::new(ObjectKind::Rule, place, comment);
                indexed.translates = translates;
                indexed.before = walk.before(&(chain.name.clone(), number));
                indexed.conditions = Some(Matches::Legacy(rule.address.clone(), rule.matches.clone()));
                self.add_named(ports, table.is_v6, indexed);
            }
        }
    }
}

/// The ports that a rule names.
enum Named {
    One(u16),
    Several(PortRanges),
}

impl Named {
    fn of(one: Option<u16>, several: PortRanges) -> Option<Self> {
        let several = Some(several).filter(|ports| !ports.is_empty());
        one.map(Self::One).or(several.map(Self::Several))
    }

    fn by_nft(rule: &Rule, sets: &[(SetName, PortRanges)]) -> Option<Self> {
        let several = match &rule.dports {
            Some(Dports::Ranges(ranges)) => ranges.clone(),
            Some(Dports::Set { .. }) => {
                let name = SetName::of(rule)?;
                let (_, ports) = sets.iter().find(|(known, _)| *known == name)?;
                Some(ports).filter(|ports| ports.names_ports())?.clone()
            }
            None => PortRanges::default(),
        };
        Self::of(rule.dport, several)
    }
}

/// Targets that can exclude packets from connection tracking.
const UNTRACKING: [&str; 2] = ["CT", "NOTRACK"];

/// Whether kube-proxy made the chain.
fn is_of_kube_proxy(chain: &str) -> bool {
    chain.starts_with("KUBE-") || in_chain(chain).is_some()
}

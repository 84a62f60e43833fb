use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// Where a kernel keeps each field.
type Layout = BTreeMap<Field, u32>;

fn layout(state: u32, dest: u32, available: u32) -> Layout {
    let mut layout: Layout = Field::all().map(|field| (field, field.candidates()[0])).collect();
    layout.extend([
        (Field::State, state),
        (Field::Dest, dest),
        (Field::DestAvailable, available),
    ]);
    layout
}

/// Debian 5.10, and everything else from 4.19 to 6.18 with a timer of 40 bytes.
fn mainline() -> Layout {
    layout(148, 184, 52)
}

/// Linux 7.2: every member of the entry has moved.
fn rearranged() -> Layout {
    let mut layout = layout(90, 48, 64);
    layout.extend([
        (Field::ClientPort, 22),
        (Field::RealServerPort, 46),
        (Field::ServicePort, 148),
        (Field::Family, 21),
        (Field::RealServerFamily, 144),
        (Field::ClientAddress, 96),
        (Field::ServiceAddress, 112),
        (Field::RealServerAddress, 128),
        (Field::ConnFlags, 60),
        (Field::Protocol, 150),
    ]);
    layout
}

/// The known facts about as many connections as the testbed makes, and as varied.
fn known() -> Vec<Known> {
    let conn = |protocol, client: &str, service: &str, real_server: &str, state, weight| Known {
        protocol,
        client: client.parse().unwrap(),
        service: service.parse().unwrap(),
        real_server: real_server.parse().unwrap(),
        state,
        flags: Flags {
            known: 0x1_0103,
            set: 0x100,
        },
        weight,
        available: true,
        overloaded: false,
    };
    let mut all = vec![
        conn(
            6,
            "127.83.1.1:40001",
            "127.31.1.1:30083",
            "127.161.1.1:8081",
            1,
            4129,
        ),
        conn(
            6,
            "127.92.1.1:40002",
            "127.32.1.1:31255",
            "127.178.1.1:8082",
            6,
            12_347,
        ),
        conn(
            6,
            "127.83.1.1:40003",
            "127.33.1.1:30809",
            "127.197.1.1:8083",
            3,
            771,
        ),
        conn(
            17,
            "127.92.1.1:40004",
            "127.35.1.1:32001",
            "127.211.1.1:8084",
            0,
            95,
        ),
        conn(6, "[::1]:40005", "[::1]:30666", "[::1]:8085", 7, 0),
    ];
    all[0].flags.set = 0x1_0003;
    all[1].available = false;
    all[2].overloaded = true;
    // Each is printed several times, as in the testbed.
    let times = 3 * all.len();
    all.into_iter().cycle().take(times).collect()
}

/// Memory as a kernel of this layout would have it, with `noise` wherever nothing is known.
fn sample(layout: &Layout, known: Known, noise: impl Fn(usize) -> u8) -> Sample {
    let mut conn: Vec<u8> = (0..288).map(&noise).collect();
    let mut dest: Vec<u8> = (0..128).map(&noise).collect();
    let service = u64::from(known.service.port());
    for field in Field::all() {
        let pattern = field.expected(&known);
        let (mask, value) = match field {
            // One object per real server.
            Field::Dest => (
                u128::from(u64::MAX),
                u128::from(0xffff_8880_0000_0000 | service << 9),
            ),
            _ => (pattern.mask, pattern.value),
        };
        let memory = if field.path().starts_with("ip_vs_conn") {
            &mut conn
        } else {
            &mut dest
        };
        let at = layout[&field] as usize;
        let size = (field.size() as usize).min(memory.len() - at);
        for (index, byte) in memory[at..at + size].iter_mut().enumerate() {
            let (mask, value) = (mask.to_le_bytes()[index], value.to_le_bytes()[index]);
            *byte = *byte & !mask | value & mask;
        }
    }
    // A wrong pointer leads to other memory.
    let pointees = Field::Dest.candidates().iter().map(|&pointer_at| {
        let right = pointer_at == layout[&Field::Dest];
        Pointee {
            pointer_at,
            bytes: if right {
                dest.clone()
            } else {
                (0..128).map(&noise).collect()
            },
        }
    });
    Sample {
        conn,
        pointees: pointees.collect(),
        known,
    }
}

fn samples(layout: &Layout) -> Vec<Sample> {
    known()
        .into_iter()
        .map(|known| sample(layout, known, |at| u8::try_from(at * 37 % 251).unwrap()))
        .collect()
}

fn offsets(layout: &ProvenLayout) -> Layout {
    layout
        .iter()
        .filter_map(|(field, proof)| Some((field, proof.offset?)))
        .collect()
}

#[test]
fn every_known_layout_is_proven() {
    for (state, dest) in [(148, 184), (180, 216), (188, 224)] {
        for available in [52, 64] {
            let layout = layout(state, dest, available);
            let proven = prove(&samples(&layout));
            assert_eq!(offsets(&proven), layout, "{proven}");
        }
    }
}

#[test]
fn nothing_is_proven_on_an_unknown_layout() {
    let proven = prove(&samples(&rearranged()));
    assert_eq!(offsets(&proven), Layout::new(), "{proven}");
}

#[test]
fn nothing_is_proven_without_samples() {
    assert_eq!(offsets(&prove(&[])), Layout::new());
}

#[test]
fn one_contradicting_sample_refutes_an_offset() {
    for field in Field::all() {
        for index in 0..known().len() {
            let layout = mainline();
            let mut samples = samples(&layout);
            let sample = &mut samples[index];
            let at = layout[&field] as usize;
            if field.path().starts_with("ip_vs_conn") {
                sample.conn[at] ^= 3;
            } else {
                sample.pointees[0].bytes[at] ^= 3;
            }
            let proven = prove(&samples);
            assert_eq!(proven.offset(field), None, "{field:?}: {}", proven.reason(field));
        }
    }
}

#[test]
fn a_constant_proves_nothing() {
    let first = known()[0].clone();
    for field in Field::all() {
        let samples: Vec<_> = known()
            .into_iter()
            .map(|mut known| {
                match field {
                    Field::ClientPort => known.client.set_port(first.client.port()),
                    Field::RealServerPort | Field::DestPort => known.real_server.set_port(8080),
                    Field::ServicePort => known.service.set_port(30_080),
                    Field::ClientAddress | Field::Family => known.client.set_ip(first.client.ip()),
                    Field::ServiceAddress => known.service.set_ip(first.service.ip()),
                    Field::RealServerAddress
                    | Field::RealServerFamily
                    | Field::DestAddress
                    | Field::DestFamily => {
                        known.real_server.set_ip(first.real_server.ip());
                    }
                    Field::ConnFlags => known.flags.set |= 0x100,
                    Field::Protocol => known.protocol = 6,
                    Field::State => known.state = 1,
                    Field::Dest => {
                        known = Known {
                            real_server: first.real_server,
                            service: first.service,
                            protocol: 6,
                            ..known
                        };
                    }
                    Field::DestWeight => known.weight = 1,
                    Field::DestFlags => known.overloaded = false,
                    Field::DestAvailable => known.available = true,
                }
                sample(&mainline(), known, |_| 0)
            })
            .collect();
        let proven = prove(&samples);
        assert_eq!(proven.offset(field), None, "{field:?}");
        assert!(
            ["needed", "same in all", "matches at several", "not proven"]
                .iter()
                .any(|why| proven.reason(field).contains(why)),
            "{field:?}: {}",
            proven.reason(field)
        );
    }
}

#[test]
fn two_matching_offsets_prove_none() {
    let mut samples = samples(&mainline());
    for sample in &mut samples {
        sample.conn.copy_within(148..150, 180);
    }
    let proven = prove(&samples);
    assert_eq!(proven.offset(Field::State), None);
    assert_eq!(
        proven.reason(Field::State),
        "matches at several offsets: [148, 180]"
    );
}

#[test]
fn the_pointer_must_lead_to_the_real_server() {
    let right = samples(&mainline());
    let reason = |change: &dyn Fn(&mut Sample)| {
        let mut samples = right.clone();
        samples.iter_mut().for_each(change);
        let proven = prove(&samples);
        assert_eq!(proven.offset(Field::Dest), None);
        assert_eq!(proven.offset(Field::DestWeight), None);
        assert_eq!(proven.offset(Field::State), Some(148));
        proven.reason(Field::Dest).to_owned()
    };
    let set =
        |sample: &mut Sample, pointer: u64| sample.conn[184..192].copy_from_slice(&pointer.to_le_bytes());
    assert!(reason(&|sample| set(sample, 0)).contains("not a kernel pointer"));
    assert!(reason(&|sample| set(sample, 0x7fff_0000_1000)).contains("not a kernel pointer"));
    assert!(reason(&|sample| set(sample, 0xffff_8880_0000_1004)).contains("not a kernel pointer"));
    assert!(reason(&|sample| set(sample, 0xffff_8880_0000_1000)).contains("one pointer for several"));
    assert!(reason(&|sample| sample.pointees.clear()).contains("the memory it points to was not read"));
    assert!(
        reason(&|sample| sample.pointees[0].bytes.truncate(40)).contains("does not point to real server")
    );
}

#[test]
fn one_real_server_has_one_pointer() {
    let mut samples = samples(&mainline());
    let mut twin = samples[0].clone();
    twin.conn[186] ^= 1;
    samples.push(twin);
    assert!(
        prove(&samples)
            .reason(Field::Dest)
            .contains("two pointers for real server")
    );
}

#[test]
fn nothing_is_proven_past_the_end_of_the_memory() {
    let mut samples = samples(&mainline());
    samples[3].conn.truncate(100);
    let proven = prove(&samples);
    assert_eq!(
        (proven.offset(Field::Protocol), proven.offset(Field::State)),
        (Some(76), None)
    );
}

#[test]
fn an_existing_scheduler_is_picked() {
    let modules = |names: &[&str]| {
        let lines: Vec<_> = names
            .iter()
            .map(|name| format!("{name} 1 0 - Live 0x0"))
            .collect();
        Modules::parse(&lines.join("\n"), "")
    };
    assert_eq!(
        pick_scheduler(&modules(&["ip_vs", "ip_vs_wrr", "ip_vs_lc"])),
        Some("wrr")
    );
    assert_eq!(pick_scheduler(&modules(&["ip_vs", "ip_vs_ftp"])), None);
    assert_eq!(pick_scheduler(&modules(&["ip_vs_rr"])), None);
}

proptest! {
    /// Wherever a kernel keeps its fields, a proof finds the true offset or none.
    #[test]
    fn a_wrong_offset_is_never_proven(places in proptest::collection::vec(0_u32..17, 18), noise in any::<u64>()) {
        let mut layout = mainline();
        for (field, place) in Field::all().zip(places) {
            let room = if field.path().starts_with("ip_vs_conn") { 17 } else { 7 };
            // Each at its own offset, or fields would overwrite each other.
            layout.insert(field, if place < room { place * 16 + field as u32 % 8 * 2 } else { layout[&field] });
        }
        let random = |index: usize| move |at: usize| {
            let mixed = (noise ^ ((index as u64) << 32 | at as u64)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            mixed.to_le_bytes()[7]
        };
        let samples: Vec<_> =
            known().into_iter().enumerate().map(|(index, known)| sample(&layout, known, random(index))).collect();
        for (field, offset) in offsets(&prove(&samples)) {
            prop_assert_eq!(offset, layout[&field], "{:?}", field);
        }
    }

    #[test]
    fn noise_proves_nothing(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        let samples: Vec<_> = known()
            .into_iter()
            .zip(bytes.chunks(400))
            .map(|(known, chunk)| {
                let (conn, target) = chunk.split_at(chunk.len().min(288));
                let pointee = Pointee { pointer_at: 184, bytes: target.to_vec() };
                Sample { conn: conn.to_vec(), pointees: vec![pointee], known }
            })
            .collect();
        prop_assert_eq!(offsets(&prove(&samples)), Layout::new());
    }
}

use proptest::prelude::*;

use super::*;

const INT: u32 = 1;
const POINTER: u32 = 2;
const ARRAY: u32 = 3;
const STRUCT: u32 = 4;
const UNION: u32 = 5;
const ENUM: u32 = 6;
const FORWARD: u32 = 7;
const TYPEDEF: u32 = 8;
const VOLATILE: u32 = 9;
const CONST: u32 = 10;
const FUNC: u32 = 12;
const FUNC_PROTO: u32 = 13;
const ENUM64: u32 = 19;

/// Writes BTF as the kernel's build does; types are numbered in the order of `add`.
struct Writer {
    types: Vec<u8>,
    strings: Vec<u8>,
    next_id: u32,
    first_string: u32,
}

impl Writer {
    fn new() -> Self {
        Self {
            types: Vec::new(),
            strings: vec![0],
            next_id: 1,
            first_string: 0,
        }
    }

    fn on_top_of(base: &Self) -> Self {
        let first_string = base.first_string + u32::try_from(base.strings.len()).unwrap();
        Self {
            types: Vec::new(),
            strings: Vec::new(),
            next_id: base.next_id,
            first_string,
        }
    }

    fn string(&mut self, text: &str) -> u32 {
        if text.is_empty() {
            return 0;
        }
        let at = self.first_string + u32::try_from(self.strings.len()).unwrap();
        self.strings.extend_from_slice(text.as_bytes());
        self.strings.push(0);
        at
    }

    fn add(&mut self, name: &str, kind: u32, flag: bool, count: usize, size: u32, tail: &[u32]) -> u32 {
        let name = self.string(name);
        let info = kind << 24 | u32::from(flag) << 31 | u32::try_from(count).unwrap();
        for word in [name, info, size].iter().chain(tail) {
            self.types.extend_from_slice(&word.to_le_bytes());
        }
        self.next_id += 1;
        self.next_id - 1
    }

    fn int(&mut self, name: &str, size: u32) -> u32 {
        self.add(name, INT, false, 0, size, &[size * 8])
    }

    fn refer(&mut self, kind: u32, to: u32) -> u32 {
        self.add("", kind, false, 0, to, &[])
    }

    fn array(&mut self, element: u32, length: u32) -> u32 {
        self.add("", ARRAY, false, 0, 0, &[element, 0, length])
    }

    /// Members are name, type, bit. The flag is set, so the highest byte of the bit may hold a width.
    fn aggregate(&mut self, kind: u32, name: &str, size: u32, members: &[(&str, u32, u32)]) -> u32 {
        let mut tail = Vec::new();
        for &(name, id, bit) in members {
            tail.extend([self.string(name), id, bit]);
        }
        self.add(name, kind, true, members.len(), size, &tail)
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0x9f, 0xeb, 1, 0];
        let types = u32::try_from(self.types.len()).unwrap();
        let strings = u32::try_from(self.strings.len()).unwrap();
        for word in [24, 0, types, types, strings] {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        bytes.extend_from_slice(&self.types);
        bytes.extend_from_slice(&self.strings);
        bytes
    }

    fn btf(&self) -> Btf {
        Btf::parse(self.bytes(), None).unwrap()
    }
}

fn at(byte_offset: u32, size: u32) -> Member {
    Member {
        byte_offset,
        size,
        bits: None,
    }
}

/// A small kernel with every kind of type on the real paths.
fn kernel() -> Writer {
    let mut w = Writer::new();
    let u8 = w.int("unsigned char", 1);
    let u16 = w.int("short unsigned int", 2);
    let u32 = w.int("unsigned int", 4);
    let be16 = w.add("__be16", TYPEDEF, false, 0, u16, &[]);
    let tcp = w.aggregate(
        STRUCT,
        "ip_ct_tcp",
        24,
        &[("seen", u32, 0), ("state", u8, 20 * 8)],
    );
    let volatile = w.refer(VOLATILE, tcp);
    let proto = w.aggregate(
        UNION,
        "nf_conntrack_proto",
        24,
        &[("tcp", volatile, 0), ("gre", u32, 0)],
    );
    let tuple = w.aggregate(STRUCT, "nf_conntrack_tuple", 40, &[("port", be16, 128)]);
    let hash = w.aggregate(STRUCT, "nf_conntrack_tuple_hash", 56, &[("tuple", tuple, 128)]);
    let hashes = w.array(hash, 2);
    let pair = w.aggregate(STRUCT, "", 8, &[("low", u32, 0), ("high", u32, 32)]);
    let either = w.aggregate(UNION, "", 8, &[("pair", u8, 0), ("", pair, 0)]);
    let constant = w.refer(CONST, tcp);
    let pointer = w.refer(POINTER, constant);
    w.aggregate(
        STRUCT,
        "nf_conn",
        256,
        &[
            ("lock", u32, 0),
            ("", either, 64),
            ("tuplehash", hashes, 128),
            ("proto", proto, 1856),
            ("flag", u8, (3 << 24) + 245),
            ("timer", pointer, 1600),
        ],
    );
    let skb = w.add("sk_buff", FORWARD, false, 0, 0, &[]);
    let skb = w.refer(POINTER, skb);
    let names = [w.string("skb"), w.string("ct")];
    let proto = w.add(
        "",
        FUNC_PROTO,
        false,
        3,
        0,
        &[names[0], skb, names[1], pointer, 0, 0],
    );
    w.add("nf_confirm", FUNC, false, 0, proto, &[]);
    let names = [w.string("GOOD"), w.string("BAD")];
    w.add(
        "verdict",
        ENUM,
        true,
        2,
        4,
        &[names[0], 7, names[1], u32::MAX.cast_signed().cast_unsigned()],
    );
    w.add("wide", ENUM64, false, 1, 8, &[names[0], 1, 1]);
    w
}

#[test]
fn finds_members_through_structs_unions_arrays_and_qualifiers() {
    let btf = kernel().btf();
    assert_eq!(btf.member("nf_conn.lock").unwrap(), at(0, 4));
    assert_eq!(btf.member("nf_conn.proto.tcp.state").unwrap(), at(252, 1));
    assert_eq!(
        btf.member("nf_conn.tuplehash[1].tuple").unwrap(),
        at(16 + 56 + 16, 40)
    );
    assert_eq!(btf.member("nf_conn.tuplehash[0].tuple.port").unwrap(), at(48, 2));
    assert_eq!(btf.member("nf_conn.tuplehash").unwrap(), at(16, 112));
    assert_eq!(btf.member("nf_conn.timer").unwrap(), at(200, 8));
    assert_eq!(btf.size_of("nf_conn").unwrap(), 256);
}

#[test]
fn finds_members_of_anonymous_types() {
    assert_eq!(kernel().btf().member("nf_conn.high").unwrap(), at(12, 4));
}

#[test]
fn finds_bit_fields() {
    let bits = Some(Bits { offset: 5, width: 3 });
    assert_eq!(
        kernel().btf().member("nf_conn.flag").unwrap(),
        Member {
            byte_offset: 30,
            size: 1,
            bits
        }
    );
}

#[test]
fn finds_bit_fields_of_old_compilers() {
    let mut w = Writer::new();
    let three = w.add("unsigned int", INT, false, 0, 4, &[3]);
    let name = w.string("b");
    w.add("s", STRUCT, false, 1, 8, &[name, three, 13]);
    let bits = Some(Bits { offset: 5, width: 3 });
    assert_eq!(
        w.btf().member("s.b").unwrap(),
        Member {
            byte_offset: 1,
            size: 4,
            bits
        }
    );
}

#[test]
fn an_error_names_what_is_missing() {
    let btf = kernel().btf();
    let text = |path| btf.member(path).unwrap_err().to_string();
    assert_eq!(text("nf_con.lock"), "this kernel has no type `nf_con`");
    assert_eq!(
        text("nf_conn.lick"),
        "`nf_conn` has no member `lick` on this kernel"
    );
    assert_eq!(
        text("nf_conn.proto.udp"),
        "`nf_conn.proto` has no member `udp` on this kernel"
    );
    assert_eq!(
        text("nf_conn.lock.x"),
        "`nf_conn.lock` is neither a struct nor a union"
    );
    assert_eq!(
        text("nf_conn.timer.seen"),
        "`nf_conn.timer` is neither a struct nor a union"
    );
    assert_eq!(
        text("nf_conn.tuplehash[2].tuple"),
        "`nf_conn.tuplehash` has no element 2"
    );
    assert_eq!(text("nf_conn.lock[0]"), "`nf_conn.lock` has no element 0");
    for path in [
        "nf_conn",
        "nf_conn.",
        ".lock",
        "nf_conn.a[",
        "nf_conn.a[x]",
        "nf_conn.[1]",
        "nf_conn[0].a",
        "",
    ] {
        assert!(matches!(btf.member(path), Err(BtfError::BadPath(_))), "{path}");
    }
}

#[test]
fn reads_enums() {
    let btf = kernel().btf();
    let verdict = [("GOOD".to_owned(), 7), ("BAD".to_owned(), -1)];
    assert_eq!(btf.enum_values("verdict").unwrap(), verdict);
    assert_eq!(
        btf.enum_values("wide").unwrap(),
        [("GOOD".to_owned(), 0x1_0000_0001)]
    );
    assert!(btf.enum_values("nf_conn").is_none());
}

#[test]
fn reads_function_parameters() {
    let params = kernel().btf().function_params("nf_confirm").unwrap();
    let params: Vec<_> = params
        .iter()
        .map(|(name, text)| (name.as_str(), text.as_str()))
        .collect();
    assert_eq!(
        params,
        [
            ("skb", "struct sk_buff *"),
            ("ct", "const struct ip_ct_tcp *"),
            ("", "...")
        ]
    );
    assert!(kernel().btf().function_params("nf_conn").is_none());
}

#[test]
fn the_types_of_a_module_extend_those_of_its_kernel() {
    let base = kernel();
    let mut module = Writer::on_top_of(&base);
    module.aggregate(STRUCT, "ip_vs_conn", 64, &[("state", 2, 8), ("proto", 7, 64)]);
    let vmlinux = base.btf();
    let btf = Btf::parse(module.bytes(), Some(&vmlinux)).unwrap();
    assert_eq!(btf.member("ip_vs_conn.state").unwrap(), at(1, 2));
    assert_eq!(btf.member("ip_vs_conn.proto.tcp.state").unwrap(), at(28, 1));
    assert_eq!(btf.member("nf_conn.high").unwrap(), at(12, 4));
    assert_eq!(btf.function_params("nf_confirm").unwrap().len(), 3);
    assert!(matches!(
        vmlinux.member("ip_vs_conn.state"),
        Err(BtfError::NoType(_))
    ));
}

#[test]
fn types_of_the_same_name_must_agree() {
    let mut w = Writer::new();
    let int = w.int("int", 4);
    w.aggregate(STRUCT, "s", 16, &[("a", int, 0), ("b", int, 32)]);
    w.aggregate(STRUCT, "s", 16, &[("a", int, 0), ("b", int, 64), ("c", int, 96)]);
    let btf = w.btf();
    assert_eq!(btf.member("s.a").unwrap(), at(0, 4));
    assert!(matches!(btf.member("s.b"), Err(BtfError::Ambiguous(_))));
    assert_eq!(btf.member("s.c").unwrap(), at(12, 4));
}

#[test]
fn types_that_contain_themselves_are_errors() {
    let mut w = Writer::new();
    w.add("loop", TYPEDEF, false, 0, 1, &[]);
    let array = w.array(2, 3);
    w.aggregate(
        STRUCT,
        "deep",
        8,
        &[("", 3, 0), ("", 3, 0), ("array", array, 0), ("loop", 1, 0)],
    );
    w.refer(POINTER, 5);
    w.refer(CONST, 4);
    let name = w.string("p");
    let proto = w.add("", FUNC_PROTO, false, 1, 0, &[name, 4]);
    w.add("f", FUNC, false, 0, proto, &[]);
    let btf = w.btf();
    for path in ["loop.x", "deep.x", "deep.array", "deep.loop", "deep.array[1]"] {
        assert!(btf.member(path).is_err(), "{path}");
    }
    assert!(btf.function_params("f").is_none());
}

#[test]
fn offsets_that_overflow_are_errors() {
    let mut w = Writer::new();
    let byte = w.int("char", 1);
    let big = w.array(byte, u32::MAX);
    let bigger = w.array(big, u32::MAX);
    w.aggregate(STRUCT, "s", 8, &[("big", big, 0), ("bigger", bigger, 0)]);
    let btf = w.btf();
    assert_eq!(btf.member("s.big[4294967294]").unwrap(), at(u32::MAX - 1, 1));
    assert!(btf.member("s.bigger").is_err());
    assert!(btf.member("s.bigger[4294967294]").is_err());
}

#[test]
fn bytes_that_are_not_btf_are_errors() {
    for bytes in [&[][..], &[0; 100], b"\x7fELF\x02\x01\x01", &[0xeb, 0x9f, 1, 0]] {
        assert!(matches!(
            Btf::parse(bytes.to_vec(), None),
            Err(BtfError::Malformed(_))
        ));
    }
    let mut w = Writer::new();
    w.add("future", 25, false, 0, 0, &[]);
    assert!(matches!(
        Btf::parse(w.bytes(), None),
        Err(BtfError::UnknownKind { kind: 25 })
    ));
}

/// Runs every kind of query. It only has to return.
fn query(btf: &Btf) {
    for path in [
        "nf_conn.proto.tcp.state",
        "nf_conn.tuplehash[1].tuple",
        "nf_conn.high",
        "nf_conn.flag",
        "__be16.x",
    ] {
        drop(btf.member(path));
    }
    drop(btf.size_of("nf_conn"));
    drop(btf.enum_values("verdict"));
    drop(btf.enum_values("wide"));
    drop(btf.function_params("nf_confirm"));
}

proptest! {
    #[test]
    fn random_types_never_panic(types in proptest::collection::vec(any::<u32>(), 0..200)) {
        let mut w = kernel();
        for word in types {
            w.types.extend_from_slice(&word.to_le_bytes());
        }
        if let Ok(btf) = Btf::parse(w.bytes(), None) {
            query(&btf);
        }
    }

    #[test]
    fn damage_never_panics(changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12)) {
        let mut bytes = kernel().bytes();
        for (index, value) in changes {
            let at = index.index(bytes.len());
            bytes[at] = value;
        }
        if let Ok(btf) = Btf::parse(bytes.clone(), None) {
            query(&btf);
            if let Ok(module) = Btf::parse(bytes, Some(&btf)) {
                query(&module);
            }
        }
    }

    #[test]
    fn a_truncated_file_never_panics(length in any::<prop::sample::Index>()) {
        let mut bytes = kernel().bytes();
        bytes.truncate(length.index(bytes.len()));
        if let Ok(btf) = Btf::parse(bytes, None) {
            query(&btf);
        }
    }
}

/// On a machine whose kernel has BTF, the types that every kernel has must be found in it.
#[test]
fn reads_the_running_kernel() {
    let Ok(btf) = Btf::open_vmlinux() else { return };
    assert_eq!(btf.member("sk_buff.head").unwrap().size, 8);
    assert_eq!(btf.member("net_device.name").unwrap().size, 16);
    assert_eq!(btf.member("net.ns.inum").unwrap().size, 4);
    assert_eq!(btf.member("sk_buff.pkt_type").unwrap().bits.unwrap().width, 3);
    assert_eq!(btf.member("net_device.nd_net.net").unwrap().size, 8);
    let params = btf.function_params("ip_rcv").unwrap();
    assert_eq!(params[0], ("skb".to_owned(), "struct sk_buff *".to_owned()));
    assert!(btf.enum_values("hrtimer_restart").is_some());
    assert!(Btf::open_module(&btf, "no-such-module").unwrap().is_none());
}

//! Network namespaces.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// What tells the network namespace in the header apart from others that had its inode number before: the kernel reuses the
/// number of a namespace that is gone (`ns_alloc_inum`, `fs/nsfs.c`: the lowest one that is free). Comes before the first
/// record of a packet that a traced flow brings into the namespace, and whenever one of the members changes.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Netns {
    /// Address of the `struct net`, which a later namespace may have again.
    pub net: u64,
    /// `net.net_cookie`, which no two namespaces share. 0 on kernels that have none, or give it only on demand (before 5.12).
    pub cookie: u64,
    /// `net.hash_mix`: a random number of the namespace (`net_hash_mix`, since 5.2); 0 if it is not known.
    pub hash_mix: u32,
    /// Always 0.
    pub reserved: u32,
}

impl Netns {
    /// Whether both are of one namespace. The cookie may be given after the first record.
    #[must_use]
    pub const fn is_same(&self, other: &Self) -> bool {
        let has_other_cookie = self.cookie != 0 && other.cookie != 0 && self.cookie != other.cookie;
        self.net == other.net && self.hash_mix == other.hash_mix && !has_other_cookie
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_is_told_apart_by_any_member() {
        let old = Netns {
            net: 0xffff_8880_0000_1000,
            cookie: 7,
            hash_mix: 9,
            reserved: 0,
        };
        assert!(old.is_same(&old));
        assert!(!old.is_same(&Netns { cookie: 8, ..old }));
        assert!(!old.is_same(&Netns { hash_mix: 8, ..old }));
        assert!(!old.is_same(&Netns { net: 8, ..old }));
        let without = Netns { cookie: 0, ..old };
        assert!(without.is_same(&old) && old.is_same(&without));
    }
}

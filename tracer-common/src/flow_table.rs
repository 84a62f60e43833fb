//! Counters of the kernel half's table of flows. It has a bounded number of entries, and none is ever displaced: what finds no
//! room is counted, and the user half removes the entries of flows that are over.

/// What is counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Count {
    /// Entries that were added.
    Added = 0,
    /// Flows that were not followed, because there was no room for the tuple of their SYN.
    FlowRefused = 1,
    /// Translations of a flow's tuple for which there was no room.
    AliasRefused = 2,
}

impl Count {
    /// How many there are.
    pub const COUNT: u32 = 3;

    /// All of them.
    pub const ALL: [Self; Self::COUNT as usize] = [Self::Added, Self::FlowRefused, Self::AliasRefused];
}

/// Entries of the table, unless the loader sets another number.
pub const ENTRIES: u32 = 131_072;

//! Reads members of kernel structs, at the offsets that the loader sets.

use core::{cell::UnsafeCell, hint::black_box, mem::MaybeUninit};

use aya_ebpf::{
    Global,
    helpers::{bpf_probe_read_kernel_buf, bpf_probe_read_kernel_str_bytes, generated},
};
use tracer_common::{
    field::{self, LIMIT, MISSING},
    for_each_field,
};

/// A member's offset; [`LIMIT`] or more if it is unknown.
pub(super) trait Offset {
    fn load(&self) -> u32;
}

/// A member in the kernel image: a constant of the object, so that the verifier removes code that depends on a missing
/// member.
impl Offset for Global<u32> {
    #[inline(always)]
    fn load(&self) -> u32 {
        Self::load(self)
    }
}

/// A member in a module: a variable that the loader writes when the module is loaded and unloaded.
pub(super) struct OfModule {
    index: usize,
}

impl Offset for OfModule {
    #[inline(always)]
    fn load(&self) -> u32 {
        let all = MODULE_OFFSETS.0.get().cast::<u32>();
        // SAFETY: an index of the table is within an array of the table's length, and every word is a number.
        unsafe { all.add(self.index).read_volatile() }
    }
}

/// Offsets by [`field::Field::index`].
#[repr(transparent)]
struct ModuleOffsets(UnsafeCell<[u32; field::ALL.len()]>);

// SAFETY: programs only read it, word by word.
unsafe impl Sync for ModuleOffsets {}

/// The section's name is the name of the map that the loader writes.
#[unsafe(link_section = ".data.offsets")]
static MODULE_OFFSETS: ModuleOffsets = ModuleOffsets(UnsafeCell::new([MISSING; field::ALL.len()]));

macro_rules! offset {
    ($constant:ident, $path:literal, "") => {
        #[doc = concat!("Offset of `", $path, "`.")]
        #[unsafe(no_mangle)]
        pub(super) static $constant: Global<u32> = Global::new(MISSING);
    };
    ($constant:ident, $path:literal, $module:literal) => {
        #[doc = concat!("Offset of `", $path, "`.")]
        pub(super) const $constant: OfModule = OfModule {
            index: field::$constant.index,
        };
    };
}

macro_rules! offsets {
    ($($constant:ident, $path:literal, $module:tt, $size:literal;)*) => {
        $(offset!($constant, $path, $module);)*
    };
}
for_each_field!(offsets);

/// Memory for a value, in whole words.
#[repr(C, align(8))]
struct Slot<T>(T);

/// Reads a `T` from kernel memory; `None` if the address is not mapped.
#[inline(always)]
pub(super) fn read_at<T>(address: u64) -> Option<T> {
    let (value, failed) = fill(address);
    (failed == 0).then_some(value)
}

/// Reads a `T` from kernel memory; zeroes if the address is not mapped.
#[inline(always)]
pub(super) fn read_or_zero<T>(address: u64) -> T {
    fill(address).0
}

/// Reads a `T` from kernel memory, with the helper's result: below 0 if the address is not mapped, and the value is zero.
///
/// The value is zeroed first: verifiers before 6.3 reject a program that may read stack it has not written.
#[inline(always)]
fn fill<T>(address: u64) -> (T, i64) {
    let mut slot = MaybeUninit::<Slot<T>>::uninit();
    // SAFETY: the slot is this function's own, aligned, and a whole number of words long.
    unsafe { zero_words(slot.as_mut_ptr().cast(), size_of::<Slot<T>>() / 8) };
    // SAFETY: the helper checks the address itself and writes no more than the value's size.
    let failed = unsafe {
        generated::bpf_probe_read_kernel(
            slot.as_mut_ptr().cast(),
            size_of::<T>() as u32,
            address as *const core::ffi::c_void,
        )
    };
    // SAFETY: every `T` used here is plain bytes, for which zeroes and whatever was read are values.
    (unsafe { slot.assume_init() }.0, failed)
}

/// Zeroes memory word by word. The compiler would call a function that does it byte by byte, a cost that every packet of
/// the node would pay.
///
/// # Safety
/// The memory must be valid for writing `count` words, and aligned for them.
#[inline(always)]
pub(super) unsafe fn zero_words(words: *mut u64, count: usize) {
    for index in 0..count {
        // SAFETY: the caller vouches for all `count` words. Volatile, so that the compiler does not turn the loop into that call.
        unsafe { words.add(index).write_volatile(0) };
    }
}

/// Reads the member of the struct at `base` whose offset is `field`; `None` if that offset is unknown.
#[inline(always)]
pub(super) fn read<T>(base: u64, field: &impl Offset) -> Option<T> {
    read_at(address(base, field)?)
}

/// A member that may have been read. Whether it was is a number to calculate with: each branch doubles the paths that the
/// verifier walks, which adds up in a loop.
#[derive(Clone, Copy)]
pub(super) struct Maybe<T> {
    /// Zeroes if it was not read.
    pub(super) value: T,
    /// All bits are set if it was read, else none.
    pub(super) mask: u32,
}

/// Reads the member of the struct at `base` whose offset is `field`, without a branch. `black_box` keeps the compiler from
/// making branches of the sign bits.
#[inline(always)]
pub(super) fn maybe<T>(base: u64, field: &impl Offset) -> Maybe<T> {
    let offset = field.load();
    let room = black_box(i64::from(LIMIT) - 1 - i64::from(offset));
    // No memory is mapped at the end of all addresses.
    let (value, failed) = fill(base.wrapping_add(u64::from(offset)) | (room >> 63) as u64);
    Maybe {
        value,
        mask: black_box(!(failed >> 63) as u32),
    }
}

/// The address of a member of the struct at `base`; `None` if its offset is unknown.
#[inline(always)]
pub(super) fn address(base: u64, field: &impl Offset) -> Option<u64> {
    let offset = field.load();
    if base == 0 || offset >= LIMIT {
        return None;
    }
    Some(base.wrapping_add(u64::from(offset)))
}

/// The address of the struct whose member is at `address`; `None` if the member's offset is unknown.
#[inline(always)]
pub(super) fn base_of(address: u64, field: &impl Offset) -> Option<u64> {
    let offset = field.load();
    (offset < LIMIT).then(|| address.wrapping_sub(u64::from(offset)))
}

/// Reads a pointer member; `None` if it is unknown or NULL.
#[inline(always)]
pub(super) fn pointer(base: u64, field: &impl Offset) -> Option<u64> {
    read::<u64>(base, field).filter(|&pointer| pointer != 0)
}

/// Reads NUL-terminated text, cut to what `out` holds.
#[inline(always)]
pub(super) fn read_text(address: u64, out: &mut [u8]) {
    // SAFETY: the helper checks the address itself and writes no more than `out` holds.
    let _ = unsafe { bpf_probe_read_kernel_str_bytes(address as *const u8, out) };
}

/// Fills `out` from kernel memory; zeroes if the address is not mapped.
#[inline(always)]
pub(super) fn read_bytes(address: u64, out: &mut [u8]) {
    // SAFETY: the helper checks the address itself and writes no more than `out` holds.
    let _ = unsafe { bpf_probe_read_kernel_buf(address as *const u8, out) };
}

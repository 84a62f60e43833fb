//! Members of kernel structs, read at the offsets that the loader put into the constants below.

use core::mem::MaybeUninit;

use aya_ebpf::{
    Global,
    helpers::{bpf_probe_read_kernel_buf, bpf_probe_read_kernel_str_bytes, generated},
};
use tracer_common::{field::MISSING, for_each_field};

macro_rules! constants {
    ($($constant:ident, $path:literal, $module:literal, $size:literal;)*) => {
        $(
            #[doc = concat!("Offset of `", $path, "`.")]
            #[unsafe(no_mangle)]
            pub(super) static $constant: Global<u32> = Global::new(MISSING);
        )*
    };
}
for_each_field!(constants);

/// Room for a value, in whole words.
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

/// The value is zeroed first: verifiers before 6.3 refuse a program that may look at stack it has not written. The
/// helper zeroes it too where it fails.
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

/// Zeroes memory word by word. What the compiler makes of zeroing is a call that does so byte by byte, at a cost that
/// every packet of the node would pay.
///
/// # Safety
/// The memory must be valid for writing `count` words, and aligned for them.
#[inline(always)]
pub(super) unsafe fn zero_words(words: *mut u64, count: usize) {
    for index in 0..count {
        // SAFETY: the caller vouches for all `count` words. Volatile, lest the loop becomes that call.
        unsafe { words.add(index).write_volatile(0) };
    }
}

/// Reads the member of the struct at `base` whose offset is `field`; `None` if that offset is not known.
#[inline(always)]
pub(super) fn read<T>(base: u64, field: &Global<u32>) -> Option<T> {
    read_at(address(base, field)?)
}

/// Where a member of the struct at `base` lies; `None` if its offset is not known.
#[inline(always)]
pub(super) fn address(base: u64, field: &Global<u32>) -> Option<u64> {
    let offset = field.load();
    if base == 0 || offset == MISSING {
        return None;
    }
    Some(base.wrapping_add(u64::from(offset)))
}

/// Reads a pointer member; `None` if it is unknown or NULL.
#[inline(always)]
pub(super) fn pointer(base: u64, field: &Global<u32>) -> Option<u64> {
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

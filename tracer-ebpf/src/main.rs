//! The kernel half of tracer.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

#[cfg(not(target_arch = "bpf"))]
fn main() {
    eprintln!("tracer-ebpf is built for the kernel: run `cargo xtask build-ebpf`");
}

#[cfg(target_arch = "bpf")]
mod kernel {
    use aya_ebpf::{macros::kprobe, programs::ProbeContext};

    /// A first program, to prove the build chain.
    #[kprobe]
    pub fn first(_ctx: ProbeContext) -> u32 {
        0
    }

    #[panic_handler]
    fn panic(_info: &core::panic::PanicInfo) -> ! {
        loop {}
    }
}

#[cfg(target_arch = "bpf")]
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

//! The kernel half of tracer: a small program for each row of the hook table.
//!
//! Every program finds the packet in the arguments, decides in its first instructions whether it belongs to a traced flow
//! ([`kernel::flow`]), and if so writes a record. It changes nothing in the kernel. One file per subsystem reads what a
//! hook needs besides the packet.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

/// Prints how to build: the programs run only in the kernel.
#[cfg(not(target_arch = "bpf"))]
fn main() {
    eprintln!("tracer-ebpf is built for the kernel: run `cargo xtask build-ebpf`");
}

#[cfg(target_arch = "bpf")]
#[allow(
    unsafe_code,
    reason = "helpers, maps and program contexts of BPF are raw pointers"
)]
mod kernel {
    mod answer;
    mod call;
    mod conntrack;
    mod dests;
    mod drop;
    mod egress;
    mod emit;
    mod fields;
    mod flow;
    mod ipvs;
    mod ipvs_conn;
    mod local;
    mod log;
    mod lost;
    mod nat;
    mod neigh;
    mod netfilter;
    mod netns;
    mod node;
    mod packet;
    mod proof;
    mod route;
    mod skipped;
    mod stack;
    mod tcp;
    mod wire;
    mod xtables;

    use aya_ebpf::{
        macros::{kprobe, kretprobe, raw_tracepoint},
        programs::{ProbeContext, RawTracePointContext, RetProbeContext},
    };
    use tracer_common::{for_each_hook, hook::Hook};

    macro_rules! program {
        (tracepoint $id:ident $name:ident $exit:ident $subsystem:ident::$body:ident) => {
            #[raw_tracepoint]
            fn $name(ctx: RawTracePointContext) -> i32 {
                let _ = $subsystem::$body(Hook::$id, &ctx);
                0
            }
        };
        (entry $id:ident $name:ident $exit:ident $subsystem:ident::$body:ident) => {
            #[kprobe]
            fn $name(ctx: ProbeContext) -> u32 {
                let _ = $subsystem::$body(Hook::$id, &ctx);
                0
            }
        };
        (call $id:ident $name:ident $exit:ident $subsystem:ident::$body:ident) => {
            #[kprobe]
            fn $name(ctx: ProbeContext) -> u32 {
                let _ = $subsystem::$body::enter(Hook::$id, &ctx);
                0
            }

            #[kretprobe]
            fn $exit(ctx: RetProbeContext) -> u32 {
                let _ = $subsystem::$body::leave(Hook::$id, &ctx);
                0
            }
        };
    }

    macro_rules! programs {
        ($($id:ident = $number:literal, $kind:ident, $name:ident, $exit:ident, $module:literal,
           $subsystem:ident::$body:ident, [$($need:ident),*], $purpose:literal $(, $when:ident)?;)*) => {
            $(program!($kind $id $name $exit $subsystem::$body);)*
        };
    }
    for_each_hook!(programs);

    #[panic_handler]
    fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
        // The verifier accepts no program that can get here.
        loop {}
    }

    // The kernel offers the helpers used here only to GPL-compatible programs.
    #[unsafe(link_section = "license")]
    #[unsafe(no_mangle)]
    static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
}

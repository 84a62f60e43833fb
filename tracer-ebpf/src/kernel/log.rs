//! Messages for debugging the kernel half. They exist in the debug object only (`cargo xtask build-ebpf --debug`): their map
//! costs memory and time.

/// Logs through aya-log. Arguments are those of `aya_log_ebpf::debug!`.
#[cfg(feature = "log")]
macro_rules! debug {
    ($($argument:tt)*) => {
        aya_log_ebpf::debug!($($argument)*)
    };
}

/// Does nothing.
#[cfg(not(feature = "log"))]
macro_rules! debug {
    ($ctx:expr, $text:literal $(, $argument:expr)*) => {{
        let _ = (&$ctx, $(&$argument),*);
    }};
}

pub(super) use debug;

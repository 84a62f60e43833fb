//! Messages for whoever debugs the kernel half itself. They exist in the debug object only
//! (`cargo xtask build-ebpf --debug`): the map behind them costs memory and time.

/// Says something through aya-log. Arguments are those of `aya_log_ebpf::debug!`.
#[cfg(feature = "log")]
macro_rules! debug {
    ($($argument:tt)*) => {
        aya_log_ebpf::debug!($($argument)*)
    };
}

/// Says nothing.
#[cfg(not(feature = "log"))]
macro_rules! debug {
    ($ctx:expr, $text:literal $(, $argument:expr)*) => {{
        let _ = (&$ctx, $(&$argument),*);
    }};
}

pub(super) use debug;

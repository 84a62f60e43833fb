//! PID 1 of the guest: mounts, loads modules, plays the scenarios of its job, powers off.

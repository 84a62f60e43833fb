//! PID 1 of the lab's guest.

fn main() {
    tracer_lab::guest::main();
}

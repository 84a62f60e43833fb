//! What the backend's TCP does with the SYN and with the client's ACK.

mod story;

#[path = "backend_tcp/final_ack.rs"]
mod final_ack;
#[path = "backend_tcp/listener.rs"]
mod listener;
#[path = "backend_tcp/time_wait.rs"]
mod time_wait;

//! The backend's TCP: its handling of the SYN and of the client's ACK.

mod story;

#[path = "backend_tcp/final_ack.rs"]
mod final_ack;
#[path = "backend_tcp/listener.rs"]
mod listener;
#[path = "backend_tcp/time_wait.rs"]
mod time_wait;

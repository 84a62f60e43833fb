//! What both halves of tracer agree on.
#![no_std]

//! Other people's formats. Pure: flows in, bytes into whatever can be written to.

pub mod capture;
pub mod header;
pub mod parquet;
pub mod pcapng;

//! Export formats. Pure: flows in, bytes into any writer.

pub mod capture;
pub mod header;
pub mod parquet;
pub mod pcapng;

//! A scenario: kernel facts, topology, traffic and expectation, as read from one TOML file.

//! How old facts of the node may be.

use std::time::Duration;

/// Tables and settings that are older than this are read again for the next flow that needs them.
pub(super) const MAX_AGE: Duration = Duration::from_secs(1);

//! Debian packages: found and checked by apt itself in a root of our own, unpacked into the cache.

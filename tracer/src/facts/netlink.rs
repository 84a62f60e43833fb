//! Parses the attributes of netlink messages.

use netlink_packet_core::NlasIterator;

/// Iterates over the attributes in `bytes`: type and value. Stops at the first damaged one.
pub fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    NlasIterator::new(bytes)
        .map_while(Result::ok)
        .filter_map(|attribute| {
            // The iterator has checked the length. The crate's own `value` would borrow from the attribute, not the bytes.
            let length = usize::from(attribute.length());
            attribute
                .into_inner()
                .get(4..length)
                .map(|value| (attribute.kind(), value))
        })
}

/// The text of an attribute, without its terminating 0.
#[must_use]
pub fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value.strip_suffix(&[0]).unwrap_or(value)).into_owned()
}

/// The value of the first attribute of this type.
#[must_use]
pub fn attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes)
        .find(|&(found, _)| found == kind)
        .map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damaged_attributes_end_the_list() {
        let bytes = [5, 0, 7, 0, 42, 0, 0, 0, 200, 0, 8, 0, 1];
        assert_eq!(attributes(&bytes).collect::<Vec<_>>(), [(7, &[42][..])]);
        assert_eq!(attributes(&[3, 0, 1, 0]).count(), 0);
    }
}

//! The payload of a record, generated from the table in [`tracer_common::for_each_payload`].

use tracer_common::{
    for_each_payload,
    record::{self, Kind},
};

use super::bytes::{DecodeError, take};

macro_rules! held {
    (inline $name:ident) => {
        record::$name
    };
    (boxed $name:ident) => {
        Box<record::$name>
    };
}

macro_rules! payloads {
    (
        header_only { $(#[$header_doc:meta])* $header:ident = $header_number:literal; }
        packet { $($(#[$doc:meta])* $name:ident = $number:literal, $form:ident;)* }
        memory { $($(#[$memory_doc:meta])* $memory:ident = $memory_number:literal;)* }
        retired { $($old:literal: $was:literal;)* }
    ) => {
        /// The data that a hook read besides the packet.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum Payload {
            $(#[$header_doc])*
            $header,
            $(
                $(#[$doc])*
                $name(held!($form $name)),
            )*
        }

        impl Payload {
            /// Takes the payload of this kind from the front of `bytes`; `None` for a kind that belongs to no packet.
            pub(super) fn take(kind: Kind, bytes: &mut &[u8]) -> Result<Option<Self>, DecodeError> {
                Ok(Some(match kind {
                    Kind::$header => Self::$header,
                    $(Kind::$name => Self::$name(take::<record::$name>(bytes)?.into()),)*
                    $(Kind::$memory => return Ok(None),)*
                }))
            }
        }
    };
}
for_each_payload!(payloads);

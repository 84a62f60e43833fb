//! The items that exist in tests alone.

use syn::{Attribute, Meta, Token, punctuated::Punctuated};

/// Whether an item with these attributes is compiled only for tests. Every other condition counts as possible.
pub(crate) fn is_test_only(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        Meta::List(list) if list.path.is_ident("cfg") => list
            .parse_args::<Meta>()
            .is_ok_and(|condition| !can_hold(&condition)),
        _ => false,
    })
}

/// Whether the condition can be true outside tests.
fn can_hold(condition: &Meta) -> bool {
    match condition {
        Meta::Path(path) => !path.is_ident("test"),
        Meta::List(list) if list.path.is_ident("all") => operands(list).iter().all(can_hold),
        Meta::List(list) if list.path.is_ident("any") => operands(list).iter().any(can_hold),
        Meta::List(list) if list.path.is_ident("not") => !operands(list).iter().all(must_hold),
        _ => true,
    }
}

/// Whether the condition is true in every build outside tests.
fn must_hold(condition: &Meta) -> bool {
    match condition {
        Meta::List(list) if list.path.is_ident("all") => operands(list).iter().all(must_hold),
        Meta::List(list) if list.path.is_ident("any") => operands(list).iter().any(must_hold),
        Meta::List(list) if list.path.is_ident("not") => !operands(list).iter().any(can_hold),
        _ => false,
    }
}

fn operands(list: &syn::MetaList) -> Punctuated<Meta, Token![,]> {
    list.parse_args_with(Punctuated::parse_terminated)
        .unwrap_or_default()
}

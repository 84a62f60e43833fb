//! Checks that a page is well-formed, by matching its tags.

use std::collections::BTreeSet;

/// Elements that have no end.
const VOID: [&str; 4] = ["meta", "input", "br", "hr"];

/// A tag of a page.
#[derive(Debug)]
pub(crate) struct Tag {
    pub(crate) name: String,
    pub(crate) attributes: Vec<(String, String)>,
}

impl Tag {
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let found = self.attributes.iter().find(|(other, _)| other == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// All start tags of a page, and its text without style and script. Panics if the tags are unbalanced.
pub(crate) fn read(page: &str) -> (Vec<Tag>, String) {
    let mut rest = page.strip_prefix("<!DOCTYPE html>").expect("a document type");
    let (mut tags, mut open, mut text) = (Vec::new(), Vec::<String>::new(), String::new());
    while let Some((before, tag)) = rest.split_once('<') {
        assert!(!before.contains('>'), "a bare > in {before}");
        text.push_str(before);
        if let Some(end) = tag.strip_prefix('/') {
            let (name, after) = end.split_once('>').expect("an end tag ends");
            assert_eq!(
                open.pop().as_deref(),
                Some(name),
                "{}",
                &after[..after.len().min(80)]
            );
            text.push('\n');
            rest = after;
            continue;
        }
        let (tag, after) = begin(tag);
        rest = after;
        if matches!(tag.name.as_str(), "style" | "script") {
            let (_, after) = rest.split_once(&format!("</{}>", tag.name)).expect("its end");
            rest = after;
        } else if !VOID.contains(&tag.name.as_str()) {
            open.push(tag.name.clone());
        }
        tags.push(tag);
    }
    assert!(
        rest.trim().is_empty() && open.is_empty(),
        "{open:?} is not closed"
    );
    (tags, unescaped(&text))
}

/// Reads a tag after its `<`.
fn begin(tag: &str) -> (Tag, &str) {
    let end = tag.find([' ', '>']).expect("a tag ends");
    let (name, mut rest) = tag.split_at(end);
    assert!(
        !name.is_empty() && name.chars().all(|letter| letter.is_ascii_alphanumeric()),
        "{name:?} is not a tag"
    );
    let mut attributes = Vec::new();
    loop {
        rest = rest.trim_start_matches(' ');
        if let Some(after) = rest.strip_prefix('>') {
            let name = name.to_owned();
            return (Tag { name, attributes }, after);
        }
        let end = rest.find(['=', ' ', '>']).expect("an attribute ends");
        let (attribute, after) = rest.split_at(end);
        let (value, after) = match after.strip_prefix("=\"") {
            Some(after) => after.split_once('"').expect("a value ends"),
            None => ("", after),
        };
        assert!(!value.contains('<'), "{value}");
        attributes.push((attribute.to_owned(), unescaped(value)));
        rest = after;
    }
}

fn unescaped(text: &str) -> String {
    text.replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&quot;", "\"")
        .replace("&amp;", "&")
}

/// Text without what differs between a page and a terminal: white space, and backticks around commands.
pub(crate) fn bare(text: &str) -> String {
    text.replace(['`', ' ', '\n'], "")
}

/// Checks that a page is complete, that its ids are unique, that every link leads to one, and that nothing leads out of the
/// page.
pub(crate) fn check(page: &str) -> (Vec<Tag>, String) {
    let (tags, text) = read(page);
    let mut ids = BTreeSet::new();
    for id in tags.iter().filter_map(|tag| tag.get("id")) {
        assert!(ids.insert(id), "{id} appears twice");
    }
    for tag in &tags {
        for (name, value) in &tag.attributes {
            match name.as_str() {
                "href" => {
                    let id = value.strip_prefix('#').expect("a link within the page");
                    assert!(ids.contains(id), "{value} leads nowhere");
                }
                "aria-labelledby" => assert!(value.split(' ').all(|id| ids.contains(id)), "{value}"),
                _ => assert!(
                    !matches!(name.as_str(), "src" | "srcset" | "action" | "data" | "ping")
                        && !name.starts_with("on"),
                    "{name}={value}"
                ),
            }
        }
        let is_known = !matches!(
            tag.name.as_str(),
            "link" | "iframe" | "object" | "embed" | "img" | "base" | "form"
        );
        assert!(is_known, "{tag:?}");
        if tag.name == "th" {
            assert!(tag.get("scope").is_some(), "{tag:?}");
        }
    }
    assert_eq!(tags.iter().filter(|tag| tag.name == "script").count(), 1);
    assert_eq!(tags.iter().filter(|tag| tag.name == "h1").count(), 1);
    for outside in ["http:", "https:", "//www", "@import", "url(\"", "url(h"] {
        assert!(!page.contains(outside), "{outside}");
    }
    (tags, text)
}

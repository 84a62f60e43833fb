//! Rules for every piece of advice, whatever the flow.

use tracer::facts::Facts;

/// Words in capitals that the reader would have to replace.
const PLACEHOLDERS: [&str; 14] = [
    "NODEPORT",
    "DEVICE",
    "PID",
    "TABLE",
    "CHAIN",
    "HANDLE",
    "ADDRESS",
    "PORT",
    "NAME",
    "NAMESPACE",
    "CAUSE",
    "VALUE",
    "NETNS",
    "POD",
];

/// Fails if advice has a placeholder, or recommends a setting of the node that already has that value.
pub(crate) fn check(advice: &str, netns: u32, facts: &Facts) {
    let words = |text: &'static str| {
        let is_whole = |word: &str| word == text;
        advice
            .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .any(is_whole)
    };
    for word in PLACEHOLDERS {
        assert!(!words(word), "{word} in: {advice}");
    }
    assert!(!advice.contains(['<', '…', '{']), "{advice}");
    assert!(advice.matches('`').count().is_multiple_of(2), "{advice}");
    let sysctls = facts.netns.get(&netns).map(|netns| &netns.sysctls);
    for (name, value) in settings(advice) {
        let now = sysctls.and_then(|sysctls| sysctls.get(name));
        assert_ne!(now, Some(value), "{advice}");
    }
}

/// The settings that advice sets on the node itself.
fn settings(advice: &str) -> impl Iterator<Item = (&str, &str)> {
    advice
        .split("`sysctl -w ")
        .skip(1)
        .filter_map(|rest| rest.split('`').next()?.split_once('='))
}

//! The book's chapter on errors has every error that a user can meet, with its message as it is in the sources.

use std::fs;

use quicsand_tests::book::directory;

/// Where the errors are, and which.
const SOURCES: &[(&str, &[&str])] = &[
    ("core/src/error.rs", &["Error", "ConnectError", "PublishError", "TokenRefusal", "TaskErrorKind"]),
    ("core/src/wire/hello.rs", &["HelloError"]),
    ("core/src/net/token.rs", &["TokenError"]),
    ("core/src/net/operator.rs", &["OperatorError"]),
    ("core/src/wire/operator.rs", &["OperatorRefusal"]),
    ("core/src/setup.rs", &["SetupError"]),
    ("worker/src/sandbox/module.rs", &["ModuleError"]),
    ("worker/src/sandbox/grants.rs", &["GrantError"]),
];

#[test]
fn every_error_is_in_the_book() {
    let workspace = directory().parent().expect("the workspace").to_owned();
    let chapter = fs::read_to_string(directory().join("errors.md")).expect("the chapter");
    let mut missing = Vec::new();
    let mut known = Vec::new();
    for (path, enums) in SOURCES {
        let source = fs::read_to_string(workspace.join(path)).expect("a source");
        for name in *enums {
            let variants = variants(&source, name);
            assert!(variants.len() > 1, "{path} has no {name}");
            for (variant, message) in variants {
                let message = message.or_else(|| shown(&source, name, &variant)).map(|message| format!("\n> {message}\n"));
                let heading = format!("\n### `{name}::{variant}`\n");
                let section = chapter.split_once(&heading).and_then(|(_, after)| after.split("\n#").next());
                match (section, message) {
                    (None, message) => missing.push(format!("{heading}{}", message.unwrap_or_default())),
                    (Some(section), Some(message)) if !section.contains(&message) => missing.push(format!("{heading}{message}")),
                    (Some(section), message) => {
                        let remedy = section.len() - message.unwrap_or_default().len();
                        assert!(remedy > 20, "{name}::{variant} has no remedy");
                    }
                }
                known.push(format!("{name}::{variant}"));
            }
        }
    }
    assert!(missing.is_empty(), "docs/errors.md lacks, or has in other words:\n{}", missing.join(""));
    let headings = chapter.lines().filter_map(|line| line.strip_prefix("### `")?.strip_suffix('`'));
    let strangers: Vec<_> = headings.filter(|heading| !known.iter().any(|known| known == heading)).collect();
    assert!(strangers.is_empty(), "docs/errors.md has errors that are no more: {strangers:?}");
}

/// The variants of an enum, each with the message in its attribute, if it has one.
fn variants(source: &str, name: &str) -> Vec<(String, Option<String>)> {
    let Some((_, rest)) = source.split_once(&format!("\npub enum {name} {{\n")) else { return Vec::new() };
    let body = rest.split("\n}\n").next().unwrap_or("");
    let mut found = Vec::new();
    let mut attributes = String::new();
    for line in body.lines() {
        let Some(line) = line.strip_prefix("    ") else { continue };
        let variant: String = line.chars().take_while(|c| c.is_alphanumeric()).collect();
        if line.starts_with(|c: char| c.is_uppercase()) && !variant.is_empty() {
            found.push((variant, message(&attributes)));
            attributes.clear();
        } else if !line.starts_with("///") && (line.starts_with("#[error(") || !attributes.is_empty()) {
            attributes += line;
        }
    }
    found
}

/// What `Display` writes for the kind of a failed call, after the task's name.
fn shown(source: &str, name: &str, variant: &str) -> Option<String> {
    let (_, after) = source.split_once(&format!("            {name}::{variant}"))?;
    let after = after.split("write!(f, ").nth(1)?;
    Some(format!("task `…`{}", literal(after)?))
}

fn message(attribute: &str) -> Option<String> {
    attribute.contains("#[error(").then(|| literal(attribute))?
}

/// The first string in the text, with `…` for what is filled in.
fn literal(text: &str) -> Option<String> {
    let (_, rest) = text.split_once('"')?;
    let mut out = String::new();
    let mut chars = rest.chars();
    loop {
        match chars.next()? {
            '"' => return Some(out),
            '\\' => out.push(chars.next()?),
            '{' => {
                out.push('…');
                chars.by_ref().find(|c| *c == '}')?;
            }
            c => out.push(c),
        }
    }
}

#[test]
fn messages_are_read_from_sources() {
    let source = r#"
pub enum Wrong {
    /// One.
    #[error("it \"{what}\" is: {}", 1)]
    One {
        /// What.
        what: u8,
    },
    /// Two.
    #[error(
        "two"
    )]
    Two,
    /// Three.
    #[error(transparent)]
    Three(#[from] Other),
}
            Wrong::Three => write!(f, " was {x}")?,
"#;
    let expected = [("One", Some("it \"…\" is: …")), ("Two", Some("two")), ("Three", None)];
    let found = variants(source, "Wrong");
    let found: Vec<_> = found.iter().map(|(name, message)| (name.as_str(), message.as_deref())).collect();
    assert_eq!(found, expected);
    assert_eq!(shown(source, "Wrong", "Three").as_deref(), Some("task `…` was …"));
}

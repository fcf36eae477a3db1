//! What may stand in the brackets: `#[task(…)]`, `#[quicsand::main(…)]`, `embed!(…)`. Owns: names, values, their errors. Must not
//! know: what becomes of them.

use std::collections::BTreeSet;

use proc_macro2::{Ident, Span, TokenStream, TokenTree};
use quote::quote;
use syn::{Error, Lit, LitStr, Path, Token, ext::IdentExt as _, parse::Parser as _, spanned::Spanned as _, token::Paren};

use crate::requires::Requires;

/// More than a 32-bit guest can address is a mistake.
const MEMORY_MAX: u64 = 4 << 30;

/// What `#[task(…)]` says.
#[derive(Default)]
pub(crate) struct TaskAttributes {
    /// The name to show instead of the function's.
    pub(crate) name: Option<String>,
    /// Bytes.
    pub(crate) memory: Option<u64>,
    /// Milliseconds.
    pub(crate) timeout_ms: Option<u64>,
    pub(crate) retries: Option<u32>,
    pub(crate) requires: Requires,
    pub(crate) root: Option<Path>,
}

/// What `#[quicsand::main(…)]` and `embed!(…)` say.
#[derive(Default)]
pub(crate) struct ModuleAttributes {
    /// The package that holds the tasks, if not this one.
    pub(crate) tasks: Option<LitStr>,
    pub(crate) root: Option<Path>,
}

impl TaskAttributes {
    /// Reads everything that is right and reports everything that is not.
    pub(crate) fn read(tokens: TokenStream, errors: &mut Vec<Error>) -> Self {
        const POSSIBLE: &str = "`name = \"…\"`, `memory = \"256MiB\"`, `timeout = \"30s\"`, `retries = 2`, \
            `requires(zone = \"a\", gpu = 1)`, `crate = \"path\"`";
        let mut read = Self::default();
        each(tokens, POSSIBLE, errors, |name, given, errors| {
            if name == "requires" {
                read.requires = Requires::read(given, errors);
                return Ok(true);
            }
            let Given::Value(value) = given else { return Err(given.unexpected(POSSIBLE)) };
            match name {
                "name" => read.name = Some(display_name(value)?),
                "memory" => read.memory = Some(memory(value)?),
                "timeout" => read.timeout_ms = Some(timeout_ms(value)?),
                "retries" => read.retries = Some(retries(value)?),
                "crate" => read.root = Some(root(value)?),
                _ => return Ok(false),
            }
            Ok(true)
        });
        read
    }
}

impl ModuleAttributes {
    /// Reads everything that is right and reports everything that is not.
    pub(crate) fn read(tokens: TokenStream, errors: &mut Vec<Error>) -> Self {
        const POSSIBLE: &str = "`tasks = \"package\"`, `crate = \"path\"`";
        let mut read = Self::default();
        each(tokens, POSSIBLE, errors, |name, given, _| {
            let Given::Value(value) = given else { return Err(given.unexpected(POSSIBLE)) };
            match name {
                "tasks" => read.tasks = Some(package(value)?),
                "crate" => read.root = Some(root(value)?),
                _ => return Ok(false),
            }
            Ok(true)
        });
        read
    }
}

/// The path of the `quicsand` crate.
pub(crate) fn root_or_default(root: Option<&Path>) -> TokenStream {
    root.map_or_else(|| quote!(::quicsand), |path| quote!(#path))
}

/// What is given for a name.
pub(crate) enum Given {
    /// `name = literal`
    Value(Lit),
    /// `name(tokens)`
    List(Paren, TokenStream),
}

impl Given {
    pub(crate) fn span(&self) -> Span {
        match self {
            Self::Value(value) => value.span(),
            Self::List(paren, _) => paren.span.join(),
        }
    }

    /// That a list is not what is wanted.
    fn unexpected(&self, possible: &str) -> Error {
        Error::new(self.span(), format!("expected `name = value`; possible are {possible}"))
    }
}

/// Calls `set` with each `name = literal` or `name(…)`; it says whether it knows the name.
fn each(
    tokens: TokenStream,
    possible: &str,
    errors: &mut Vec<Error>,
    mut set: impl FnMut(&str, &Given, &mut Vec<Error>) -> Result<bool, Error>,
) {
    let mut seen = BTreeSet::new();
    for piece in split_at_commas(tokens) {
        let span = piece.span();
        let Ok((ident, given)) = pair.parse2(piece) else {
            errors.push(Error::new(span, format!("expected `name = value`; possible are {possible}")));
            continue;
        };
        let name = ident.unraw().to_string();
        if !seen.insert(name.clone()) {
            errors.push(Error::new(ident.span(), format!("`{name}` is given twice")));
            continue;
        }
        match set(&name, &given, errors) {
            Ok(true) => {}
            Ok(false) => errors.push(Error::new(ident.span(), format!("there is no `{name}` here; possible are {possible}"))),
            Err(error) => errors.push(error),
        }
    }
}

fn pair(input: syn::parse::ParseStream<'_>) -> syn::Result<(Ident, Given)> {
    let name = input.call(Ident::parse_any)?;
    if input.peek(Paren) {
        let list;
        let paren = syn::parenthesized!(list in input);
        return Ok((name, Given::List(paren, list.parse()?)));
    }
    input.parse::<Token![=]>()?;
    Ok((name, Given::Value(input.parse()?)))
}

pub(crate) fn split_at_commas(tokens: TokenStream) -> Vec<TokenStream> {
    let mut pieces = Vec::new();
    let mut piece = Vec::new();
    for token in tokens {
        match &token {
            TokenTree::Punct(punct) if punct.as_char() == ',' => {
                if piece.is_empty() {
                    piece.push(token);
                }
                pieces.push(piece.drain(..).collect());
            }
            _ => piece.push(token),
        }
    }
    if !piece.is_empty() {
        pieces.push(piece.into_iter().collect());
    }
    pieces
}

fn text(value: &Lit, expected: &str) -> Result<LitStr, Error> {
    match value {
        Lit::Str(text) if !text.value().trim().is_empty() => Ok(text.clone()),
        _ => Err(Error::new(value.span(), format!("expected {expected}"))),
    }
}

fn display_name(value: &Lit) -> Result<String, Error> {
    let text = text(value, "a name in quotes, such as \"mean of rows\"")?;
    if text.value().chars().any(char::is_control) {
        return Err(Error::new(text.span(), "a name is one line of text"));
    }
    Ok(text.value())
}

fn package(value: &Lit) -> Result<LitStr, Error> {
    let text = text(value, "a package's name in quotes, such as \"my-tasks\"")?;
    let valid = |c: char| c.is_alphanumeric() || c == '-' || c == '_';
    if !text.value().chars().all(valid) {
        return Err(Error::new(text.span(), "expected a package's name, as its Cargo.toml has it"));
    }
    Ok(text)
}

fn root(value: &Lit) -> Result<Path, Error> {
    const EXPECTED: &str = "a path in quotes, such as \"::my_crate::quicsand\"";
    text(value, EXPECTED)?.parse_with(Path::parse_mod_style).map_err(|_| Error::new(value.span(), format!("expected {EXPECTED}")))
}

fn memory(value: &Lit) -> Result<u64, Error> {
    const EXPECTED: &str = "bytes, such as \"256MiB\", \"1GB\" or 1048576";
    const UNITS: [(&str, u64); 8] = [
        ("", 1),
        ("B", 1),
        ("KB", 1_000),
        ("MB", 1_000_000),
        ("GB", 1_000_000_000),
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
    ];
    let bytes = quantity(value, EXPECTED, &UNITS)?;
    if bytes > MEMORY_MAX {
        return Err(Error::new(value.span(), "a task has a 32-bit memory: at most \"4GiB\""));
    }
    Ok(bytes)
}

fn timeout_ms(value: &Lit) -> Result<u64, Error> {
    const EXPECTED: &str = "a time in quotes, such as \"500ms\", \"30s\", \"2m\" or \"1h\"";
    if !matches!(value, Lit::Str(_)) {
        return Err(Error::new(value.span(), format!("expected {EXPECTED}")));
    }
    quantity(value, EXPECTED, &[("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)])
}

fn retries(value: &Lit) -> Result<u32, Error> {
    match value {
        Lit::Int(number) => number.base10_parse().ok(),
        _ => None,
    }
    .ok_or_else(|| Error::new(value.span(), "expected a whole number, such as 2"))
}

/// A number above zero with one of the units.
fn quantity(value: &Lit, expected: &str, units: &[(&str, u64)]) -> Result<u64, Error> {
    let written = match value {
        Lit::Str(text) => text.value(),
        Lit::Int(number) => number.base10_digits().to_owned() + number.suffix(),
        _ => String::new(),
    };
    let written = written.trim();
    let digits = written.find(|c: char| !c.is_ascii_digit()).unwrap_or(written.len());
    let (number, unit) = written.split_at(digits);
    let factor = units.iter().find(|(name, _)| *name == unit.trim()).map(|(_, factor)| factor);
    number
        .parse::<u64>()
        .ok()
        .zip(factor)
        .and_then(|(number, factor)| number.checked_mul(*factor))
        .filter(|&quantity| quantity > 0)
        .ok_or_else(|| Error::new(value.span(), format!("expected {expected}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    type Values = (Option<u64>, Option<u64>, Option<u32>);

    fn check(tokens: &str, expected: Result<Values, &[&str]>) {
        let mut errors = Vec::new();
        let read = TaskAttributes::read(tokens.parse().expect("tokens"), &mut errors);
        match expected {
            Ok(values) => {
                assert!(errors.is_empty(), "{tokens}: {errors:?}");
                assert_eq!((read.memory, read.timeout_ms, read.retries), values, "{tokens}");
            }
            Err(beginnings) => {
                let messages: Vec<String> = errors.iter().map(ToString::to_string).collect();
                assert_eq!(messages.len(), beginnings.len(), "{tokens}: {messages:?}");
                for (message, beginning) in messages.iter().zip(beginnings) {
                    assert!(message.starts_with(beginning), "{tokens}: {message}");
                }
            }
        }
    }

    #[test]
    fn values_are_read() {
        check("", Ok((None, None, None)));
        check(r#"memory = "256MiB", timeout = "30s", retries = 2,"#, Ok((Some(256 << 20), Some(30_000), Some(2))));
        check(r#"memory = "1GB""#, Ok((Some(1_000_000_000), None, None)));
        check("memory = 1048576", Ok((Some(1 << 20), None, None)));
        check(r#"memory = "4 GiB""#, Ok((Some(4 << 30), None, None)));
        check(r#"timeout = "500ms""#, Ok((None, Some(500), None)));
        check(r#"timeout = "2m""#, Ok((None, Some(120_000), None)));
        check(r#"requires(zone = "a", gpu = 1), retries = 1"#, Ok((None, None, Some(1))));
    }

    #[test]
    fn mistakes_are_reported_all_at_once() {
        check("memroy = 1", Err(&["there is no `memroy` here; possible are `name"]));
        check("retries", Err(&["expected `name = value`"]));
        check("retries = 1, retries = 2", Err(&["`retries` is given twice"]));
        check("retries(1), retries", Err(&["expected `name = value`", "expected `name = value`"]));
        check(", retries = -1", Err(&["expected `name = value`", "expected a whole number"]));
        check(r#"memory = "0", timeout = 30, retries = "2""#, Err(&["expected bytes", "expected a time", "expected a whole"]));
        check(r#"memory = "5GiB""#, Err(&["a task has a 32-bit memory"]));
        check(r#"memory = "256 MiBs""#, Err(&["expected bytes"]));
        check(r#"memory = "99999999999999999999GB""#, Err(&["expected bytes"]));
        check(r#"timeout = "30""#, Err(&["expected a time"]));
        check(r#"name = "", crate = "a b""#, Err(&["expected a name", "expected a path"]));
    }
}

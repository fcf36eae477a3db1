//! What the compiler says about wrong tasks: every file in `ui` fails to compile with the messages beside it.
//!
//! `TRYBUILD=overwrite cargo test --release -p quicsand-macros --test ui` writes the messages anew.

#[test]
fn mistakes_are_explained_where_they_are() {
    trybuild::TestCases::new().compile_fail("tests/ui/*.rs");
}

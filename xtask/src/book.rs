//! The book: built by mdBook, which is built once for it. Must not know: what is in it; its commands and programs are tests.

use std::{env, path::PathBuf, process::Command};

use anyhow::Result;

use crate::steps::{cargo, root, run};

const MDBOOK: &str = "mdbook@0.5.4";

/// Builds the book into `target/book`.
pub(crate) fn build() -> Result<()> {
    let home = root().join("target/mdbook");
    let mdbook = home.join("bin").join(format!("mdbook{}", env::consts::EXE_SUFFIX));
    let marker: PathBuf = home.join(MDBOOK);
    if !marker.exists() {
        // Not optimised, it is built in half the time, and takes no second for the book.
        let mut install = cargo(["install", "--locked", "--force", "--no-default-features", "--features", "search", MDBOOK]);
        install.arg("--root").arg(&home).arg("--target-dir").arg(home.join("target"));
        run(install.env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "0"))?;
        std::fs::write(&marker, "")?;
    }
    run(Command::new(mdbook).args(["build", "docs"]))?;
    eprintln!("xtask: the book is in {}", root().join("target/book/index.html").display());
    Ok(())
}

//! A program's WebAssembly module, as the macros embed it. Must not know: what is in it.

use std::sync::OnceLock;

/// The module of a program: made by [`#[quicsand::main]`](crate::main) or [`embed!`](crate::embed), never by hand.
///
/// ```
/// static MODULE: quicsand::Module = quicsand::embed!();
///
/// match MODULE.wasm() {
///     Ok(bytes) => println!("{} bytes", bytes.len()),
///     Err(reason) => println!("{reason}"),
/// }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Module {
    wasm: Result<&'static [u8], &'static str>,
}

static INSTALLED: OnceLock<Module> = OnceLock::new();

impl Module {
    /// What the macros emit when they built a module.
    #[doc(hidden)]
    #[must_use]
    pub const fn embedded(wasm: &'static [u8]) -> Self {
        Self { wasm: Ok(wasm) }
    }

    /// What the macros emit when they could not: why, as a clause without a full stop.
    #[doc(hidden)]
    #[must_use]
    pub const fn missing(reason: &'static str) -> Self {
        Self { wasm: Err(reason) }
    }

    /// The module's bytes.
    ///
    /// # Errors
    /// With the reason, when the program was built without one.
    pub const fn wasm(self) -> Result<&'static [u8], &'static str> {
        self.wasm
    }

    /// Makes this the module of clients that are not given one. The first installation counts; `#[quicsand::main]` does it.
    pub fn install(self) {
        INSTALLED.get_or_init(|| self);
    }

    /// What was installed.
    #[must_use]
    pub fn installed() -> Option<Self> {
        INSTALLED.get().copied()
    }
}

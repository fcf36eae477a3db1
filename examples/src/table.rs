//! The table of what was found, as comma-separated values.

use std::io::{Result, Write};

use crate::nuclei::Found;

/// Writes a line of headings and a line a plane. The maximum is written with as many digits as it takes to read the same number back.
///
/// # Errors
/// When `to` cannot be written to.
pub fn write(to: &mut impl Write, planes: &[Found]) -> Result<()> {
    writeln!(to, "plane,max_smoothed,foreground,labels")?;
    for (plane, found) in planes.iter().enumerate() {
        writeln!(to, "{plane},{},{},{}", found.max_smoothed, found.foreground, found.regions)?;
    }
    to.flush()
}

use quicsand::task;

#[task(memroy = "1GB")]
fn unknown() {}

#[task(retries)]
fn incomplete() {}

#[task(memory = "lots", timeout = 30, retries = -1, name = "")]
fn malformed() {}

#[task(retries = 1, retries = 2)]
fn repeated() {}

#[task(crate = "not a path")]
fn elsewhere() {}

#[task(memory = "8GiB")]
fn too_large() {}

fn main() {}

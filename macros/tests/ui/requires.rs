use quicsand::task;

#[task(requires(gpu, zone = "", gpu = 0, disk = -1, my label = "x", zone = true))]
fn malformed() {}

#[task(requires(gpu = 1, zone = "a", gpu = 2), requires(zone = "b"))]
fn repeated() {}

#[task(requires = "gpu", retries(2), require(gpu = 1))]
fn misplaced() {}

fn main() {}

use quicsand::task;

#[task]
fn mutates(xs: &mut Vec<f64>) {
    xs.clear();
}

#[task]
fn within(names: Vec<&str>) -> usize {
    names.len()
}

#[task]
fn twice(name: &&str) -> usize {
    name.len()
}

#[task]
fn for_ever(name: &'static str) -> usize {
    name.len()
}

#[task]
fn gives_back(name: &str) -> &str {
    name
}

#[task]
fn gives_back_or_fails(name: &str) -> Result<&str, String> {
    Ok(name)
}

fn main() {}

use quicsand::task;

#[task]
fn of_types<T: Clone>(x: T) -> T {
    x
}

#[task]
fn of_numbers<const N: usize>(x: [u8; N]) -> usize {
    x.len()
}

#[task]
fn of_lifetimes<'a>(x: &'a str) -> usize {
    x.len()
}

fn main() {}

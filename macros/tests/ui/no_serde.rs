use quicsand::task;

struct Opaque;

#[derive(serde::Serialize)]
struct OneWay;

struct Failure;

#[task]
fn takes(number: i64, opaque: Opaque) -> i64 {
    drop(opaque);
    number
}

#[task]
fn borrows(opaque: &Opaque) {
    let _ = opaque;
}

#[task]
fn gives() -> Opaque {
    Opaque
}

#[task]
fn gives_one_way() -> Result<OneWay, String> {
    Ok(OneWay)
}

#[task]
fn fails() -> Result<i64, Failure> {
    Err(Failure)
}

fn main() {}

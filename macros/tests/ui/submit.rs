//! Wrong arguments to `submit` and its kin.

use quicsand::{Client, task};

#[task]
fn inc(x: i64) -> i64 {
    x + 1
}

#[task]
fn add(x: i64, y: i64) -> i64 {
    x + y
}

fn plain(x: i64) -> i64 {
    x
}

fn main() {
    let client = Client::local();
    let _ = client.submit(inc, "one");
    let _ = client.submit(add, 1);
    let _ = client.submit(add, (1, "two"));
    let _ = client.submit(plain, 1);
    let _ = client.map(inc, ["one"]);
    let _ = client.gather(1);
}

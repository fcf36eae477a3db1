use quicsand::task;

#[task]
async fn waits(x: i64) -> i64 {
    x
}

#[task]
const fn early(x: i64) -> i64 {
    x
}

#[task]
unsafe fn dangerous(x: i64) -> i64 {
    x
}

#[task]
extern "C" fn foreign(x: i64) -> i64 {
    x
}

fn main() {}

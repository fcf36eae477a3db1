use quicsand::task;

struct Point {
    x: i64,
}

#[task]
fn of_tuples((x, y): (i64, i64)) -> i64 {
    x + y
}

#[task]
fn of_structs(Point { x }: Point) -> i64 {
    x
}

fn main() {}

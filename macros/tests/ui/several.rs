use quicsand::task;

#[task(timeout = "soon", priority = 3)]
async fn all_wrong<T>(&self, (a, b): (i64, i64), c: &mut T) -> impl Sized {
    (a, b, c);
}

#[task]
struct NotAFunction;

fn main() {}

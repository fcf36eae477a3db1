use quicsand::task;

struct Table;

impl Table {
    const BRACES: &'static str = "}}";

    #[task]
    pub fn rows(x: u64) -> u64 {
        x
    }
}

trait Rows {
    #[task]
    fn rows() -> u64 {
        1
    }
}

fn main() {}

use quicsand::task;

struct Table;

impl Table {
    #[task]
    fn rows(&self) -> u64 {
        1
    }

    #[task]
    fn consumed(self, by: u64) -> u64 {
        by
    }
}

fn main() {}

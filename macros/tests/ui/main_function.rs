#[quicsand::main(task = "my-tasks")]
fn start() {}

const MODULE: quicsand::Module = quicsand::embed!(tasks = 1);

fn main() {
    let _ = MODULE;
}

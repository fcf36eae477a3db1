//! The book is true: its commands are run on real clusters of this machine, its programs are built, its errors are those of the library.
//! What is not run is listed and counted here.

use std::{
    fs,
    net::UdpSocket,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use quicsand_tests::{
    book::{Block, Chapter, Fate, chapters, directory, is_like},
    scratch::target_dir,
};

/// Blocks that are marked as not run. A new one has to be counted here.
const NOT_RUN: usize = 4;
/// Commands of the README, by the block's first line, and why they are not run.
const README: &[(&str, &str)] = &[
    ("cargo xtask demo", "chores, of which one runs this test"),
    ("cargo install", "the quick start has the same for one machine, and is run"),
];
/// A command that has not ended by then never will.
const PATIENCE: Duration = Duration::from_secs(600);
/// The port that the book's commands name. Here it is another one each time.
const PORT: &str = "7447";

#[test]
fn every_block_has_a_fate() {
    let mut listed = Vec::new();
    let mut unclear = Vec::new();
    let mut counts = [0; 3];
    for chapter in chapters() {
        for block in &chapter.blocks {
            let place = format!("docs/{}.md:{}", chapter.name, block.line);
            match &block.fate {
                Fate::Unclear => unclear.push(place),
                Fate::NotRun(reason) => listed.push(format!("{place}: {reason}")),
                Fate::Compiled => counts[0] += 1,
                Fate::Run | Fate::Fails | Fate::Needs(_) | Fate::Background(_) => counts[1] += 1,
                Fate::File(_) | Fate::Output | Fate::Shown => counts[2] += 1,
            }
        }
    }
    println!(
        "{} blocks compiled, {} run, {} written, compared or shown; not run:\n{}",
        counts[0],
        counts[1],
        counts[2],
        listed.join("\n")
    );
    assert!(unclear.is_empty(), "say what becomes of these blocks (tests/src/book.rs has the ways):\n{}", unclear.join("\n"));
    assert_eq!(listed.len(), NOT_RUN, "blocks that are not run:\n{}", listed.join("\n"));
}

#[test]
fn the_readme_has_no_command_that_nobody_looked_at() {
    let readme = Chapter::read(&directory().with_file_name("README.md"));
    for block in readme.blocks.iter().filter(|block| block.language == "sh") {
        let known = README.iter().find(|(first, _)| block.text.starts_with(first));
        let (_, reason) = known.unwrap_or_else(|| panic!("README.md:{}: is it run anywhere?", block.line));
        println!("not run: README.md:{}: {reason}", block.line);
    }
}

#[test]
fn every_chapter_is_in_the_contents_and_its_rust_is_compiled() {
    let contents = fs::read_to_string(directory().join("SUMMARY.md")).expect("the contents");
    let compiled = include_str!("../src/lib.rs");
    for chapter in chapters() {
        assert!(contents.contains(&format!("({}.md)", chapter.name)), "SUMMARY.md lacks {}", chapter.name);
        let has_rust = chapter.blocks.iter().any(|block| block.language == "rust");
        let included = compiled.contains(&format!("../../docs/{}.md", chapter.name));
        assert!(included || !has_rust, "tests/src/lib.rs lacks {}.md", chapter.name);
    }
}

/// Tests of chapters with commands, one each.
macro_rules! run {
    ($($test:ident $chapter:literal)*) => {
        const RUN: &[&str] = &[$($chapter),*];
        $(
            #[test]
            fn $test() {
                Session::run($chapter);
            }
        )*
    };
}

run! {
    debugging_works "debugging"
    the_fleet_works "fleet"
    limits_work "limits"
    the_quick_start_works "quick-start"
}

#[test]
fn every_chapter_with_commands_is_run() {
    let is_run = |block: &Block| matches!(block.fate, Fate::Run | Fate::Fails | Fate::Needs(_) | Fate::Background(_));
    let with: Vec<String> =
        chapters().into_iter().filter(|chapter| chapter.blocks.iter().any(is_run)).map(|chapter| chapter.name).collect();
    let mut run = RUN.to_vec();
    run.sort_unstable();
    assert_eq!(with, run);
}

/// A chapter's commands, as somebody would type them who has a new home directory.
struct Session {
    dir: tempfile::TempDir,
    port: String,
    /// What the last command printed; `None` if it was skipped.
    printed: Option<String>,
    background: Vec<Background>,
    /// Programs whose versions are settled.
    locked: Vec<PathBuf>,
}

impl Session {
    /// Runs a chapter from its first block to its last. Chapters take turns: each may want the machine to itself.
    fn run(name: &str) {
        static TURN: Mutex<()> = Mutex::new(());
        let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let chapter = Chapter::read(&directory().join(format!("{name}.md")));
        let mut session = Self::start();
        for block in &chapter.blocks {
            println!("docs/{name}.md:{}", block.line);
            session.play(block);
        }
    }

    fn start() -> Self {
        let dir = tempfile::tempdir().expect("a home");
        let free = UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a free port");
        let session = Self { dir, port: free.port().to_string(), printed: None, background: Vec::new(), locked: Vec::new() };
        let workspace = directory().parent().expect("the workspace").to_owned();
        std::os::unix::fs::symlink(workspace, session.home().join("quicsand")).expect("the repository beside the program");
        fs::write(session.dir.path().join("cwd"), session.home().as_os_str().as_encoded_bytes())
            .expect("a directory to start in");
        session
    }

    fn home(&self) -> PathBuf {
        let home = self.dir.path().join("home");
        fs::create_dir_all(&home).expect("a home");
        home
    }

    fn play(&mut self, block: &Block) {
        // Cargo takes packages for others when it finds them by another path, and would build them again.
        let repository = format!("{}/", directory().parent().expect("the workspace").display());
        let text = block.text.replace(PORT, &self.port).replace("../quicsand/", &repository);
        match &block.fate {
            Fate::Run => self.command(&text, true),
            Fate::Fails => self.command(&text, false),
            Fate::Needs(program) if is_there(program) => self.command(&text, true),
            Fate::Needs(program) => {
                println!("SKIPPED: there is no {program}");
                self.printed = None;
            }
            Fate::Background(until) => {
                let said = self.dir.path().join(format!("said-{}", self.background.len()));
                self.background.push(Background::start(self.bash(&text), &said, until));
            }
            Fate::File(path) => self.write(path, &text),
            Fate::Output => self.compare(&text),
            Fate::Compiled | Fate::Shown => {}
            Fate::NotRun(reason) => println!("not run: {reason}"),
            Fate::Unclear => panic!("line {}: nobody knows what becomes of it", block.line),
        }
    }

    /// Each block is a shell of its own, which takes directory and exported variables over from the one before.
    fn bash(&self, text: &str) -> Command {
        let dir = self.dir.path().display();
        let script = format!(
            "set -euo pipefail\n[ ! -e '{dir}/env' ] || . '{dir}/env'\ncd \"$(cat '{dir}/cwd')\"\n{text}\nexport -p >'{dir}/env'\npwd >'{dir}/cwd'\n"
        );
        let mut command = Command::new("bash");
        command.args(["-c", &script]).stdin(Stdio::null()).env_clear();
        // Where compilers and their downloads are stays as it is.
        let kept =
            ["PATH", "CARGO_HOME", "RUSTUP_HOME", "RUSTUP_TOOLCHAIN", "LANG", "TMPDIR", "QUICSAND_RUSTC", "CARGO_INCREMENTAL"];
        command.envs(std::env::vars().filter(|(name, _)| kept.contains(&name.as_str())));
        let real_home = std::env::home_dir().expect("a home directory");
        for (name, below) in [("CARGO_HOME", ".cargo"), ("RUSTUP_HOME", ".rustup")] {
            if std::env::var_os(name).is_none() {
                command.env(name, real_home.join(below));
            }
        }
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{}:{path}", target_dir().join("release").display()));
        // What the workspace has built is not built again, and what is installed goes away with the home.
        command
            .env("HOME", self.home())
            .env("CARGO_TARGET_DIR", target_dir())
            .env("CARGO_INSTALL_ROOT", self.home().join("installed"));
        command
    }

    fn command(&mut self, text: &str, succeeds: bool) {
        self.lock_versions();
        let said = self.dir.path().join("said");
        let file = fs::File::create(&said).expect("a file for what it says");
        let mut command = self.bash(text);
        command.stdout(file.try_clone().expect("the file, twice")).stderr(file).process_group(0);
        let mut child = Background { child: command.spawn().expect("bash") };
        let began = Instant::now();
        let status = loop {
            if let Some(status) = child.child.try_wait().expect("a child") {
                break status;
            }
            assert!(began.elapsed() < PATIENCE, "it takes for ever:\n{text}\n{}", read(&said));
            std::thread::sleep(Duration::from_millis(20));
        };
        let printed = read(&said);
        assert_eq!(status.success(), succeeds, "it ended as {status}:\n{text}\n{printed}");
        println!("{printed}");
        self.printed = Some(printed);
    }

    /// A new program takes the versions that the workspace was built with, so that they are not built again.
    fn lock_versions(&mut self) {
        let cwd = PathBuf::from(read(&self.dir.path().join("cwd")).trim()).canonicalize().expect("a directory");
        let is_new = cwd.starts_with(self.home().canonicalize().expect("a home")) && cwd.join("Cargo.toml").exists();
        if is_new && !self.locked.contains(&cwd) {
            fs::copy(directory().with_file_name("Cargo.lock"), cwd.join("Cargo.lock")).expect("the workspace's lock file");
            self.locked.push(cwd);
        }
    }

    fn write(&self, path: &Path, text: &str) {
        let cwd = read(&self.dir.path().join("cwd"));
        let path = Path::new(cwd.trim()).join(path);
        fs::create_dir_all(path.parent().expect("below a directory")).expect("a directory for the file");
        // The reader does not see the lines that rustdoc hides.
        let shown: String =
            text.lines().filter(|line| !(line.starts_with("# ") || *line == "#")).map(|line| format!("{line}\n")).collect();
        fs::write(path, shown).expect("a file of the book");
    }

    fn compare(&self, expected: &str) {
        let Some(printed) = &self.printed else { return };
        for line in expected.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let found = printed.lines().any(|found| is_like(found.trim(), line));
            assert!(found, "nothing like {line:?} is in\n{printed}");
        }
    }
}

impl Drop for Session {
    /// What was started last ends first: workers before their scheduler.
    fn drop(&mut self) {
        while self.background.pop().is_some() {}
    }
}

/// A command with its children, ended with this value.
struct Background {
    child: Child,
}

impl Background {
    fn start(mut command: Command, said: &Path, until: &str) -> Self {
        let file = fs::File::create(said).expect("a file for what it says");
        command.stdout(file.try_clone().expect("the file, twice")).stderr(file).process_group(0);
        let mut started = Self { child: command.spawn().expect("bash") };
        let began = Instant::now();
        while !read(said).contains(until) {
            let ended = started.child.try_wait().expect("a child");
            assert!(ended.is_none() && began.elapsed() < PATIENCE, "it never said {until:?}:\n{}", read(said));
            std::thread::sleep(Duration::from_millis(20));
        }
        started
    }
}

impl Drop for Background {
    /// Ends the group: bash and what it started. A group that has ended is no error.
    fn drop(&mut self) {
        let group = format!("-{}", self.child.id());
        let kill = |signal| Command::new("kill").args([signal, "--", &group]).stderr(Stdio::null()).status();
        for (signal, patience) in [("-TERM", Duration::from_secs(10)), ("-KILL", PATIENCE)] {
            let began = Instant::now();
            let _ = kill(signal);
            while began.elapsed() < patience {
                let bash_ended = !matches!(self.child.try_wait(), Ok(None));
                if bash_ended && !kill("-0").is_ok_and(|status| status.success()) {
                    return;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }
}

fn read(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}

fn is_there(program: &str) -> bool {
    std::env::var_os("PATH").is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(program).is_file()))
}

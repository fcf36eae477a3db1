//! What a worker's owner lets tasks see of the machine: nothing but the time, unless it is granted. Owns: grants, their flags, and the
//! world that they make. Must not know: guests, or what of the world they look at.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    str::FromStr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use cap_std::{ambient_authority, fs::Dir};
use thiserror::Error;

/// Variables that are never passed on: they let their bearer into the cluster.
const SECRETS: &[&str] = &["QUICSAND_TOKEN"];
/// Bytes of all granted variables, at most: every instance gets them.
const ENVIRONMENT_BYTES: usize = 1 << 20;

/// What tasks may see of the machine. Every task of every client sees the same; what some must not see belongs to another worker.
///
/// This is about sandboxes. A program that runs its tasks in its own process reaches everything that the process does, whatever is
/// granted here.
///
/// The fields are flags of `quicsand worker` and keys of its configuration file as well; their first lines are its help.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args)]
pub struct Grants {
    /// A directory that tasks may read, and where they see it, by default at the same path; can be given several times
    ///
    /// Neither `..` nor absolute paths nor symbolic links lead out of it. Nothing in it can be changed.
    ///
    /// Only files and directories can be opened, and what is open is closed when its item ends.
    #[arg(long, value_name = "HOST_PATH[=GUEST_PATH]")]
    pub allow_dir: Vec<DirGrant>,
    /// A variable of the worker's own environment that tasks see, if it is set; can be given several times
    #[arg(long, value_name = "NAME")]
    pub allow_env: Vec<String>,
    /// A variable that tasks see; can be given several times
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    pub env: Vec<(String, String)>,
    /// What time tasks see: `wall`, or `fixed`, `fixed=1700000000`, `fixed=2024-02-29T12:00:00Z`, which only sleeping moves on
    #[arg(long, value_name = "CLOCK", default_value_t)]
    pub clock: Clock,
}

/// A directory to read, and where tasks see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirGrant {
    /// On the machine.
    pub host: PathBuf,
    /// In the sandbox: an absolute path with slashes. `None` for the host's own.
    pub guest: Option<String>,
}

/// What time tasks see.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Clock {
    /// The machine's.
    #[default]
    Wall,
    /// Every item begins at the same moment, so long after 1970, and only its own sleeping moves it on, by just as long as it asked for.
    /// How long things take cannot be seen, time limits hold as ever.
    Fixed(Duration),
}

/// Why a grant cannot be made.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum GrantError {
    /// The directory cannot be opened.
    #[error("the directory {} cannot be granted: {source}", path.display())]
    Dir {
        /// On the machine.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Tasks cannot tell two directories apart, or have no name for one.
    #[error("`{path}` cannot be where tasks see a directory: {reason}")]
    Place {
        /// Where tasks were to see it.
        path: String,
        /// Why not.
        reason: &'static str,
    },
    /// A variable that cannot be passed on.
    #[error("the variable `{name}` cannot be granted: {reason}")]
    Variable {
        /// Its name.
        name: String,
        /// Why not.
        reason: &'static str,
    },
}

/// The grants of a sandbox, made.
#[derive(Debug, Default)]
pub(crate) struct World {
    pub(crate) dirs: Vec<GrantedDir>,
    /// `NAME=VALUE`, each with a NUL at its end.
    pub(crate) environment: Vec<Vec<u8>>,
    pub(crate) clock: Clock,
}

/// An open directory that guests may read.
#[derive(Debug)]
pub(crate) struct GrantedDir {
    pub(crate) dir: Dir,
    /// Where guests see it.
    pub(crate) name: String,
}

impl World {
    /// Opens what is granted. `variable` gives the worker's own environment.
    ///
    /// # Errors
    /// When a directory cannot be opened, or a name cannot be used.
    pub(crate) fn open(grants: &Grants, variable: impl Fn(&str) -> Option<String>) -> Result<Self, GrantError> {
        let mut dirs = Vec::<GrantedDir>::new();
        for grant in &grants.allow_dir {
            let granted = grant.open()?;
            if dirs.iter().any(|other| other.name == granted.name) {
                return Err(GrantError::Place { path: granted.name, reason: "there is another one already" });
            }
            dirs.push(granted);
        }
        if let Some(secret) = grants.allow_env.iter().find(|name| SECRETS.contains(&name.as_str())) {
            return Err(GrantError::Variable { name: secret.clone(), reason: "it lets its bearer into the cluster" });
        }
        let own = grants.allow_env.iter().filter_map(|name| Some((name.clone(), variable(name)?)));
        let mut environment = Vec::new();
        let mut names = Vec::new();
        let mut bytes = 0;
        for (name, value) in own.chain(grants.env.iter().cloned()) {
            let entry = format!("{name}={value}\0").into_bytes();
            bytes += entry.len();
            let reason = match () {
                () if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') => "no variable can be like that",
                () if names.contains(&name) => "there is another one already",
                () if bytes > ENVIRONMENT_BYTES => "all together are larger than 1MiB",
                () => {
                    environment.push(entry);
                    names.push(name);
                    continue;
                }
            };
            return Err(GrantError::Variable { name, reason });
        }
        Ok(Self { dirs, environment, clock: grants.clock })
    }
}

impl DirGrant {
    fn open(&self) -> Result<GrantedDir, GrantError> {
        let failed = |source| GrantError::Dir { path: self.host.clone(), source };
        let host = self.host.canonicalize().map_err(failed)?;
        let dir = Dir::open_ambient_dir(&host, ambient_authority()).map_err(failed)?;
        let name = match &self.guest {
            Some(guest) => guest.clone(),
            // As the owner wrote it, links and all; from the root, as guests have no current directory.
            None => std::path::absolute(&self.host).map_err(failed)?.to_string_lossy().into_owned(),
        };
        let reason = match () {
            () if name.contains(['\0', '\u{fffd}']) => "its name is no text",
            () if self.guest.is_some() && !name.starts_with('/') => "it has to begin with `/`",
            () if Path::new(&name).components().any(|part| part.as_os_str() == "..") => "it has `..` in it",
            () => return Ok(GrantedDir { dir, name }),
        };
        Err(GrantError::Place { path: name, reason })
    }
}

impl FromStr for DirGrant {
    type Err = String;

    /// # Errors
    /// When a side of the `=` is empty.
    fn from_str(text: &str) -> Result<Self, String> {
        // A path of the host may have `=` in it, one of the guest begins with a slash.
        let (host, guest) = match text.rsplit_once("=/") {
            Some((host, guest)) => (host, Some(format!("/{guest}"))),
            None => (text, None),
        };
        if host.is_empty() {
            return Err(format!("`{text}` names no directory; write HOST_PATH or HOST_PATH=/GUEST_PATH"));
        }
        Ok(Self { host: host.into(), guest })
    }
}

impl fmt::Display for DirGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.host.display())?;
        self.guest.iter().try_for_each(|guest| write!(f, "={guest}"))
    }
}

impl FromStr for Clock {
    type Err = String;

    /// # Errors
    /// When the text is neither `wall` nor `fixed` nor `fixed=` with a time.
    fn from_str(text: &str) -> Result<Self, String> {
        let error = || format!("`{text}` is no clock; write wall, fixed, fixed=SECONDS or fixed=2024-02-29T12:00:00Z");
        match text.split_once('=') {
            None if text == "wall" => Ok(Self::Wall),
            None if text == "fixed" => Ok(Self::Fixed(Duration::ZERO)),
            Some(("fixed", time)) => match time.parse() {
                // Guests count nanoseconds in 64 bits.
                Ok(seconds) if seconds <= u64::MAX / 2_000_000_000 => Ok(Self::Fixed(Duration::from_secs(seconds))),
                Ok(_) => Err(error()),
                Err(_) => {
                    let time = humantime::parse_rfc3339_weak(time).map_err(|_| error())?;
                    time.duration_since(UNIX_EPOCH).map(Self::Fixed).map_err(|_| error())
                }
            },
            _ => Err(error()),
        }
    }
}

impl fmt::Display for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wall => f.write_str("wall"),
            Self::Fixed(since) => write!(f, "fixed={}", humantime::format_rfc3339(SystemTime::UNIX_EPOCH + *since)),
        }
    }
}

/// `NAME=VALUE`.
fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(format!("`{text}` has no name or value; write NAME=VALUE")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs() {
        assert_eq!(pair("zone=a=b"), Ok(("zone".into(), "a=b".into())));
        assert!(pair("zone").is_err() && pair("=a").is_err());
    }

    #[test]
    fn clocks() {
        let check = |text: &str, expected: Clock| {
            assert_eq!(text.parse(), Ok(expected));
            assert_eq!(expected.to_string().parse(), Ok(expected));
        };
        check("wall", Clock::Wall);
        check("fixed", Clock::Fixed(Duration::ZERO));
        check("fixed=1700000000", Clock::Fixed(Duration::from_secs(1_700_000_000)));
        check("fixed=1970-01-02T00:00:00Z", Clock::Fixed(Duration::from_secs(86_400)));
        for text in
            ["", "none", "wall=1", "fixed=", "fixed=yesterday", "fixed=99999999999999999999", "fixed=18446744073709551615"]
        {
            assert!(text.parse::<Clock>().is_err(), "{text}");
        }
    }

    #[test]
    fn directories() {
        let check = |text: &str, host: &str, guest: Option<&str>| {
            let grant = DirGrant { host: host.into(), guest: guest.map(str::to_owned) };
            assert_eq!(text.parse(), Ok(grant.clone()));
            assert_eq!(grant.to_string(), text);
        };
        check("/srv/data", "/srv/data", None);
        check("data=/data", "data", Some("/data"));
        check("/a=b", "/a=b", None);
        check("/a=b=/c", "/a=b", Some("/c"));
        assert!("".parse::<DirGrant>().is_err() && "=/data".parse::<DirGrant>().is_err());
    }

    #[test]
    fn what_cannot_be_granted_is_said() {
        let here = tempfile::tempdir().expect("a directory");
        let host = here.path().display().to_string();
        let refusal = |dirs: &[String], own: &[&str], env: &[&str]| {
            let grants = Grants {
                allow_dir: dirs.iter().map(|dir| dir.parse().expect("a grant")).collect(),
                allow_env: own.iter().map(|&name| name.to_owned()).collect(),
                env: env.iter().map(|text| pair(text).expect("a variable")).collect(),
                clock: Clock::Wall,
            };
            World::open(&grants, |name| (name != "QUICSAND_TOKEN").then(|| format!("value of {name}")))
                .map(drop)
                .map_err(|error| error.to_string())
        };
        assert_eq!(refusal(&[host.clone(), format!("{host}=/data")], &["HOME"], &["A=", "B=1"]), Ok(()));
        let check = |result: Result<(), String>, hint: &str| {
            let error = result.expect_err("cannot be granted");
            assert!(error.contains(hint), "{error}");
        };
        check(refusal(&["/no/where".into()], &[], &[]), "the directory /no/where cannot be granted");
        check(refusal(&[format!("{host}=/a"), format!("{host}=/a")], &[], &[]), "`/a` cannot be where");
        check(refusal(&[format!("{host}=/a/../b")], &[], &[]), "`..`");
        check(refusal(&[], &["QUICSAND_TOKEN"], &[]), "lets its bearer into the cluster");
        check(refusal(&[], &["A"], &["A=1"]), "another one");
    }

    #[test]
    fn variables_that_are_not_set_are_left_out() {
        let grants = Grants { allow_env: vec!["HERE".into(), "GONE".into()], ..Grants::default() };
        let world = World::open(&grants, |name| (name == "HERE").then(|| "yes".to_owned())).expect("opens");
        assert_eq!(world.environment, [b"HERE=yes\0"]);
    }
}
